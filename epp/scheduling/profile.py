# SPDX-License-Identifier: Apache-2.0
"""One run of one scheduling profile: filters narrow the candidates, scorers add up, the picker chooses.

total = sum over scorers, in configuration order, of weight * min(max(score, 0), 1), not normalised, in float64, so
equal configurations give equal totals. Whole arrays throughout: the cost does not grow with Python work per endpoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from epp.contract.decision import FilterTrace, ProfileResult, ScoreTrace
from epp.contract.endpoints import Endpoints, FloatArray
from epp.contract.errors import PluginError, RequestError, ResourceExhausted
from epp.contract.plugins import Filter, Picker, Scorer
from epp.contract.requests import InferenceRequest
from epp.scheduling.guard import Guarded

# NumPy takes arrays faster than numbers.
_LOWEST = np.array(0.0)
_HIGHEST = np.array(1.0)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile consists of, ready to run. Scorers come with their weights."""

    name: str
    filters: Sequence[Guarded[Filter]]
    scorers: Sequence[tuple[Guarded[Scorer], float]]
    picker: Guarded[Picker]

    def run(self, request: InferenceRequest, endpoints: Endpoints) -> ProfileResult:
        """Choose among `endpoints`. Raises `ResourceExhausted` when the filters leave none."""
        filters: tuple[FilterTrace, ...] = ()
        if self.filters:
            endpoints, filters = self._filter(request, endpoints)
        if not len(endpoints):
            last = filters[-1].name if filters else ""
            by = f": filter '{last}' dropped the last of them" if last else ""
            raise ResourceExhausted(f"no endpoints available for the given request{by}", reason="rejected-saturated")
        total, scores = self._score(request, endpoints)
        return ProfileResult(self.name, endpoints, filters, scores, total, self._pick(request, endpoints, total))

    def _filter(self, request: InferenceRequest, endpoints: Endpoints) -> tuple[Endpoints, tuple[FilterTrace, ...]]:
        traces = []
        for guarded in self.filters:
            if guarded.benched:
                continue
            try:
                mask = np.asarray(guarded.plugin.filter(request, endpoints), dtype=np.bool_)
                if mask.shape != (len(endpoints),):
                    raise PluginError(f"filter returned shape {mask.shape}, expected ({len(endpoints)},)")
            except RequestError:
                raise
            except Exception as error:
                guarded.failed(error)
                continue
            guarded.succeeded()
            traces.append(FilterTrace(guarded.name, len(endpoints), endpoints.rows[~mask]))
            if traces[-1].dropped_rows.size:
                endpoints = endpoints.where(mask)
                if not len(endpoints):
                    break
        return endpoints, tuple(traces)

    def _score(self, request: InferenceRequest, endpoints: Endpoints) -> tuple[FloatArray, tuple[ScoreTrace, ...]]:
        count = len(endpoints)
        total: FloatArray | None = None
        traces = []
        for guarded, weight in self.scorers:
            try:
                if guarded.failing and guarded.benched:
                    raise _Benched
                raw = np.asarray(guarded.plugin.score(request, endpoints), dtype=np.float64)
                if raw.shape != (count,):
                    raise PluginError(f"scorer returned shape {raw.shape}, expected ({count},)")
                weighted = np.minimum(np.maximum(raw, _LOWEST), _HIGHEST)
                weighted *= weight
                # One product finds a NaN anywhere; looking at every value would cost more than the scorer.
                if math.isnan(weighted.dot(weighted)):
                    raise PluginError("scorer returned NaN")
            except RequestError:
                raise
            except _Benched:
                traces.append(ScoreTrace(guarded.name, weight, np.zeros(count), "benched"))
                continue
            except Exception as error:
                traces.append(ScoreTrace(guarded.name, weight, np.zeros(count), guarded.failed(error)))
                continue
            if guarded.failing:
                guarded.succeeded()
            if total is None:
                total = weighted
            else:
                total += weighted
            traces.append(ScoreTrace(guarded.name, weight, raw))
        return np.zeros(count) if total is None else total, tuple(traces)

    def _pick(self, request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> tuple[int, ...]:
        guarded = self.picker
        if not (guarded.failing and guarded.benched):
            try:
                picked = tuple(np.asarray(guarded.plugin.pick(request, endpoints, total), dtype=np.int64).tolist())
                if not picked or min(picked) < 0 or max(picked) >= len(endpoints):
                    raise PluginError(f"picker returned positions {picked}, expected some of 0..{len(endpoints) - 1}")
            except RequestError:
                raise
            except Exception as error:
                guarded.failed(error)
            else:
                if guarded.failing:
                    guarded.succeeded()
                return picked
        return (int(total.argmax()),)


class _Benched(Exception):
    """The scorer is not to be called now."""
