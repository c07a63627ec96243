# SPDX-License-Identifier: Apache-2.0
"""Whatever comes in whatever order: the columns are the sum of what is held, and each end is told exactly once."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from epp.contract.requests import Cause
from epp.director.held import Held
from tests.director.unwatched_bench import Bench

ENDPOINTS = 3
IDS = st.sampled_from(["a", "b", "c"])


class UnwatchedMachine(RuleBasedStateMachine):
    """Holds, logs, samples, time, removals, logs that come and go, all mixed."""

    @initialize(most_held=st.sampled_from([4, 1000]))
    def start(self, most_held: int) -> None:
        self.bench = Bench(ENDPOINTS, most_held)
        self.present = ENDPOINTS
        self.held: list[Held] = []
        self.refused = 0

    @rule(name=IDS, endpoint=st.integers(0, ENDPOINTS - 1), most=st.sampled_from([None, 0, 5, 10_000]))
    def hold(self, name: str, endpoint: int, most: int | None) -> None:
        if endpoint < self.present:
            self.held.append(self.bench.hold(name, endpoint, max_output_tokens=most))

    @rule(name=IDS, endpoint=st.integers(0, ENDPOINTS - 1), cause=st.sampled_from([Cause.COMPLETE, Cause.ERROR]))
    def log(self, name: str, endpoint: int, cause: Cause) -> None:
        before = len(self.bench.done)
        known = self.bench.log(name, f"10.0.0.{endpoint}:8000", cause, reached=cause is Cause.COMPLETE)
        assert len(self.bench.done) - before == known

    @rule(endpoint=st.integers(0, ENDPOINTS - 1), waiting=st.integers(0, 2), running=st.integers(0, 2))
    def sample(self, endpoint: int, waiting: int, running: int) -> None:
        if endpoint < self.present:
            before = self.bench.in_flight()[endpoint]
            self.bench.sample(endpoint, waiting, running)
            after = self.bench.in_flight()[endpoint]
            assert after == before or after >= waiting + running, "never below what the endpoint has"

    @rule(count=st.integers(0, 2))
    def streams(self, count: int) -> None:
        self.bench.unwatched.log_streams(count)

    @rule(count=st.integers(0, ENDPOINTS))
    def members(self, count: int) -> None:
        self.bench.apply(count)
        self.present = count

    @rule(seconds=st.sampled_from([0.05, 0.4, 3.0, 12.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.bench.run(seconds)

    @invariant()
    def columns_are_the_sum_of_what_is_held(self) -> None:
        if not hasattr(self, "bench"):
            return
        unwatched = self.bench.unwatched
        assert sum(self.bench.in_flight()) == len(unwatched)
        for endpoint, count in zip(self.bench.pool, self.bench.in_flight(), strict=True):
            assert count == len(unwatched._table.on(endpoint.generation))
            assert self.bench.pool.columns.in_flight_tokens[endpoint.row] >= 0
        assert sum(unwatched.ends.values()) + len(unwatched) == len(self.held)

    @invariant()
    def every_end_is_told_once(self) -> None:
        if hasattr(self, "bench"):
            told = sum(map(len, self.bench.told.values()))
            assert told == len(self.bench.done) == len(self.held) - len(self.bench.unwatched)

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.unwatched.log_streams(0)
            self.bench.run(4000.0)
            assert len(self.bench.unwatched) == 0
            assert len(self.bench.done) == len(self.held)
            assert not any(self.bench.in_flight())
            assert not any(self.bench.tokens())
            assert not self.bench.timers


TestUnwatched = UnwatchedMachine.TestCase
TestUnwatched.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
