# SPDX-License-Identifier: Apache-2.0
"""Counters in memory: against a plain model, against the library's own storage, and at their bounds."""

from __future__ import annotations

import asyncio
import logging
import math
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from limits.aio.storage import MemoryStorage as LibraryStorage

from epp.ratelimit.ledger import Charge, OnFailure, Window, open_ledger
from epp.ratelimit.ledger.memory import MemoryLedger
from epp.ratelimit.ledger.storage import Full, MemoryStorage
from epp.ratelimit.ledger.windows import Sliding, window_of
from tests.ratelimit.support import Clock, Readings

PERIODS = (1, 60, 3600)


class FixedWindows(RuleBasedStateMachine):
    """A dictionary of windows says what every counter must be."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(7_777.0)
        self.ledger = open_ledger(None, clock=self.clock)
        self.model: dict[tuple[str, int, int], int] = {}

    @rule(seconds=st.floats(0, 90) | st.sampled_from([0.5, 1, 60, 3600, 7200]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(
        charges=st.lists(
            st.builds(Charge, st.sampled_from("abc"), st.sampled_from(PERIODS), st.integers(0, 50), st.booleans()),
            max_size=6,
        )
    )
    def book(self, charges: list[Charge]) -> None:
        now = math.floor(self.clock.now)
        standings = asyncio.run(_book(self.ledger, charges, self.clock.now))
        for charge, standing in zip(charges, standings, strict=True):
            start = now // charge.period_s * charge.period_s
            # The ledger's keys name the unit; here one name may have several lengths.
            at = (charge.key, charge.period_s, start)
            amount = -charge.amount if charge.refund else charge.amount
            self.model[at] = max(0, self.model.get(at, 0) + amount)
            assert standing is not None
            assert standing.count == self.model[at]
            assert standing.reset_s == start + charge.period_s - now

    @invariant()
    def counters_are_bounded_by_what_lives(self) -> None:
        counters = self.ledger.state().counters
        assert counters is not None
        assert counters <= len(self.model)


async def _book(ledger: object, charges: list[Charge], now: float) -> list[object]:
    # Keys carry the period, as those of the engine do.
    named = [Charge(f"{one.period_s}:{one.key}", one.period_s, one.amount, one.refund) for one in charges]
    assert isinstance(ledger, MemoryLedger)
    return list(await ledger.book(named, now))


TestFixedWindows = FixedWindows.TestCase


@given(
    steps=st.lists(st.tuples(st.floats(0, 200), st.integers(0, 500), st.sampled_from("ab")), min_size=1, max_size=40),
    period_s=st.sampled_from([1, 60, 3600]),
)
def test_sliding_windows_are_the_librarys(steps: list[tuple[float, int, str]], period_s: int) -> None:
    """The same hits on the library's own storage, under the same clock: the same windows, the same standings."""

    async def both() -> None:
        clock = Clock(1_000_000.0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("limits.aio.storage.memory.time.time", clock)
            ours = MemoryStorage(clock, 1000)
            theirs = LibraryStorage()
            sliding, reference = Sliding(ours), Sliding(theirs)
            for seconds, amount, key in steps:
                clock.now += seconds
                if amount:
                    await sliding.hit(key, period_s, amount)
                    await reference.hit(key, period_s, amount)
                our_window, their_window = (
                    await ours.get_sliding_window(key, period_s),
                    await theirs.get_sliding_window(key, period_s),
                )
                assert our_window == pytest.approx(their_window, abs=1e-6)
            await asyncio.sleep(0)

    asyncio.run(both())


async def test_a_sliding_window_forgets_bit_by_bit() -> None:
    clock = Clock(3600.0 * 500)
    ledger = open_ledger(None, window=Window.SLIDING, clock=clock)
    [standing] = await ledger.book([Charge("k", 3600, 1000)], clock.now)
    assert standing
    assert standing.count == 1000
    counts = []
    for _ in range(9):
        clock.now += 900
        [standing] = await ledger.book([Charge("k", 3600, 0)], clock.now)
        assert standing
        assert 0 <= standing.reset_s <= 7200
        counts.append(standing.count)
    assert counts == [1000, 1000, 1000, 1000, 750, 500, 250, 0, 0]


async def test_a_charge_over_a_sliding_limit_is_booked_all_the_same() -> None:
    clock = Clock()
    ledger = open_ledger(None, window=Window.SLIDING, clock=clock)
    charges = [Charge("k", 60, 1 << 40), Charge("k", 60, 1 << 40), Charge("k", 60, 5, refund=True)]
    standings = await ledger.book(charges, clock.now)
    assert [standing and standing.count for standing in standings] == [1 << 40, 1 << 41, (1 << 41) - 5]


@pytest.mark.parametrize("window", Window)
async def test_when_full_what_exists_stays_exact(window: Window, caplog: pytest.LogCaptureFixture) -> None:
    clock, meter = Clock(999_960.0), Readings()
    ledger = open_ledger(None, window=window, clock=clock, meter=meter, most_counters=3, on_failure=OnFailure.DENY)
    with caplog.at_level(logging.WARNING):
        standings = await ledger.book([Charge(key, 60, 5) for key in "abcde"], clock.now)
        assert [standing and standing.count for standing in standings] == [5, 5, 5, None, None]
        again = await ledger.book([Charge("a", 60, 5), Charge("d", 60, 0)], clock.now)
    assert [standing and standing.count for standing in again] == [10, 0]
    assert ledger.state().counters == 3
    assert meter.of("epp_ratelimit_uncounted", "full") == 10
    assert [record.message for record in caplog.records] == [
        "rate limits: 3 counters are in use, new ones are not counted (answer: deny) until windows end"
    ]
    clock.now += 121
    [standing] = await ledger.book([Charge("d", 60, 7)], clock.now)
    assert standing
    assert standing.count == 7


async def test_old_counters_go_as_new_ones_come() -> None:
    clock = Clock(0.0)
    ledger = open_ledger(None, clock=clock)
    most = 0
    for second in range(300):
        clock.now = float(second)
        await ledger.book([Charge(f"{second}-{index}", 1, 1) for index in range(20)], clock.now)
        counters = ledger.state().counters
        assert counters is not None
        most = max(most, counters)
    assert most <= 60


async def test_a_clock_that_goes_back_does_not_open_a_window_again() -> None:
    clock = Clock(3600.0)
    ledger = open_ledger(None, clock=clock)
    await ledger.book([Charge("k", 3600, 5)], 3600.0)
    [standing] = await ledger.book([Charge("k", 3600, 1)], 3599.0)
    assert standing
    assert (standing.count, standing.reset_s) == (6, 3600)


@pytest.mark.parametrize(
    ("now", "period_s", "start", "left"),
    [(1234.0, 1, 1234, 1), (1234.9, 60, 1200, 26), (1_000_000, 3600, 997_200, 800), (1_000_000, 86400, 950_400, 36800)],
)
def test_windows_begin_where_those_of_go_do(now: float, period_s: int, start: int, left: int) -> None:
    assert window_of(now, period_s) == (start, left)


async def test_the_storage_keeps_the_librarys_interface() -> None:
    clock = Clock(100.5)
    storage = MemoryStorage(clock, 2)
    assert (await storage.incr("a", 10, 3), await storage.incr("a", 99), await storage.get("a")) == (3, 4, 4)
    assert (await storage.get_expiry("a"), await storage.get_expiry("b")) == (110, 100.5)
    assert (await storage.decr("a", 100), await storage.decr("b", 1)) == (0, 0)
    await storage.incr("b", 10)
    with pytest.raises(Full):
        await storage.incr("c", 10)
    clock.now = 110.0
    assert await storage.get("a") == 0
    assert await storage.incr("a", 10, 7) == 7
    clock.now = 111.0
    assert (await storage.incr("c", 10), await storage.get("a")) == (1, 7)
    await storage.clear("a")
    assert (await storage.get("a"), await storage.check()) == (0, True)
    assert await storage.reset() == 2
    assert len(storage) == 0
    assert await storage.acquire_sliding_window_entry("s", 5, 60, 5)
    assert not await storage.acquire_sliding_window_entry("s", 5, 60, 1)
    await storage.clear_sliding_window("s", 60)
    assert (await storage.get_sliding_window("s", 60))[2] == 0


async def test_what_a_counter_weighs() -> None:
    clock = Clock()
    ledger = open_ledger(None, clock=clock)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for index in range(10_000):
            await ledger.book(
                [Charge(f"hour:ns/gateway/http:route=r;rule-0-match-0=user-{index:06}", 3600, 1)], clock.now
            )
        weight = (tracemalloc.get_traced_memory()[0] - before) / 10_000
    finally:
        tracemalloc.stop()
    assert weight < 500
