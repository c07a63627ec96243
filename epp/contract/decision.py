# SPDX-License-Identifier: Apache-2.0
"""What was chosen and why: one record that feeds the log line, the debug endpoint and `explain`.

The scheduler fills it with the arrays it already has; text and dictionaries are made only when somebody asks.
It never holds prompt text. Scores: `raw` is what a scorer returned, `clamped` is limited to 0..1, `weighted` is
clamped times weight; an endpoint's total is the sum of the weighted scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from epp.contract.endpoints import Endpoint, Endpoints, FloatArray, IntArray


class FilterTrace(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What one filter did: how many candidates came in, and the rows it dropped."""

    name: str
    before: int
    dropped_rows: IntArray


class ScoreTrace(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What one scorer said: `raw` has one value per surviving candidate. `error` when it abstained."""

    name: str
    weight: float
    raw: FloatArray
    error: str | None = None

    @property
    def weighted(self) -> FloatArray:
        """Clamped to 0..1, times weight."""
        return np.minimum(np.maximum(self.raw, 0.0), 1.0) * self.weight


class ProfileResult(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One run of one scheduling profile. `picked` are positions in `endpoints`, the preferred first."""

    profile: str
    endpoints: Endpoints
    filters: tuple[FilterTrace, ...]
    scores: tuple[ScoreTrace, ...]
    total: FloatArray
    picked: tuple[int, ...]

    @property
    def targets(self) -> tuple[Endpoint, ...]:
        """The picked endpoints, the preferred first."""
        return tuple(self.endpoints[i] for i in self.picked)

    def runner_up(self) -> int | None:
        """Position of the best candidate that was not picked first, or None when there was no other."""
        if len(self.total) < 2:
            return None
        others = self.total.copy()
        others[self.picked[0]] = -np.inf
        return int(others.argmax())


class Decision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The outcome of scheduling one request. `results` is keyed by profile name; `primary` names the one
    whose targets Envoy is told."""

    request_id: str
    model: str
    target_model: str
    primary: str
    results: Mapping[str, ProfileResult]
    candidates: int
    at_s: float

    @property
    def result(self) -> ProfileResult:
        """The primary profile's result."""
        return self.results[self.primary]

    @property
    def target(self) -> Endpoint:
        """The endpoint that was charged."""
        result = self.result
        return result.endpoints[result.picked[0]]

    def as_dict(self) -> dict[str, Any]:
        """Everything, as plain values for JSON: per profile the scores of the winner and the runner-up."""
        return self.describe()[0]

    def explain(self) -> str:
        """One line: who won, with which scores, and who came second."""
        return _describe(self.result)[1]

    def describe(self) -> tuple[dict[str, Any], str]:
        """`as_dict()` and `explain()` in one pass, for the log line of every request."""
        described = {name: _describe(result) for name, result in self.results.items()}
        chosen = described[self.primary][0]["picked"]
        record = {
            "request_id": self.request_id,
            "model": self.model,
            "target_model": self.target_model,
            "endpoint": chosen["endpoint"],
            "address": chosen["address"],
            "candidates": self.candidates,
            "profiles": [fields for fields, _ in described.values()],
        }
        return record, described[self.primary][1]


# What follows runs once per request at the default log level, so it reads single array items as Python floats
# (`item`), computes the weighted score of one position instead of the whole array, and makes dictionary and text
# of a position together. Rounding by way of an integer is several times cheaper than `round`.


_Column = tuple[str, float, str, Callable[[int], float]]
"""A scorer's name, its weight as number and as text, and what reads its raw score at a position."""


def _round(value: float) -> float:
    """Six decimals; `round` does what the cheap way cannot (NaN, negatives, huge values)."""
    return int(value * 1e6 + 0.5) / 1e6 if 0.0 <= value < 1e6 else round(value, 6)


def _standing(result: ProfileResult, position: int, columns: list[_Column]) -> tuple[dict[str, Any], str]:
    endpoint = result.endpoints[position]
    scores = {}
    parts = []
    for name, weight, text, item in columns:
        raw = item(position)
        if 0.0 <= raw <= 1.0:
            shown, weighted = int(raw * 1e6 + 0.5) / 1e6, int(raw * weight * 1e6 + 0.5) / 1e6
        else:
            shown, weighted = round(raw, 6), round(min(max(raw, 0.0), 1.0) * weight, 6)
        scores[name] = {"raw": shown, "weight": weight, "weighted": weighted}
        parts.append(f"{name} {raw:.3g}{text}")
    total = _round(result.total.item(position))
    fields = {"endpoint": endpoint.id, "address": endpoint.address, "total": total, "scores": scores}
    return fields, f"{endpoint.name} {total:.3f} ({', '.join(parts)})"


def _describe(result: ProfileResult) -> tuple[dict[str, Any], str]:
    columns: list[_Column] = [(s.name, s.weight, f"x{s.weight:g}", s.raw.item) for s in result.scores]
    winner, why = _standing(result, result.picked[0], columns)
    candidates = len(result.total)
    fields: dict[str, Any] = {"profile": result.profile, "picked": winner, "candidates": candidates}
    second = result.runner_up()
    if second is None:
        why = f"{why}; the only candidate"
    else:
        fields["runner_up"], other = _standing(result, second, columns)
        fields["margin"] = _round(winner["total"] - fields["runner_up"]["total"])
        tie = ", a tie that the picker decided" if not fields["margin"] else ""
        why = f"{why}; runner-up {other}{tie}"
    if not result.scores:
        why = f"{result.endpoints[result.picked[0]].name} (no scorer; {candidates} candidates)"
    if result.filters:
        fields["filters"] = [
            {"name": f.name, "before": f.before, "dropped": len(f.dropped_rows)} for f in result.filters
        ]
    abstained = {s.name: s.error for s in result.scores if s.error}
    if abstained:
        fields["abstained"] = abstained
    return fields, why
