# SPDX-License-Identifier: Apache-2.0
"""One decision's plugins are timed when asked for; the next one's are not, and faults are the plugins' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from epp.contract.endpoints import BoolArray, Endpoints, FloatArray, IntArray
from epp.contract.requests import InferenceRequest
from epp.plugins.handlers.single_profile import SingleProfileHandler
from epp.scheduling.guard import Guarded
from epp.scheduling.profile import Profile
from epp.scheduling.scheduler import Scheduler
from epp.testing import FakeClock, make_endpoints, make_request


class Slow:
    """Every method takes its time on the clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.fails = False

    def filter(self, request: InferenceRequest, endpoints: Endpoints) -> BoolArray:
        self.clock.advance(1.0)
        return np.ones(len(endpoints), dtype=np.bool_)

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        self.clock.advance(2.0)
        if self.fails:
            raise RuntimeError("broken")
        return np.arange(len(endpoints)) * 0.5

    def pick(self, request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> IntArray:
        self.clock.advance(4.0)
        return np.array([int(total.argmax())])


def test_the_plugins_of_one_decision_are_timed() -> None:
    clock = FakeClock()
    slow = Slow(clock)
    both: Guarded[Any] = Guarded("both", slow, clock)
    picker: Guarded[Any] = Guarded("picker", slow, clock)
    handler: Guarded[Any] = Guarded("handler", SingleProfileHandler(), clock)
    scheduler = Scheduler([Profile("default", [both], [(both, 1.0)], picker)], handler, clock)
    told: list[tuple[str, str, float]] = []

    def durations(point: str, name: str) -> Callable[[float], None]:
        return lambda seconds: told.append((point, name, seconds))

    scheduler.follow(durations)
    request, endpoints = make_request(), make_endpoints(2)
    plain = scheduler.schedule(request, endpoints)
    assert told == []
    scheduler.time_next()
    timed = scheduler.schedule(request, endpoints)
    assert told == [("Filter", "both", 1.0), ("Scorer", "both", 2.0), ("Picker", "picker", 4.0)]
    assert timed.result.total.tolist() == plain.result.total.tolist()
    assert timed.target is plain.target
    assert both.plugin is picker.plugin is slow
    scheduler.schedule(request, endpoints)
    assert len(told) == 3
    slow.fails = True
    scheduler.time_next()
    assert scheduler.schedule(request, endpoints).result.scores[0].error == "RuntimeError: broken"
    assert both.errors == 1
    assert told[4] == ("Scorer", "both", 2.0)
    assert both.plugin is slow
