# SPDX-License-Identifier: Apache-2.0
"""Time stamps of log lines in zap's encodings (`--zap-time-encoding`).

rfc3339      "2025-09-19T08:52:53Z"              the default
rfc3339nano  "2025-09-19T08:52:53.123456789Z"
iso8601      "2025-09-19T08:52:53.123Z"
epoch        seconds, millis: milliseconds, nano: nanoseconds since 1970, as numbers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from epp.contract.endpoints import Clock

Stamp = Callable[[], str | float]


def rfc3339(wall: Clock) -> Stamp:
    """Whole seconds; the text is made once a second, because most lines share it."""
    known = (-1, "")

    def stamp() -> str:
        nonlocal known
        second = int(wall())
        if second != known[0]:
            known = (second, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second)))
        return known[1]

    return stamp


def _fraction(digits: int) -> Callable[[Clock], Stamp]:
    def make(wall: Clock) -> Stamp:
        def stamp() -> str:
            now = wall()
            second = int(now)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            return f"{text}.{int((now - second) * 10**digits):0{digits}d}Z"

        return stamp

    return make


STAMPS: Mapping[str, Callable[[Clock], Stamp]] = {
    "rfc3339": rfc3339,
    "rfc3339nano": _fraction(9),
    "iso8601": _fraction(3),
    "epoch": lambda wall: wall,
    "millis": lambda wall: lambda: wall() * 1e3,
    # A float holds the time of today to a quarter of a microsecond; more digits would be invented.
    "nano": lambda wall: lambda: round(wall() * 1e6) * 1000,
}
