# SPDX-License-Identifier: Apache-2.0
"""What was chosen and why: one record that feeds the log line, the debug endpoint and `explain`.

The scheduler fills it with the arrays it already has; text and dictionaries are made only when somebody asks.
It never holds prompt text. Scores: `raw` is what a scorer returned, `clamped` is limited to 0..1, `weighted` is
clamped times weight; an endpoint's total is the sum of the weighted scores.
"""

from __future__ import annotations

from collections.abc import Mapping
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
        profiles = {name: _profile_fields(result) for name, result in self.results.items()}
        chosen = profiles[self.primary]["picked"]
        return {
            "request_id": self.request_id,
            "model": self.model,
            "target_model": self.target_model,
            "endpoint": chosen["endpoint"],
            "address": chosen["address"],
            "candidates": self.candidates,
            "profiles": list(profiles.values()),
        }

    def explain(self) -> str:
        """One line: who won, with which scores, and who came second. Written for every request, so it is cheap."""
        result = self.result
        winner, candidates = result.picked[0], len(result.total)
        if not result.scores:
            return f"{result.endpoints[winner].name} (no scorer; {candidates} candidates)"
        second = result.runner_up()
        if second is None:
            return f"{_standing(result, winner)}; the only candidate"
        tie = ", a tie that the picker decided" if result.total.item(winner) == result.total.item(second) else ""
        return f"{_standing(result, winner)}; runner-up {_standing(result, second)}{tie}"


def _standing(result: ProfileResult, position: int) -> str:
    parts = ", ".join(
        [
            f"{s.name} abstained" if s.error else f"{s.name} {s.raw.item(position):.3g}x{s.weight:g}"
            for s in result.scores
        ]
    )
    return f"{result.endpoints[position].name} {result.total.item(position):.3f} ({parts})"


def _standing_fields(result: ProfileResult, position: int) -> dict[str, Any]:
    endpoint = result.endpoints[position]
    return {
        "endpoint": endpoint.id,
        "address": endpoint.address,
        "total": round(result.total.item(position), 6),
        "scores": {
            s.name: {
                "raw": round(s.raw.item(position), 6),
                "weight": s.weight,
                "weighted": round(s.weighted.item(position), 6),
            }
            for s in result.scores
        },
    }


def _profile_fields(result: ProfileResult) -> dict[str, Any]:
    winner, second = result.picked[0], result.runner_up()
    fields: dict[str, Any] = {
        "profile": result.profile,
        "picked": _standing_fields(result, winner),
        "candidates": len(result.total),
    }
    if second is not None:
        fields["runner_up"] = _standing_fields(result, second)
        fields["margin"] = round(result.total.item(winner) - result.total.item(second), 6)
    if result.filters:
        fields["filters"] = [
            {"name": f.name, "before": f.before, "dropped": len(f.dropped_rows)} for f in result.filters
        ]
    abstained = {s.name: s.error for s in result.scores if s.error}
    if abstained:
        fields["abstained"] = abstained
    return fields
