# SPDX-License-Identifier: Apache-2.0
"""Everything around `Unwatched` on a virtual clock: a real pool, a recorder that writes down what it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from epp.accesslog import Ended
from epp.contract.decision import Decision
from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Endpoint
from epp.contract.requests import Cause, Completion, InferenceRequest
from epp.contract.signals import Sample
from epp.director.held import Held
from epp.director.unwatched import MOST_HELD, Unwatched
from epp.endpoints.pool import Pool
from epp.observe.recorder import Recorder
from epp.scheduling.guard import Guarded
from epp.testing import FakeClock


class Bench:
    """`told` holds, for each request whose end was told, how; `done` what hooks were told."""

    def __init__(self, endpoints: int = 2, most_held: int = MOST_HELD) -> None:
        self.clock = FakeClock()
        self.pool = Pool(self.clock)
        self.apply(endpoints)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.told: dict[str, list[tuple[str, Completion]]] = {}
        self.done: list[str] = []
        self.unwatched = Unwatched(self.pool, cast(Recorder, self), self.clock, self.later, most_held)
        self.pool.subscribe(self.unwatched)
        self.hooks = [Guarded("hook", cast(Any, self), self.clock)]

    def apply(self, endpoints: int) -> None:
        self.pool.apply([EndpointSpec("default", f"pod-{n}", f"10.0.0.{n}", 8000) for n in range(endpoints)])

    def later(self, seconds: float, tell: Callable[[], None]) -> None:
        self.timers.append((self.clock() + seconds, tell))

    def run(self, seconds: float) -> None:
        """Let time pass, timers firing in order."""
        end_s = self.clock() + seconds
        while self.timers:
            due = min(self.timers, key=lambda timer: timer[0])
            if due[0] > end_s:
                break
            self.timers.remove(due)
            self.clock.now_s = max(self.clock.now_s, due[0])
            due[1]()
        self.clock.now_s = end_s

    def endpoint(self, number: int) -> Endpoint:
        return next(e for e in self.pool if e.name == f"pod-{number}")

    def hold(self, name: str, endpoint: int | Endpoint = 0, *, tokens: float = 100.0, **more: Any) -> Held:
        target = endpoint if isinstance(endpoint, Endpoint) else self.endpoint(endpoint)
        seen = {key: more.pop(key) for key in ("status", "first_byte_s") if key in more}
        streaming = more.pop("streaming", True)
        request = InferenceRequest(name, {}, target_model="m", received_s=self.clock(), prompts=(b"abcd",), **more)
        lease = self.pool.charge(target, tokens)
        held = Held(request, cast(Decision, None), lease, self.hooks, None, None, streaming=streaming, **seen)
        self.unwatched.hold(held)
        return held

    def log(self, name: str, endpoint: int | str = 0, cause: Cause = Cause.COMPLETE, **more: Any) -> bool:
        address = endpoint if isinstance(endpoint, str) else self.endpoint(endpoint).address
        fields: dict[str, Any] = {
            "reached": True, "unreachable": False, "status": 200, "duration_s": 1.5, "first_byte_s": 0.5,
            "response_bytes": 900, **more,
        }  # fmt: skip
        return self.unwatched.ended(Ended(name, address, cause, **fields))

    def sample(self, endpoint: int, waiting: float | None, running: float | None) -> None:
        target = self.endpoint(endpoint)
        sample = Sample(waiting=waiting, running=running)
        self.pool.record(target, sample)
        self.unwatched.sampled(target, sample)

    def in_flight(self) -> list[float]:
        return [self.pool.columns.in_flight_requests[e.row] for e in self.pool]

    def tokens(self) -> list[float]:
        return [self.pool.columns.in_flight_tokens[e.row] for e in self.pool]

    def source(self, name: str) -> str:
        """Who told the end of `name`, once."""
        [(source, _)] = self.told[name]
        return source

    # What a recorder and a hook are told.

    def finished(
        self, request: InferenceRequest, _series: object, completion: Completion, _streaming: bool, _record: object,
        told_by: str,
    ) -> None:  # fmt: skip
        self.told.setdefault(request.request_id, []).append((told_by, completion))

    def on_done(self, request: InferenceRequest, _decision: Decision, _completion: Completion) -> None:
        self.done.append(request.request_id)
