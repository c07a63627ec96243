# SPDX-License-Identifier: Apache-2.0
"""Time that passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq


class VirtualTime:
    """`sleep` and `clock` for what is tested; `run` lets time pass."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now_s + seconds, self._count, woken))
        await woken

    async def run(self, seconds: float) -> None:
        """Everything that happens within so many seconds from now."""
        until_s = self.now_s + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= until_s:
            self.now_s, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        self.now_s = until_s

    async def settle(self) -> None:
        """Everything that can happen without time passing."""
        for _ in range(30):
            await asyncio.sleep(0)
