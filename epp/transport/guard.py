# SPDX-License-Identifier: Apache-2.0
"""How many frames of a kind one connection may send.

A `Budget` is spent one frame at a time and costs one comparison; the clock is read only when it runs out. Between two
readings lie exactly `limit` frames, so a peer that stays under `limit` frames per second never runs out, and one that
is over it for a whole budget does.
"""

from __future__ import annotations

from epp.transport.call import Clock


class FloodError(Exception):
    """A peer sent more frames of no use than it may."""


class Budget:
    """`limit` frames per second, of what `what` names. Raises FloodError when that is exceeded."""

    __slots__ = ("_clock", "_left", "_limit", "_since_s", "_what")

    def __init__(self, limit: int, what: str, clock: Clock) -> None:
        self._limit = limit
        self._what = what
        self._clock = clock
        self._left = limit
        self._since_s = clock()

    def spend(self) -> None:
        """Count one frame."""
        self._left -= 1
        if self._left < 0:
            self._renew()

    def _renew(self) -> None:
        now = self._clock()
        if now - self._since_s < 1.0:
            raise FloodError(f"more than {self._limit} {self._what} within a second")
        self._since_s = now
        self._left = self._limit - 1


class Rate:
    """At most `limit` a second of what may simply be left out, such as lines in a log."""

    __slots__ = ("_clock", "_left", "_limit", "_since_s")

    def __init__(self, limit: int, clock: Clock) -> None:
        self._clock = clock
        self._limit = limit
        self._left = limit
        self._since_s = clock()

    def allowed(self) -> bool:
        """Count one; whether it is within the rate."""
        now_s = self._clock()
        if now_s - self._since_s >= 1.0:
            self._since_s = now_s
            self._left = self._limit
        self._left -= 1
        return self._left >= 0
