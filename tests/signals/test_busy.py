# SPDX-License-Identifier: Apache-2.0
"""Requests in execution from cumulative times: exact for steady load, and honest about what it cannot know."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.signals.engine.busy import WINDOW_S, BusyTime
from epp.signals.engine.names import TRITON
from epp.testing import FakeClock


class Triton:
    """A page whose counters grow as told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.total_us = self.queued_us = 0
        self._busy = BusyTime(TRITON, self.clock)

    def poll(self) -> float | None:
        page = (
            f'nv_inference_request_duration_us{{model="a",version="1"}} {self.total_us}\n'
            f'nv_inference_queue_duration_us{{model="a",version="1"}} {self.queued_us}\n'
        ).encode()
        return self._busy.read(page, 0, len(page))

    def run(self, seconds: float, executing: float, queueing: float = 0.0, step_s: float = 0.05) -> float | None:
        """Requests take turns so that on average `executing` execute and `queueing` wait; the last value read."""
        value = None
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            self.total_us += round((executing + queueing) * step_s * 1e6)
            self.queued_us += round(queueing * step_s * 1e6)
            value = self.poll()
        return value


@pytest.mark.parametrize(("executing", "queueing"), [(0.0, 0.0), (1.0, 0.0), (4.0, 20.0), (0.25, 0.0)])
def test_steady_load_is_read_exactly(executing: float, queueing: float) -> None:
    assert Triton().run(30.0, executing, queueing) == pytest.approx(executing)


def test_nothing_is_said_in_the_first_second() -> None:
    triton = Triton()
    assert triton.poll() is None
    assert triton.run(0.9, 4.0) is None
    assert triton.run(0.2, 4.0) == pytest.approx(4.0)


def test_a_change_is_there_after_the_window() -> None:
    triton = Triton()
    triton.run(30.0, 2.0)
    half = triton.run(WINDOW_S / 2, 6.0)
    assert half is not None
    assert 2.0 < half < 6.0
    assert triton.run(WINDOW_S, 6.0) == pytest.approx(6.0)
    assert triton.run(WINDOW_S + 1.0, 0.0) == 0.0


def test_long_requests_come_out_as_their_mean() -> None:
    # One request of 4 s at a time: nothing for 4 s, then all at once.
    triton = Triton()
    seen = []
    for _ in range(10):
        triton.run(4.0, 0.0)
        triton.total_us += 4_000_000
        seen.append(triton.poll())
    assert all(value is not None and 0.6 <= value <= 1.4 for value in seen[3:]), seen


def test_a_server_that_was_started_anew_is_no_negative_number() -> None:
    triton = Triton()
    triton.run(30.0, 2.0)
    triton.total_us = triton.queued_us = 0
    assert triton.poll() is None
    assert triton.run(5.0, 3.0) == pytest.approx(3.0)


def test_polls_far_apart_are_enough() -> None:
    triton = Triton()
    assert triton.run(120.0, 2.0, step_s=60.0) == pytest.approx(2.0)


def test_a_server_without_the_counters_says_nothing() -> None:
    busy = BusyTime(TRITON, FakeClock())
    assert busy.read(b"nv_inference_pending_request_count 3\n", 0, 37) is None


@given(st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 100.0), st.booleans()), min_size=1, max_size=40))
def test_never_negative_and_never_more_than_there_was(steps: list[tuple[float, float, bool]]) -> None:
    triton, most = Triton(), 0.0
    for seconds, executing, anew in steps:
        if anew:
            triton.total_us = 0
        triton.clock.advance(seconds)
        triton.total_us += int(executing * seconds * 1e6)
        most = max(most, executing)
        value = triton.poll()
        assert value is None or 0.0 <= value <= most + 1e-3
