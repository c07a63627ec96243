# SPDX-License-Identifier: Apache-2.0
"""What was chosen and why. It feeds the log line, `epp.observe.decision.record` and, through it, `epp explain`.

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
from epp.contract.snapshot import Snapshot, same_moment

MOST_NAMED = 32
"""Endpoints that one filter dropped and that are told by name."""


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
    def clamped(self) -> FloatArray:
        """Limited to 0..1."""
        return np.minimum(np.maximum(self.raw, 0.0), 1.0)

    @property
    def weighted(self) -> FloatArray:
        """Clamped to 0..1, times weight."""
        return self.clamped * self.weight


class ProfileResult(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One run of one scheduling profile. `picked` are positions in `endpoints`, the preferred first.

    `endpoints` are the candidates that the filters left; `omitted` says how many of them a record did not keep.
    """

    profile: str
    endpoints: Endpoints
    filters: tuple[FilterTrace, ...]
    scores: tuple[ScoreTrace, ...]
    total: FloatArray
    picked: tuple[int, ...]
    omitted: int = 0

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

    def best(self, count: int) -> IntArray:
        """Positions of the `count` best candidates and of the picked ones, ascending."""
        keep = np.zeros(len(self.total), dtype=np.bool_)
        keep[self.total.argpartition(-count)[-count:] if count < len(keep) else slice(None)] = True
        keep[list(self.picked)] = True
        return keep.nonzero()[0]

    def only(self, positions: IntArray) -> ProfileResult:
        """The same, but of the candidates in `positions` (ascending, the picked ones among them) alone."""
        return ProfileResult(
            self.profile,
            same_moment(self.endpoints, self.endpoints.rows.take(positions)),
            self.filters,
            tuple([ScoreTrace(s.name, s.weight, s.raw.take(positions), s.error) for s in self.scores]),
            self.total.take(positions),
            tuple(positions.searchsorted(self.picked).tolist()),
            self.omitted + len(self.total) - len(positions),
        )


class Decision(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The outcome of scheduling one request. `results` is keyed by profile name; `primary` names the one
    whose targets Envoy is told. `known` is what was known of all candidates, the filtered ones included, before the
    choice was charged."""

    request_id: str
    model: str
    target_model: str
    primary: str
    results: Mapping[str, ProfileResult]
    candidates: int
    at_s: float
    known: Snapshot | None = None

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
        profiles = {name: profile_fields(result) for name, result in self.results.items()}
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
        winner, candidates = result.picked[0], len(result.total) + result.omitted
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


def standing_fields(result: ProfileResult, position: int) -> dict[str, Any]:
    """How one candidate came out, as plain values for JSON."""
    endpoint = result.endpoints[position]
    return {
        "endpoint": endpoint.id,
        "address": endpoint.address,
        "total": round(result.total.item(position), 6),
        "scores": {
            s.name: {
                "raw": round(s.raw.item(position), 6),
                "clamped": round(s.clamped.item(position), 6),
                "weight": s.weight,
                "weighted": round(s.weighted.item(position), 6),
            }
            for s in result.scores
        },
    }


def profile_fields(result: ProfileResult) -> dict[str, Any]:
    """One profile's run as plain values for JSON: the winner, the runner-up, and who fell by which filter."""
    winner, second = result.picked[0], result.runner_up()
    fields: dict[str, Any] = {
        "profile": result.profile,
        "picked": standing_fields(result, winner),
        "candidates": len(result.total) + result.omitted,
    }
    if second is not None:
        fields["runner_up"] = standing_fields(result, second)
        fields["margin"] = round(result.total.item(winner) - result.total.item(second), 6)
    if result.filters:
        fields["filters"] = [
            {
                "name": f.name,
                "before": f.before,
                "dropped": len(f.dropped_rows),
                "endpoints": names_of(result.endpoints, f.dropped_rows[:MOST_NAMED]),
            }
            for f in result.filters
        ]
    abstained = {s.name: s.error for s in result.scores if s.error}
    if abstained:
        fields["abstained"] = abstained
    return fields


def names_of(endpoints: Endpoints, rows: IntArray) -> list[str]:
    """`namespace/name` of the endpoints that lived in `rows` when `endpoints` was made."""
    lived = [endpoints.identities[row] for row in rows.tolist()]
    return [endpoint.id for endpoint in lived if endpoint is not None]
