# SPDX-License-Identifier: Apache-2.0
"""How long to wait before asking a server again that failed: longer each time, and never all clients at once."""

from __future__ import annotations

import random

FIRST_S = 0.5
MOST_S = 30.0
_SPREAD = 0.25
"""Each wait is longer or shorter by up to this part of it."""


class Backoff:
    """0.5 s, doubled with each failure up to 30 s, each a quarter more or less."""

    __slots__ = ("_rng", "_wait_s")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._wait_s = FIRST_S

    def next_s(self, retry_after_s: float = 0.0) -> float:
        """The wait after one more failure; at least as long as the server asked for."""
        wait_s = self._wait_s * self._rng.uniform(1 - _SPREAD, 1 + _SPREAD)
        self._wait_s = min(2 * self._wait_s, MOST_S)
        if retry_after_s:
            return max(wait_s, retry_after_s * self._rng.uniform(1, 1 + _SPREAD))
        return wait_s

    def reset(self) -> None:
        """It works again."""
        self._wait_s = FIRST_S
