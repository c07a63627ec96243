# SPDX-License-Identifier: Apache-2.0
"""A memory storage for the strategies of the library `limits`.

The library's own one sweeps all counters in a task after each hit, which is quadratic, keeps a lock for each counter,
and reads the wall clock. This one has the same interface, and

* forgets by the clock it is given, a few counters with each new one: nothing ever walks over all of them
* holds at most `most` counters. When full, the counters that exist stay exact and a new one is refused: whoever can
  make up keys could otherwise push out the counters of others, or his own.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

import msgspec
from limits.aio.storage import SlidingWindowCounterSupport, Storage
from limits.storage.base import TimestampedSlidingWindow

SWEPT_A_TIME = 8


class Full(Exception):
    """There are as many counters as there may be."""


class _Counter(msgspec.Struct, gc=False):
    """Without the garbage collector, which would walk over a million of them."""

    count: int
    expires_s: int


class MemoryStorage(Storage, SlidingWindowCounterSupport, TimestampedSlidingWindow):
    """Counters by key. No method waits for anything."""

    STORAGE_SCHEME = ["async+epp-memory"]  # noqa: RUF012  # how the library wants it

    def __init__(self, clock: Callable[[], float], most: int) -> None:
        super().__init__(None, wrap_exceptions=False)
        self._clock = clock
        self._most = most
        self._counters: dict[str, _Counter] = {}
        # Expiries are whole seconds, so few are different; the heap has each once.
        self._expiring: dict[int, list[str]] = {}
        self._expiries: list[int] = []

    def __len__(self) -> int:
        return len(self._counters)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the library wraps, where it is asked to."""
        return Full

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Add `amount`, and return the count. A new counter expires `expiry` seconds after this full second. Raises
        `Full`."""
        counter = self._live(key)
        if counter:
            counter.count += amount
            return counter.count
        self._sweep()
        if len(self._counters) >= self._most:
            raise Full
        expires_s = math.floor(self._clock()) + math.ceil(expiry)
        self._counters[key] = _Counter(amount, expires_s)
        keys = self._expiring.get(expires_s)
        if keys is None:
            keys = self._expiring[expires_s] = []
            heapq.heappush(self._expiries, expires_s)
        keys.append(key)
        return amount

    async def decr(self, key: str, amount: int = 1) -> int:
        """Take off `amount`, down to 0, and return the count."""
        counter = self._live(key)
        if counter is None:
            return 0
        counter.count = max(0, counter.count - amount)
        return counter.count

    async def get(self, key: str) -> int:
        """The count, 0 where there is no counter."""
        counter = self._live(key)
        return counter.count if counter else 0

    async def get_expiry(self, key: str) -> float:
        """When the counter expires, now where there is none."""
        counter = self._live(key)
        return counter.expires_s if counter else self._clock()

    async def check(self) -> bool:
        """It is there."""
        return True

    async def reset(self) -> int | None:
        """Forget all counters; how many they were."""
        count = len(self._counters)
        self._counters.clear()
        self._expiring.clear()
        self._expiries.clear()
        return count

    async def clear(self, key: str) -> None:
        """Forget one counter."""
        counter = self._counters.get(key)
        if counter:
            counter.count = 0

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Add `amount` to the current window unless the weighted count would be above `limit`."""
        before, before_left, count, _ = await self.get_sliding_window(key, expiry)
        if math.floor(before * before_left / expiry + count) + amount > limit:
            return False
        await self.incr(self.sliding_window_keys(key, expiry, self._clock())[1], 2 * expiry, amount)
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds left of the window before, and of the current one, as the library defines them."""
        now = self._clock()
        before_key, key = self.sliding_window_keys(key, expiry, now)
        before, count = await self.get(before_key), await self.get(key)
        left = expiry - now % expiry
        return before, left if before else 0.0, count, left + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget both windows."""
        for one in self.sliding_window_keys(key, expiry, self._clock()):
            await self.clear(one)

    async def refund_sliding(self, key: str, expiry: int, amount: int) -> None:
        """Take off `amount` from the current window, down to 0."""
        await self.decr(self.sliding_window_keys(key, expiry, self._clock())[1], amount)

    def _live(self, key: str) -> _Counter | None:
        counter = self._counters.get(key)
        return counter if counter and counter.expires_s > self._clock() else None

    def _sweep(self) -> None:
        now, left = self._clock(), SWEPT_A_TIME
        while left and self._expiries and self._expiries[0] <= now:
            keys = self._expiring[self._expiries[0]]
            while left and keys:
                key = keys.pop()
                # One that expired may have been begun anew, under a later expiry.
                if self._live(key) is None:
                    self._counters.pop(key, None)
                left -= 1
            if not keys:
                del self._expiring[heapq.heappop(self._expiries)]
