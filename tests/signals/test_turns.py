# SPDX-License-Identifier: Apache-2.0
"""Reading takes its share of the loop and no more, in virtual time with costs as the test says."""

from __future__ import annotations

import itertools
import logging
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.signals.poll.common import BURST_S, FIRST_COST_S, Common
from epp.signals.poll.turns import CONNECT_COST_S, Turns
from tests.signals.test_scraper import VirtualTime, World


class Bench:
    """Turns whose polls each cost `cost_s`, all of it inside `go`."""

    def __init__(self, share: float, cost_s: float) -> None:
        self.time = VirtualTime()
        self.cost_s = cost_s
        self.spent_s = 0.0
        self.measured = 0
        self.went_s: list[float] = []
        self.turns = Turns(Common(share), self._measured, lambda: self.spent_s)
        self.turns.start(self.time)

    def _measured(self) -> None:
        self.measured += 1

    def go(self) -> None:
        self.spent_s += self.cost_s
        self.went_s.append(self.time.now_s)
        self.turns.page_read()

    def ask(self, times: int, connects: bool = False) -> None:
        for _ in range(times):
            self.turns.ask(self.go, connects)


def test_a_poll_within_the_share_goes_at_once() -> None:
    bench = Bench(0.5, FIRST_COST_S)
    for number in range(1000):
        bench.ask(1)
        assert len(bench.went_s) == number + 1
        bench.time.run(0.001)


@pytest.mark.parametrize(("share", "cost_s"), [(0.5, 0.0002), (0.5, 0.001), (0.1, 0.00005), (1.0, 0.0004)])
def test_what_comes_together_is_spread(share: float, cost_s: float) -> None:
    bench = Bench(share, cost_s)
    # The cost is learned on the way.
    bench.ask(800)
    bench.time.run(60.0)
    assert bench.turns.cost_s == pytest.approx(cost_s, rel=0.05)
    before, began_s = len(bench.went_s), bench.time.now_s
    bench.ask(1000)
    bench.time.run(60.0)
    went_s = bench.went_s[before:]
    assert len(went_s) == 1000
    # One cost more than the credit may be begun, and no more than what was earned since.
    for number, when_s in enumerate(went_s):
        assert number * cost_s <= BURST_S + 1.05 * ((when_s - began_s) * share + cost_s)
    assert went_s[-1] - began_s == pytest.approx(1000 * cost_s / share, rel=0.1)


def test_a_pause_of_the_loop_is_not_made_up_for() -> None:
    bench = Bench(0.5, FIRST_COST_S)
    bench.ask(500)
    bench.time.now_s += 10.0
    before = len(bench.went_s)
    bench.time.run(0.0)
    assert len(bench.went_s) - before <= BURST_S / FIRST_COST_S + 1


def test_time_that_others_took_does_not_count() -> None:
    bench = Bench(0.5, 0.0001)
    for number in range(2000):
        # Every third poll is interrupted for ten times as long as it takes.
        bench.cost_s = 0.001 if number % 48 < 16 else 0.0001
        bench.ask(1)
        bench.time.run(0.01)
    assert bench.turns.cost_s == pytest.approx(0.0001)


def test_a_cost_that_grows_is_seen() -> None:
    bench = Bench(0.5, 0.0001)
    for cost_s in (0.0001, 0.0008):
        bench.cost_s = cost_s
        for _ in range(500):
            bench.ask(1)
            bench.time.run(0.01)
        assert bench.turns.cost_s == pytest.approx(cost_s)


def test_connecting_counts_for_more() -> None:
    plain, connecting = Bench(0.5, FIRST_COST_S), Bench(0.5, FIRST_COST_S)
    plain.ask(500)
    connecting.ask(500, connects=True)
    for bench in (plain, connecting):
        bench.time.run(0.1)
    assert len(connecting.went_s) == pytest.approx(len(plain.went_s) * FIRST_COST_S / CONNECT_COST_S, rel=0.15)


def test_nobody_goes_after_the_end() -> None:
    bench = Bench(0.5, 0.001)
    bench.ask(100)
    went = len(bench.went_s)
    bench.turns.stop()
    bench.ask(1)
    bench.time.run(10.0)
    assert len(bench.went_s) == went < 100


@given(
    st.lists(st.tuples(st.floats(0.0, 0.1), st.integers(0, 60), st.booleans()), max_size=30),
    st.sampled_from([0.05, 0.5, 1.0]),
    st.sampled_from([1e-5, 2e-4, 3e-3]),
)
def test_everybody_goes_once_in_the_order_of_asking(
    steps: list[tuple[float, int, bool]], share: float, cost_s: float
) -> None:
    bench = Bench(share, cost_s)
    order: list[int] = []
    numbers = itertools.count()
    for pause_s, asking, connects in steps:
        for _ in range(asking):
            bench.turns.ask(partial(order.append, next(numbers)), connects)
        bench.time.run(pause_s)
    bench.time.run(3600.0)
    assert order == list(range(next(numbers)))


def test_a_pool_too_large_for_its_interval_is_read_evenly_less_often(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "epp.signals")
    world = World(interval_s=0.05, loop_share=0.5)
    world.start()
    world.add(*(f"e{number}" for number in range(400)))
    for reader in (*world.readers.values(),):
        reader.cost_s = 0.0005
    world.time.run(20.0)
    # 400 pages of 0.5 ms each are 0.2 s of work, 0.4 s at half of the loop.
    assert world.scraper.interval_s == pytest.approx(0.4, rel=0.05)
    for reader in world.readers.values():
        late = [later - earlier for earlier, later in itertools.pairwise(reader.polled_s) if later > 110.0]
        assert sum(late) / len(late) == pytest.approx(0.4, rel=0.1)
        assert max(late) <= 0.5
    (line,) = caplog.messages
    assert "400 endpoints are read every" in line
    assert "--metrics-max-loop-share allows more" in line


def test_a_pool_that_fits_is_not_stretched(caplog: pytest.LogCaptureFixture) -> None:
    world = World(interval_s=0.05, loop_share=0.5)
    world.start()
    world.add(*(f"e{number}" for number in range(40)))
    for reader in (*world.readers.values(),):
        reader.cost_s = 0.0005
    world.time.run(20.0)
    assert world.scraper.interval_s == 0.05
    assert caplog.messages == []
