# SPDX-License-Identifier: Apache-2.0
"""A few lines a second, and how many were left out: said at the end of that second, whether or not more come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LINES_PER_S = 10
LOUD_PER_S = 50

Later = Callable[[float, Callable[[], None]], object]
"""Calls something in so many seconds."""


def on_loop(delay_s: float, call: Callable[[], None]) -> None:
    """`call` later, on the running loop."""
    asyncio.get_running_loop().call_later(delay_s, call)


class Few:
    """Says `LINES_PER_S` lines a second with `say`, and of loud ones `LOUD_PER_S` besides."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic, later: Later = on_loop
    ) -> None:
        self._say = say
        self._clock = clock
        self._later = later
        self._second = 0
        self._left = {False: LINES_PER_S, True: LOUD_PER_S}
        self._hidden = 0
        self._waiting = False

    def line(self, make: Callable[[], str], *, loud: bool = False) -> None:
        """One line, made only if it is said."""
        now_s = self._clock()
        if int(now_s) != self._second:
            self._tell()
            self._second, self._left = int(now_s), {False: LINES_PER_S, True: LOUD_PER_S}
        if self._left[loud]:
            self._left[loud] -= 1
            self._say(make())
            return
        self._hidden += 1
        if not self._waiting:
            self._waiting = True
            self._later(1.0 - now_s % 1.0, self._end_of_second)

    def _end_of_second(self) -> None:
        self._waiting = False
        self._tell()

    def _tell(self) -> None:
        if self._hidden:
            self._say(f"     (and {self._hidden} more)")
            self._hidden = 0
