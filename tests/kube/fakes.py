# SPDX-License-Identifier: Apache-2.0
"""A server of a few lines in memory, and a reflector on it in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from epp.kube.api import Api
from epp.kube.errors import ApiError, Gone
from epp.kube.objects import Meta, Pod, PodStatus
from epp.kube.reflector import Reflector
from epp.kube.resource import PODS
from epp.kube.watch import Event
from tests.kube.virtual import VirtualTime


def pod(name: str, version: int, phase: str = "") -> Pod:
    return Pod(Meta(name=name, namespace="x", resource_version=str(version)), PodStatus(phase=phase))


class FakeApi:
    """A kind of pods in memory. Errors put into `list_errors` and `watch_errors` are raised in that order."""

    def __init__(self) -> None:
        self.version = 1
        self.pods: dict[str, Pod] = {}
        self.unreadable: dict[str, str] = {}
        self.log: list[Event[Pod]] = []
        self.oldest = 0
        self.list_errors: list[Exception] = []
        self.watch_errors: list[Exception] = []
        self.breaks: list[Exception | None] = []
        self.lists = 0
        self.watches: list[str] = []
        self.more = asyncio.Event()

    def put(self, name: str, phase: str = "") -> None:
        self.version += 1
        kind = "MODIFIED" if f"x/{name}" in self.pods else "ADDED"
        self.pods[f"x/{name}"] = pod(name, self.version, phase)
        self._happened(cast(Any, kind), self.pods[f"x/{name}"])

    def delete(self, name: str) -> None:
        if self.pods.pop(f"x/{name}", None) is not None:
            self.version += 1
            self._happened("DELETED", pod(name, self.version))

    def _happened(self, kind: Any, item: Pod) -> None:
        self.log.append(Event(kind, item, str(self.version), f"x/{item.metadata.name}"))
        self.more.set()

    def bookmark(self) -> None:
        self.log.append(Event("BOOKMARK", None, str(self.version)))
        self.more.set()

    def compact(self) -> None:
        """Forgets all that happened."""
        self.oldest = self.version
        self.end(Gone("410"))

    def end(self, error: Exception | None) -> None:
        """Ends the watch."""
        self.breaks.append(error)
        self.more.set()

    async def list(self, *args: Any, malformed: Callable[[str, str], None], **more: Any) -> tuple[list[Pod], str]:
        await asyncio.sleep(0)
        self.lists += 1
        if self.list_errors:
            raise self.list_errors.pop(0)
        for key, why in self.unreadable.items():
            malformed(key, why)
        return [item for key, item in self.pods.items() if key not in self.unreadable], str(self.version)

    async def watch(
        self, *args: Any, resource_version: str, malformed: Callable[[str, str], None], **more: Any
    ) -> AsyncGenerator[Event[Pod], None]:
        await asyncio.sleep(0)
        self.watches.append(resource_version)
        if self.watch_errors:
            raise self.watch_errors.pop(0)
        at = int(resource_version)
        if at < self.oldest:
            raise Gone("410")
        self.breaks.clear()
        yield Event("BOOKMARK", None, resource_version)
        seen = next((index for index, event in enumerate(self.log) if int(event.resource_version) > at), len(self.log))
        while True:
            while seen < len(self.log):
                seen += 1
                yield self.log[seen - 1]
            if self.breaks:
                error = self.breaks.pop(0)
                if error is not None:
                    raise error
                return
            self.more.clear()
            await self.more.wait()


class Run:
    """A reflector on a fake server, in virtual time."""

    def __init__(self, **more: Any) -> None:
        self.api = FakeApi()
        self.time = VirtualTime()
        self.seen: list[tuple[float, Mapping[str, Pod]]] = []
        self.told: list[ApiError | None] = []
        self.told_malformed: list[tuple[str, str | None]] = []
        self.reflector = Reflector(
            cast(Api, self.api),
            PODS,
            "x",
            Pod,
            lambda store: self.seen.append((self.time.now_s, store)),
            told=self.told.append,
            rng=random.Random(7),
            sleep=self.time.sleep,
            clock=self.time.clock,
            malformed=lambda key, line: self.told_malformed.append((key, line)),
            **more,
        )

    @property
    def names(self) -> list[str]:
        return sorted(self.seen[-1][1])


@asynccontextmanager
async def running(*names: str, **more: Any) -> AsyncGenerator[Run, None]:
    run = Run(**more)
    for name in names:
        run.api.put(name)
    task = asyncio.create_task(run.reflector.run())
    try:
        yield run
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
