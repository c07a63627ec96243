# SPDX-License-Identifier: Apache-2.0
"""What was chosen and why: one record that feeds the log line, the debug endpoint and `explain`.

The scheduler fills it with the arrays it already has; text and dictionaries are made only when somebody asks.
It never holds prompt text. Scores: `raw` is what a scorer returned, `clamped` is limited to 0..1, `weighted` is
clamped times weight; an endpoint's total is the sum of the weighted scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from epp.contract.endpoints import Endpoint, Endpoints, FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class FilterTrace:
    """What one filter did: how many candidates came in, and the rows it dropped."""

    name: str
    before: int
    dropped_rows: IntArray


@dataclass(frozen=True, slots=True)
class ScoreTrace:
    """What one scorer said: `raw` has one value per surviving candidate. `error` when it abstained."""

    name: str
    weight: float
    raw: FloatArray
    error: str | None = None

    @property
    def weighted(self) -> FloatArray:
        """Clamped to 0..1, times weight."""
        return np.minimum(np.maximum(self.raw, 0.0), 1.0) * self.weight


@dataclass(frozen=True, slots=True)
class ProfileResult:
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
        if len(self.endpoints) < 2:
            return None
        others = self.total.copy()
        others[self.picked[0]] = -np.inf
        return int(others.argmax())


@dataclass(frozen=True, slots=True)
class Decision:
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
        return {
            "request_id": self.request_id,
            "model": self.model,
            "target_model": self.target_model,
            "endpoint": self.target.id,
            "address": self.target.address,
            "candidates": self.candidates,
            "profiles": [_result_dict(result) for result in self.results.values()],
        }

    def explain(self) -> str:
        """One line: who won, with which scores, and who came second."""
        result = self.result
        if not result.scores:
            return f"{result.endpoints[result.picked[0]].name} (no scorer; {len(result.endpoints)} candidates)"
        winner = result.picked[0]
        line = f"{_standing(result, winner)}"
        second = result.runner_up()
        if second is None:
            return f"{line}; the only candidate"
        return f"{line}; runner-up {_standing(result, second)}"


def _standing(result: ProfileResult, position: int) -> str:
    parts = ", ".join(f"{s.name} {s.raw[position]:.3g}x{s.weight:g}" for s in result.scores)
    return f"{result.endpoints[position].name} {result.total[position]:.3f} ({parts})"


def _scores_dict(result: ProfileResult, position: int) -> dict[str, Any]:
    return {
        "endpoint": result.endpoints[position].id,
        "address": result.endpoints[position].address,
        "total": round(float(result.total[position]), 6),
        "scores": {
            s.name: {
                "raw": round(float(s.raw[position]), 6),
                "weight": s.weight,
                "weighted": round(float(s.weighted[position]), 6),
            }
            for s in result.scores
        },
    }


def _result_dict(result: ProfileResult) -> dict[str, Any]:
    winner = _scores_dict(result, result.picked[0])
    second = result.runner_up()
    out: dict[str, Any] = {"profile": result.profile, "picked": winner, "candidates": len(result.endpoints)}
    if second is not None:
        out["runner_up"] = _scores_dict(result, second)
        out["margin"] = round(winner["total"] - out["runner_up"]["total"], 6)
    if result.filters:
        out["filters"] = [{"name": f.name, "before": f.before, "dropped": len(f.dropped_rows)} for f in result.filters]
    abstained = {s.name: s.error for s in result.scores if s.error}
    if abstained:
        out["abstained"] = abstained
    return out
