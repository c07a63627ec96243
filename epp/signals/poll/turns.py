# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to be asked, so that reading pages never takes more than a share of the event loop.

A poll that comes due goes at once while the share has credit, and otherwise waits in one queue (`common`). So the
reading of a pool that is too large for its interval stretches evenly over all endpoints, and many polls that come due
together, at the start or after a pause of the loop, go a few at a time.

What a poll costs is measured, not assumed. Where others use the processor too, some of what is measured is their time;
so the cost is the mean over a few polls in the quietest of the last such groups.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from epp.contract.endpoints import Clock
from epp.signals.poll.common import Common, Go
from epp.signals.poll.timers import Timers

CONNECT_COST_S = 0.0005
"""What a poll is taken to cost that has to make a connection; that part cannot be measured."""
_WINDOW_POLLS = 16
_WINDOWS = 16
_LEAST_COST_S = 1e-6


class Turns:
    """One scraper's turns.

    * common: the credit it draws on, possibly with others
    * measured: called now and then, when `cost_s` has been measured anew
    * seconds: a clock for costs, which may be another than that of the timers

    `endpoints` is to be set to how many are read.
    """

    def __init__(self, common: Common, measured: Callable[[], None], seconds: Clock = time.perf_counter) -> None:
        self.endpoints: Callable[[], int] = int
        self.busy_s = 0.0
        self.measured_polls = 0
        self._common = common
        self._measured = measured
        self._seconds = seconds
        self._window_polls = 0
        self._window_began_s = 0.0
        self._means_s: deque[float] = deque(maxlen=_WINDOWS)

    @property
    def cost_s(self) -> float:
        """What a poll costs here, as measured; what it costs elsewhere, until there is anything to go by."""
        return min(self._means_s) if self._means_s else self._common.cost_s

    def start(self, timers: Timers) -> None:
        """From now on polls may ask."""
        self._common.join(self, timers)

    def stop(self) -> None:
        """Nobody gets a turn any more."""
        self._common.leave(self)

    def ask(self, go: Go, connects: bool) -> None:
        """Call `go` once, now or when it is its turn. `connects`: the poll will probably make a connection."""
        self._common.ask(self, go, connects)

    def seconds(self) -> float:
        """The clock for costs."""
        return self._seconds()

    def spent(self, seconds: float) -> None:
        """Reading took `seconds` of the loop."""
        self.busy_s += seconds
        self._common.busy_s += seconds

    def page_read(self) -> None:
        """A poll has brought a page."""
        self._common.page_read()
        self._window_polls += 1
        if self._window_polls >= _WINDOW_POLLS:
            self._measure()

    def round_s(self) -> float:
        """The shortest time in which all endpoints, those of others who draw on the credit too, can be read once."""
        return self._common.round_s()

    def price_s(self, connects: bool) -> float:
        """What a poll is taken to cost."""
        return max(self.cost_s, CONNECT_COST_S) if connects else self.cost_s

    def round_cost_s(self) -> float:
        """What reading every endpoint once costs."""
        return self.endpoints() * self.cost_s

    def give(self, go: Go) -> None:
        """It is the turn of `go`."""
        began_s = self._seconds()
        go()
        self.spent(self._seconds() - began_s)

    def _measure(self) -> None:
        self._means_s.append(max(_LEAST_COST_S, (self.busy_s - self._window_began_s) / self._window_polls))
        self.measured_polls += self._window_polls
        self._window_began_s = self.busy_s
        self._window_polls = 0
        self._measured()
