# SPDX-License-Identifier: Apache-2.0
"""A watch on the event loop: the longest time it could not turn, since somebody last read the metrics page.

A timer ticks every `TICK_S`. Two numbers tell a loop that was busy from one that the system did not let run:

* busy: processor time that the loop's own thread took between two ticks. What waits, or is stopped, takes none. Ticks
  at or after which the thread was kept from the processor for `STARVED_S` do not count: what has piled up meanwhile
  is worked off in one turn, and says nothing of the loop.
* held: how much later than due a tick came, less the time the thread was ready and got no processor (Linux tells;
  elsewhere nothing is taken off). It also shows blocking calls and other threads that hold the interpreter, but
  counts the time that the process was stopped by a signal.

It costs some 20 us a tick, 0.4 % of a processor, and is there only when it was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator

from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.rows import FamilyCollector, Row

TICK_S = 0.005
STARVED_S = 0.02

BUSY = Family(
    "gauge",
    "Longest processor time of one turn of the event loop since this page was last read.",
    (Name("epp_loop_busy_seconds_max", ()),),
)
HELD = Family(
    "gauge",
    "Longest time the event loop could not turn since this page was last read.",
    (Name("epp_loop_held_seconds_max", ()),),
)


class LoopWatch(FamilyCollector):
    """Start it on the loop to watch. The clocks give seconds: monotonic, the calling thread's processor time, and its
    time spent waiting for a processor."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        thread_time: Callable[[], float] = time.thread_time,
        waited: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._thread_time = thread_time
        self._waited = waited or _SchedulerWait()
        self._last = (0.0, 0.0, 0.0)
        self._busy_s = self._held_s = self._waited_before_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._last = (self._clock(), self._thread_time(), self._waited())
        self._timer = self._loop.call_later(TICK_S, self.tick)

    def stop(self) -> None:
        """End the watch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def tick(self) -> None:
        """A tick is due `TICK_S` after the last one; book how it was late."""
        now = (self._clock(), self._thread_time(), self._waited())
        elapsed_s, busy_s, waited_s = (after - before for after, before in zip(now, self._last, strict=True))
        self._last = now
        if waited_s + self._waited_before_s < STARVED_S:
            self._busy_s = max(self._busy_s, busy_s)
        self._waited_before_s = waited_s
        self._held_s = max(self._held_s, elapsed_s - TICK_S - waited_s)
        if self._loop is not None:
            self._timer = self._loop.call_later(TICK_S, self.tick)

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Both gauges; reading begins them anew."""
        busy_s, self._busy_s = self._busy_s, 0.0
        held_s, self._held_s = self._held_s, 0.0
        yield BUSY, [({}, busy_s)]
        yield HELD, [({}, held_s)]


class _SchedulerWait:
    """Seconds that the thread which made this was ready to run and had no processor; 0 where nobody tells."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def __call__(self) -> float:
        if self._file is None:
            return 0.0
        try:
            return int(os.pread(self._file, 128, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):
            return 0.0
