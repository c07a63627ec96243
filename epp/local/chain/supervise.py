# SPDX-License-Identifier: Apache-2.0
"""Parts that run until they are told to stop: one that ends is started again, later each time.

Invariants: while `start` waits, an end is an error (what is wrong then is the configuration, not bad luck); after it,
no end is. An end is told once, with the part's last complaint, and not again before the part has answered in between.
After `stop` nothing runs. Layers end in order, the highest first: who sends requests goes before who answers them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epp.contract.errors import StartError
from epp.local.decisions import complaint
from epp.local.process import Child, OnLine, spawn
from epp.local.stack import PartEnded

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
STEADY_S = 30.0
"""After so long a life the next pause is the shortest again."""

Spawn = Callable[..., Awaitable[Child]]


@dataclass(frozen=True, slots=True)
class Part:
    """One process. `ready` returns when it answers. `note` says what its restart costs. `env` None: ours.
    `prepare` is done before its first start, while other parts start already."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], Coroutine[Any, Any, None]]
    layer: int = 0
    on_line: OnLine | None = None
    note: str = ""
    env: Mapping[str, str] | None = None
    prepare: Callable[[], Coroutine[Any, Any, None]] | None = None


class Supervisor:
    """Make it on the loop that runs the parts. `say` gets one line at a time."""

    def __init__(
        self,
        parts: Sequence[Part],
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
        start_one: Spawn = spawn,
    ) -> None:
        self._parts = tuple(parts)
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._spawn = start_one
        self._children: dict[str, Child] = {}
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def pids(self) -> Mapping[str, int]:
        """The process id of each part, of its present or last life."""
        return {name: child.pid for name, child in self._children.items()}

    async def start(self, on_ready: Callable[[Part], None]) -> None:
        """Start all at once; returns when all answer. Raises `PartEnded` for the first that ends before."""
        for part in self._parts:
            if part.prepare is None:
                self._children[part.name] = await self._begin(part)
        waits = [asyncio.ensure_future(self._first_life(part, on_ready)) for part in self._parts]
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    def keep(self) -> None:
        """From now on start again what ends."""
        self._keepers = [asyncio.ensure_future(self._keep(part)) for part in self._parts]

    async def stop(self, grace_s: float) -> None:
        """End all and start none again; layer after layer, the parts of one together."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        try:
            for layer in sorted({part.layer for part in self._parts}, reverse=True):
                names = [part.name for part in self._parts if part.layer == layer]
                ending = (self._children[name].stop(grace_s) for name in names if name in self._children)
                await asyncio.gather(*ending)
        finally:
            # Only reached with somebody alive when this was cancelled: then there is no time for manners.
            self.kill()

    def kill(self) -> None:
        """End all now."""
        for child in self._children.values():
            child.kill()

    def _begin(self, part: Part) -> Awaitable[Child]:
        return self._spawn(part.name, part.argv, part.on_line, env=part.env)

    async def _first_life(self, part: Part, on_ready: Callable[[Part], None]) -> None:
        if part.prepare is not None:
            await part.prepare()
            self._children[part.name] = await self._begin(part)
        child = self._children[part.name]
        if not await _answers_or_ends(part, child):
            raise PartEnded(child)
        on_ready(part)

    async def _keep(self, part: Part) -> None:
        pause_s, told, came_s = FIRST_PAUSE_S, False, self._clock()
        while True:
            child = self._children[part.name]
            await asyncio.wait([child.ended])
            ended_s = self._clock()
            if ended_s - came_s >= STEADY_S:
                pause_s = FIRST_PAUSE_S
            if not told:
                self._say(
                    f"{child.describe_end()}{_complaint(child)}: starting it again{part.note and f'; {part.note}'}"
                )
            told = True
            await self._sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            came_s = self._clock()
            try:
                self._children[part.name] = await self._begin(part)
            except StartError as error:
                self._say(str(error))
                continue
            if await _answers_or_ends(part, self._children[part.name]):
                self._say(f"{part.name} is back after {self._clock() - ended_s:.1f} s")
                told = False


def _complaint(child: Child) -> str:
    """What it complained of last, if it did: a part that is killed has no words for that."""
    told = [words for line in child.tail if (words := complaint(line))]
    return f" ({told[-1]})" if told else ""


async def _answers_or_ends(part: Part, child: Child) -> bool:
    """True when the part answers, false when it has ended before."""
    ready = asyncio.ensure_future(part.ready())
    try:
        await asyncio.wait([ready, child.ended], return_when=asyncio.FIRST_COMPLETED)
        if child.ended.done():
            return False
        await ready
        return True
    finally:
        ready.cancel()
