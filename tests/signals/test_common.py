# SPDX-License-Identifier: Apache-2.0
"""Many scrapers of one loop take the share of one, in virtual time."""

from __future__ import annotations

import pytest

from epp.signals.poll.common import BURST_S, FIRST_COST_S, Common
from epp.signals.poll.turns import Turns
from tests.signals.test_scraper import VirtualTime

SHARE = 0.25
COST_S = 0.0005


class Pools:
    """`count` scrapers whose polls each cost `COST_S`."""

    def __init__(self, count: int) -> None:
        self.time = VirtualTime()
        self.spent_s = 0.0
        self.went = [0] * count
        self.common = Common(SHARE)
        self.turns = [Turns(self.common, lambda: None, lambda: self.spent_s) for _ in range(count)]
        for turns in self.turns:
            turns.endpoints = lambda: 4
            turns.start(self.time)

    def ask(self, pool: int, times: int) -> None:
        for _ in range(times):
            self.turns[pool].ask(lambda: self._go(pool), False)

    def _go(self, pool: int) -> None:
        self.spent_s += COST_S
        self.went[pool] += 1
        self.turns[pool].page_read()


def test_all_together_take_the_share_of_one() -> None:
    pools = Pools(50)
    for _ in range(40):
        for pool in range(50):
            pools.ask(pool, 4)
        pools.time.run(0.05)
    # Sixteen polls are paid too cheaply, until the first cost has been measured.
    assert pools.spent_s <= 1.05 * (SHARE * 2.0 + BURST_S) + 16 * (COST_S - FIRST_COST_S)
    assert max(pools.went) - min(pools.went) <= 4
    assert pools.turns[0].round_s() == pytest.approx(50 * 4 * COST_S / SHARE, rel=0.2)


def test_an_idle_pool_keeps_nothing_from_a_busy_one() -> None:
    pools = Pools(50)
    pools.ask(7, 2000)
    pools.time.run(2.0)
    assert pools.spent_s == pytest.approx(SHARE * 2.0, rel=0.1)


def test_who_leaves_gets_no_turn_and_takes_none_away() -> None:
    pools = Pools(2)
    pools.ask(0, 100)
    pools.ask(1, 100)
    pools.turns[0].stop()
    pools.turns[0].stop()
    gone = pools.went[0]
    pools.ask(0, 1)
    pools.time.run(10.0)
    assert pools.went == [gone, 100]
    pools.turns[1].stop()
    pools.turns[0].start(pools.time)
    pools.ask(0, 1)
    pools.time.run(10.0)
    assert pools.went == [gone + 1, 100]
