# SPDX-License-Identifier: Apache-2.0
"""Everything about one routed request: the decision, what it was asked, what was charged, how it ended.

A record is made on the request's path from what is there already. It holds no prompt text and no header but the
request id, and of texts that the client chose no more than `limited` leaves. `as_dict` makes plain values for JSON; it
may run in any thread, as nothing in a record that is kept changes but `completion`, which is set once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from epp.contract.decision import Decision, ProfileResult, profile_fields
from epp.contract.requests import Completion, InferenceRequest
from epp.contract.signals import Signal
from epp.contract.snapshot import SHOWN, Snapshot
from epp.observe.log.limited import MOST_CHARACTERS, limited

VERSION = 1
"""Of the form `as_dict` has; a new one may add fields without another number."""

MOST_CANDIDATES = 256
"""A record keeps the best so many candidates of each profile."""

AGES: Mapping[str, Signal] = {
    "waiting": Signal.WAITING,
    "running": Signal.RUNNING,
    "kv_utilization": Signal.KV_UTILIZATION,
}


class Record(msgspec.Struct, eq=False, gc=False):
    """One routed request. Times are the clock's monotonic seconds.

    * received_s: when it arrived; answered_s: when it had been charged and was answered
    * scheduling_s: how long choosing and charging took; charged_tokens: what the lease took, besides one request
    * number: counts the decisions of this process, from 1
    * pool: `namespace/name`, where many are served
    * told_by: whose word `completion` is: `response` when it passed by here, else what took its place
    """

    decision: Decision
    received_s: float
    answered_s: float
    scheduling_s: float
    charged_tokens: float
    number: int = 0
    prompt_tokens: int = 0
    max_output_tokens: int | None = None
    priority: int = 0
    stream: bool = False
    body_bytes: int = 0
    completion: Completion | None = None
    told_by: str = ""
    pool: str = ""

    def describe(self, request: InferenceRequest) -> None:
        """Keep what a request says of itself, and no more candidates than `MOST_CANDIDATES` and no longer names than
        `MOST_CHARACTERS`."""
        self.prompt_tokens = request.prompt_tokens
        self.max_output_tokens = request.max_output_tokens
        self.priority = request.priority
        self.stream = request.stream
        self.body_bytes = request.body_bytes
        decision = self.decision
        if decision.candidates > MOST_CANDIDATES:
            self.decision = decision = _fewer(decision)
        # Of the sum, as names are short: one comparison for most requests.
        if len(decision.request_id) + len(decision.model) + len(decision.target_model) > MOST_CHARACTERS:
            self.decision = _shorter(decision)

    def as_dict(self, now_s: float, wall_s: float, full: bool = False) -> dict[str, Any]:
        """The record at `now_s` of the clock, which is `wall_s` in Unix time; `full` with every candidate kept."""
        decision = self.decision
        fields: dict[str, Any] = {
            "version": VERSION,
            "number": self.number,
            "request_id": decision.request_id,
            "unix_s": round(wall_s - (now_s - decision.at_s), 3),
            "age_s": _rounded(now_s - decision.at_s),
            "model": decision.model,
            "target_model": decision.target_model,
            "endpoint": decision.target.id,
            "address": decision.target.address,
            "why": decision.explain(),
            "request": {
                "priority": self.priority,
                "stream": self.stream,
                "body_bytes": self.body_bytes,
                "prompt_tokens": self.prompt_tokens,
                "max_output_tokens": self.max_output_tokens,
            },
            "candidates": decision.candidates,
            "primary": decision.primary,
            "profiles": [_profile(result, decision.known, full) for result in decision.results.values()],
            "charged": self._charged(),
            "timing": {
                "before_scheduling_s": _rounded(self.answered_s - self.scheduling_s - self.received_s),
                "scheduling_s": _rounded(self.scheduling_s),
            },
            "outcome": self.outcome(now_s),
        }
        if self.pool:
            fields["pool"] = self.pool
        return fields

    def outcome(self, now_s: float = math.nan) -> dict[str, Any]:
        """How the request ended, or that at `now_s` it has not."""
        completion = self.completion
        if completion is None:
            return {"state": "in flight", "duration_s": _rounded(now_s - self.received_s)}
        usage, first_byte_s = completion.usage, completion.first_byte_s
        return {
            "state": "ended",
            "cause": completion.cause.value,
            "status": completion.status,
            "reached_endpoint": completion.reached_endpoint,
            "duration_s": _rounded(completion.duration_s),
            "first_byte_s": None if first_byte_s is None else _rounded(first_byte_s),
            "response_bytes": completion.response_bytes,
            "usage": None if usage is None else msgspec.to_builtins(usage),
            "told_by": self.told_by,
        }

    def _charged(self) -> dict[str, Any]:
        charged: dict[str, Any] = {"requests": 1, "tokens": self.charged_tokens}
        known = self.decision.known
        if known is not None:
            position = _position(known, self.decision.target.row)
            charged["in_flight_requests_before"] = known.column("in_flight_requests").item(position)
            charged["in_flight_tokens_before"] = known.column("in_flight_tokens").item(position)
        return charged


def _profile(result: ProfileResult, known: Snapshot | None, full: bool) -> dict[str, Any]:
    fields = profile_fields(result)
    fields["scorers"] = [{"name": s.name, "weight": s.weight} for s in result.scores]
    if result.omitted:
        fields["omitted"] = result.omitted
    winner, second = result.picked[0], result.runner_up()
    first = [winner] if second is None else [winner, second]
    rest = [at for at in np.argsort(-result.total, kind="stable").tolist() if at not in first] if full else []
    standings = _standings(result, known, [*first, *rest])
    fields["picked"] = standings[0]
    if second is not None:
        fields["runner_up"] = standings[1]
    if full:
        fields["others"] = standings[len(first) :]
    return fields


def _standings(result: ProfileResult, known: Snapshot | None, positions: list[int]) -> list[dict[str, Any]]:
    """How the candidates at `positions` came out, and what was known of each when the choice was made. An age of None:
    never heard."""
    at = np.array(positions)
    totals = result.total.take(at).round(6).tolist()
    scores = [
        (s.name, s.weight, *[values.take(at).round(6).tolist() for values in (s.raw, s.clamped, s.weighted)])
        for s in result.scores
    ]
    signals = None if known is None else _signals(known.only(result.endpoints.rows.take(at)))
    standings = []
    for number, position in enumerate(positions):
        endpoint = result.endpoints[position]
        standings.append(
            {
                "endpoint": endpoint.id,
                "address": endpoint.address,
                "total": totals[number],
                "scores": {
                    name: {
                        "raw": raw[number],
                        "clamped": clamped[number],
                        "weight": weight,
                        "weighted": weighted[number],
                    }
                    for name, weight, raw, clamped, weighted in scores
                },
                "signals": signals[number] if signals is not None else None,
            }
        )
    return standings


def _signals(known: Snapshot) -> list[dict[str, Any]]:
    values = zip(*[known.column(name).round(6).tolist() for name in SHOWN], strict=True)
    ages = zip(*[known.age_s(signal).round(6).tolist() for signal in AGES.values()], strict=True)
    return [
        {
            **dict(zip(SHOWN, of_one, strict=True)),
            "age_s": {name: age if math.isfinite(age) else None for name, age in zip(AGES, old, strict=True)},
        }
        for of_one, old in zip(values, ages, strict=True)
    ]


def _position(known: Snapshot, row: int) -> int:
    return int(np.flatnonzero(known.endpoints.rows == row)[0])


def _rounded(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _shorter(decision: Decision) -> Decision:
    """The decision with names that are not too long."""
    return msgspec.structs.replace(
        decision,
        request_id=limited(decision.request_id),
        model=limited(decision.model),
        target_model=limited(decision.target_model),
    )


def _fewer(decision: Decision) -> Decision:
    """The decision with the best `MOST_CANDIDATES` of each profile, and what was known of those."""
    results = {
        name: result.only(result.best(MOST_CANDIDATES)) if len(result.total) > MOST_CANDIDATES else result
        for name, result in decision.results.items()
    }
    known = decision.known
    if known is not None:
        kept = [result.endpoints.rows for result in results.values()]
        known = known.only(kept[0] if len(kept) == 1 else np.unique(np.concatenate(kept)))
    return Decision(
        decision.request_id,
        decision.model,
        decision.target_model,
        decision.primary,
        results,
        decision.candidates,
        decision.at_s,
        known,
    )
