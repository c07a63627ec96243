# SPDX-License-Identifier: Apache-2.0
"""How often endpoints are asked: at the full pace while requests are being routed, slowly while nobody needs to know.

An endpoint is asked at the full pace while requests arrive here, for `QUIET_S` to twice that after the last one, and
as long as it has work itself. Without an idle interval the pace is always full.

The request that ends idleness does not wait: it is routed on what is known, which is at most one idle interval old,
and it sets off a round of all endpoints, whose answers the requests after it see. Requests that had been sent from
here would have kept the pace full, so what that first request may miss is the work of others alone.
"""

from __future__ import annotations

from collections.abc import Callable

from epp.signals.poll.timers import Timer, Timers

QUIET_S = 5.0


class Pace:
    """Full or slow.

    * interval_s: between two polls of an endpoint at the full pace; idle_interval_s: when idle, 0 for never slower
    * woken: called, on a turn of the loop of its own, when the first request has arrived after idleness
    """

    def __init__(self, interval_s: float, idle_interval_s: float, woken: Callable[[], None]) -> None:
        self.awake = True
        self._full_s = interval_s
        self._slow_s = max(interval_s, idle_interval_s)
        self._woken = woken
        self._needed = False
        self._timers: Timers | None = None
        self._timer: Timer | None = None

    def start(self, timers: Timers) -> None:
        """Begin, at the full pace."""
        self._timers = timers
        if self._slow_s > self._full_s:
            self._watch()

    def stop(self) -> None:
        """End."""
        self._timers = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def arrived(self) -> None:
        """A request is here. On the request's way: one write, and when idle one timer."""
        self._needed = True
        if not self.awake and self._timers is not None:
            self.awake = True
            self._timer = self._timers.call_at(self._timers.time(), self._wake)

    def interval_s(self, busy: bool) -> float:
        """Seconds until an endpoint is to be asked again; `busy` when it has work."""
        return self._full_s if busy or self.awake else self._slow_s

    def _wake(self) -> None:
        self._watch()
        self._woken()

    def _watch(self) -> None:
        if self._timers is not None:
            self._needed = False
            self._timer = self._timers.call_at(self._timers.time() + QUIET_S, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._needed:
            self._watch()
        else:
            self.awake = False
