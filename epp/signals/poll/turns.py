# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to be asked, so that reading pages never takes more than a share of the event loop.

A poll that comes due goes at once while the share has credit, and otherwise waits in one queue. So the reading of a
pool that is too large for its interval stretches evenly over all endpoints, and many polls that come due together, at
the start or after a pause of the loop, go a few at a time.

What a poll costs is measured, not assumed. Where others use the processor too, some of what is measured is their time;
so the cost is the mean over a few polls in the quietest of the last such groups.

Credit and costs are seconds of the loop's thread: `share` seconds are earned each second, up to `BURST_S`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from epp.contract.endpoints import Clock
from epp.signals.poll.timers import Timer, Timers

BURST_S = 0.002
"""The most work that is begun at once."""
FIRST_COST_S = 0.0002
"""What a poll is taken to cost until it has been measured: one page of 80 KB."""
CONNECT_COST_S = 0.0005
"""What a poll is taken to cost that has to make a connection; that part cannot be measured."""
_PAUSE_S = 0.002
_WINDOW_POLLS = 16
_WINDOWS = 16
_LEAST_COST_S = 1e-6

Go = Callable[[], None]


class Turns:
    """One loop's turns.

    * share: of the loop, above 0 and at most 1
    * measured: called now and then, when `cost_s` has been measured anew
    * seconds: a clock for costs, which may be another than that of the timers
    """

    def __init__(self, share: float, measured: Callable[[], None], seconds: Clock = time.perf_counter) -> None:
        self.share = share
        self._measured = measured
        self.cost_s = FIRST_COST_S
        self.busy_s = 0.0
        self.measured_polls = 0
        self._seconds = seconds
        self._timers: Timers | None = None
        self._timer: Timer | None = None
        self._queue: deque[tuple[Go, bool]] = deque()
        self._credit_s = BURST_S
        self._earned_until_s = 0.0
        self._window_polls = 0
        self._window_began_s = 0.0
        self._means_s: deque[float] = deque(maxlen=_WINDOWS)

    def start(self, timers: Timers) -> None:
        """From now on polls may ask."""
        self._timers = timers
        self._earned_until_s = timers.time()

    def stop(self) -> None:
        """Nobody gets a turn any more."""
        self._timers = None
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ask(self, go: Go, connects: bool) -> None:
        """Call `go` once, now or when it is its turn. `connects`: the poll will probably make a connection."""
        if self._timers is None:
            return
        if not self._queue:
            self._earn()
            if self._credit_s > 0:
                self._give(go, connects)
                return
        self._queue.append((go, connects))
        if self._timer is None:
            self._arm()

    def seconds(self) -> float:
        """The clock for costs."""
        return self._seconds()

    def spent(self, seconds: float) -> None:
        """Reading took `seconds` of the loop."""
        self.busy_s += seconds

    def page_read(self) -> None:
        """A poll has brought a page."""
        self._window_polls += 1
        if self._window_polls >= _WINDOW_POLLS:
            self._measure()

    def round_s(self, endpoints: int) -> float:
        """The shortest time in which `endpoints` can be read once."""
        return endpoints * self.cost_s / self.share

    def _serve(self) -> None:
        self._timer = None
        self._earn()
        while self._queue and self._credit_s > 0:
            self._give(*self._queue.popleft())
        if self._queue:
            self._arm()

    def _arm(self) -> None:
        if self._timers is not None:
            # A pause is worth several turns, so that not every one of them needs a timer.
            pause_s = max(_PAUSE_S, -self._credit_s / self.share)
            self._timer = self._timers.call_at(self._earned_until_s + pause_s, self._serve)

    def _earn(self) -> None:
        if self._timers is not None:
            now_s = self._timers.time()
            self._credit_s = min(BURST_S, self._credit_s + (now_s - self._earned_until_s) * self.share)
            self._earned_until_s = now_s

    def _give(self, go: Go, connects: bool) -> None:
        self._credit_s -= max(self.cost_s, CONNECT_COST_S) if connects else self.cost_s
        began_s = self._seconds()
        go()
        self.busy_s += self._seconds() - began_s

    def _measure(self) -> None:
        self._means_s.append((self.busy_s - self._window_began_s) / self._window_polls)
        self.cost_s = max(_LEAST_COST_S, min(self._means_s))
        self.measured_polls += self._window_polls
        self._window_began_s = self.busy_s
        self._window_polls = 0
        self._measured()
