# SPDX-License-Identifier: Apache-2.0
"""Windows: where a fixed one begins, and a sliding one through the strategy of the library `limits`.

The library refuses, and does not book, a hit that would go over its limit; what a response cost must be booked all the
same. So its limit here is out of reach, and the count is what it says is missing from that.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence

from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from epp.ratelimit.ledger.contract import Standing
from epp.ratelimit.ledger.storage import MemoryStorage

OUT_OF_REACH = 1 << 53
"""The largest count; what Redis' Lua still adds exactly."""


def window_of(now: float, period_s: int) -> tuple[int, int]:
    """The fixed window of Unix time `now`: its start, and how many seconds are left of it (1 to `period_s`)."""
    second = math.floor(now)
    start = second - second % period_s
    return start, start + period_s - second


@functools.lru_cache(maxsize=64)
def _item(period_s: int) -> RateLimitItemPerSecond:
    return RateLimitItemPerSecond(OUT_OF_REACH, period_s, namespace="")


class Sliding:
    """Sliding windows over a storage of the library."""

    def __init__(self, storage: Storage) -> None:
        self._strategy = SlidingWindowCounterRateLimiter(storage)

    def name(self, key: str, period_s: int) -> str:
        """What the strategy calls `key` when it asks the storage."""
        return _item(period_s).key_for(key)

    async def hit(self, key: str, period_s: int, amount: int) -> None:
        """Book `amount`."""
        await self._strategy.hit(_item(period_s), key, cost=amount)

    async def standing(self, key: str, period_s: int) -> Standing:
        """The weighted count, rounded down, and when it is lower by itself."""
        stats = await self._strategy.get_window_stats(_item(period_s), key)
        # The library adds the wall clock to the time that is left; microseconds passed since.
        left = math.ceil(stats.reset_time - time.time() - 1e-6)
        return Standing(OUT_OF_REACH - stats.remaining, min(max(left, 0), 2 * period_s))


class _Answer(MemoryStorage):
    """A storage that says what another one said."""

    def __init__(self) -> None:
        super().__init__(time.time, 0)
        self.window = (0, 0.0, 0, 0.0)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """What `Told` was told."""
        return self.window


class Told:
    """Standings from what the library's script for sliding windows returns."""

    def __init__(self) -> None:
        self._answer = _Answer()
        self._sliding = Sliding(self._answer)

    async def standing(self, answer: Sequence[bytes | int], period_s: int) -> Standing:
        """From count and milliseconds left of the window before, and of the current one."""
        before, before_left, count, left = map(int, answer)
        self._answer.window = (before, max(0, before_left) / 1000, count, max(0, left) / 1000)
        return await self._sliding.standing("", period_s)
