# SPDX-License-Identifier: Apache-2.0
"""How long to wait before asking a server again that failed: longer each time, and never all clients at once."""

from __future__ import annotations

import random

FIRST_S = 0.5
MOST_S = 30.0
_SPREAD = 0.25
"""Each wait is longer or shorter by up to this part of it."""
_MOST_TIMES_ASKED = 4.0
"""A server that says how long to wait is there, and is asked again after this many times as long at the latest."""


class Backoff:
    """0.5 s, doubled with each failure up to 30 s, each a quarter more or less. What a server asks for bounds it."""

    __slots__ = ("_rng", "_wait_s")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._wait_s = FIRST_S

    def next_s(self, retry_after_s: float = 0.0) -> float:
        """The wait after one more failure; at least as long as the server asked for, and four times that at most."""
        wait_s = self._wait_s * self._rng.uniform(1 - _SPREAD, 1 + _SPREAD)
        self._wait_s = min(2 * self._wait_s, MOST_S)
        if retry_after_s:
            asked_s = retry_after_s * self._rng.uniform(1, 1 + _SPREAD)
            return max(asked_s, min(wait_s, _MOST_TIMES_ASKED * retry_after_s))
        return wait_s

    def reset(self) -> None:
        """It works again."""
        self._wait_s = FIRST_S
