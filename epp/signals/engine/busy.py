# SPDX-License-Identifier: Apache-2.0
"""How many requests an engine is executing, for engines that do not say and only add up how long requests took.

By Little's law the mean number of requests in execution over a time is the time they spent executing in it, divided by
it. Of two counters, both microseconds summed over the requests that ended, `total` from arrival to the end and
`queued` of it before execution began:

    running = ((total - queued) now - (total - queued) before) / 1e6 / (now - before)

over the last ten seconds. It is a mean, late by the length of a request, because a request is counted when it ends;
a shorter window would jump between nothing and many with every long request that ends.
"""

from __future__ import annotations

from collections import deque

from epp.contract.endpoints import Clock
from epp.signals.engine.family import Page
from epp.signals.engine.names import EngineMetrics
from epp.signals.engine.sources import Number

WINDOW_S = 10.0
_STEP_S = 0.5
_LEAST_S = 1.0
_US_PER_S = 1e6


class BusyTime:
    """Mean requests in execution of one endpoint over the last `WINDOW_S`."""

    __slots__ = ("_clock", "_points", "_queued", "_total")

    def __init__(self, engine: EngineMetrics, clock: Clock) -> None:
        self._total = Number(engine, engine.total_us, sum)
        self._queued = Number(engine, engine.queued_us, sum)
        self._clock = clock
        self._points: deque[tuple[float, float]] = deque()

    def read(self, page: Page, start: int, end: int) -> float | None:
        """None when the page does not say, and in the first second."""
        total_us = self._total.read(page, start, end)
        if total_us is None:
            return None
        busy_s = (total_us - (self._queued.read(page, start, end) or 0.0)) / _US_PER_S
        now_s, points = self._clock(), self._points
        if points and busy_s < points[-1][1]:
            points.clear()  # started anew
        while len(points) > 1 and now_s - points[1][0] >= WINDOW_S:
            points.popleft()
        if not points or now_s - points[-1][0] >= _STEP_S:
            points.append((now_s, busy_s))
        began_s, before_s = points[0]
        span_s = now_s - began_s
        return (busy_s - before_s) / span_s if span_s >= _LEAST_S else None
