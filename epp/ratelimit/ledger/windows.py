# SPDX-License-Identifier: Apache-2.0
"""Windows: where a fixed one begins, and a sliding one through the strategy of the library `limits`.

The library refuses, and does not book, a hit that would go over its limit; what a response cost must be booked all the
same. So its limit here is out of reach, and the count is what it says is missing from that.
"""

from __future__ import annotations

import functools
import math
import time

from limits import RateLimitItemPerSecond
from limits.aio.storage import Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from epp.ratelimit.ledger.contract import Standing

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
    """Sliding windows over a storage of the library. Keys are made by the storage alone."""

    def __init__(self, storage: Storage) -> None:
        self._strategy = SlidingWindowCounterRateLimiter(storage)

    async def hit(self, key: str, period_s: int, amount: int) -> None:
        """Book `amount`."""
        await self._strategy.hit(_item(period_s), key, cost=amount)

    async def standing(self, key: str, period_s: int) -> Standing:
        """The weighted count, rounded down, and when it is lower by itself."""
        stats = await self._strategy.get_window_stats(_item(period_s), key)
        # The library adds the wall clock to the time that is left; microseconds passed since.
        left = math.ceil(stats.reset_time - time.time() - 1e-6)
        return Standing(OUT_OF_REACH - stats.remaining, min(max(left, 0), 2 * period_s))
