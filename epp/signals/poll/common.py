# SPDX-License-Identifier: Apache-2.0
"""What the scrapers of one event loop have in common: the share of the loop that all of them may take, and buffers.

A process with one pool has one scraper, and this is its own. With many pools every one has a scraper, and they draw on
the same credit and wait in the same queue: the share holds for all of them together, whoever uses it, and an idle pool
keeps nothing from a busy one.

Credit and costs are seconds of the loop's thread: `share` seconds are earned each second, up to `BURST_S`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from epp.signals.poll.buffers import BufferPool
from epp.signals.poll.timers import Timer, Timers

BURST_S = 0.002
"""The most work that is begun at once."""
FIRST_COST_S = 0.0002
"""What a poll is taken to cost until one has been measured: one page of 80 KB."""
_PAUSE_S = 0.002
_WINDOW_POLLS = 16

Go = Callable[[], None]


class Member(Protocol):
    """Who asks for turns."""

    def price_s(self, connects: bool) -> float:
        """What a poll is taken to cost; `connects`: it will probably make a connection."""
        ...

    def round_cost_s(self) -> float:
        """What it costs to read everything once."""
        ...

    def give(self, go: Go) -> None:
        """It is the turn of `go`."""
        ...


class Common:
    """`share`: of the loop, above 0 and at most 1."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.buffers = BufferPool()
        self.cost_s = FIRST_COST_S
        """What a poll costs, over the last few of all members: what a new one is taken to cost."""
        self.busy_s = 0.0
        self.stretch_told = False
        """Whether it was said that intervals have become longer."""
        self._members: dict[Member, None] = {}
        self._timers: Timers | None = None
        self._timer: Timer | None = None
        self._queue: deque[tuple[Member, Go, bool]] = deque()
        self._credit_s = BURST_S
        self._earned_until_s = 0.0
        self._window_polls = 0
        self._window_began_s = 0.0

    def join(self, member: Member, timers: Timers) -> None:
        """From now on `member` may ask."""
        if not self._members:
            self._timers = timers
            self._earned_until_s = timers.time()
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """`member` gets no turn any more."""
        if member not in self._members:
            return
        del self._members[member]
        self._queue = deque([entry for entry in self._queue if entry[0] is not member])
        if not self._members:
            self._timers = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def ask(self, member: Member, go: Go, connects: bool) -> None:
        """Give `member` the turn of `go` once, now or when there is credit."""
        if member not in self._members:
            return
        if not self._queue:
            self._earn()
            if self._credit_s > 0:
                self._give(member, go, connects)
                return
        self._queue.append((member, go, connects))
        if self._timer is None:
            self._arm()

    def page_read(self) -> None:
        """A poll has brought a page."""
        self._window_polls += 1
        if self._window_polls >= _WINDOW_POLLS:
            self.cost_s = (self.busy_s - self._window_began_s) / self._window_polls
            self._window_began_s, self._window_polls = self.busy_s, 0

    def round_s(self) -> float:
        """The shortest time in which everything can be read once. May be called from another thread."""
        return sum([member.round_cost_s() for member in list(self._members)]) / self.share

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

    def _give(self, member: Member, go: Go, connects: bool) -> None:
        self._credit_s -= member.price_s(connects)
        member.give(go)
