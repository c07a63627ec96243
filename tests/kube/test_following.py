# SPDX-License-Identifier: Apache-2.0
"""The reflector against the stand-in API server: outages, forgotten history, rights and kinds that come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from epp.kube.access import find_access
from epp.kube.api import Api
from epp.kube.errors import ApiError, Forbidden, Missing, Unreachable
from epp.kube.objects import Pod
from epp.kube.reflector import Reflector
from epp.kube.resource import PODS, POOLS, Resource
from tests.apiserver.server import ApiServer

NAMESPACE = "kserve-test"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(namespace=NAMESPACE, bookmark_s=0.2) as started:
        yield started


class Following:
    def __init__(self) -> None:
        self.store: Mapping[str, Pod] | None = None
        self.least = 1 << 30
        self.changes = 0
        self.told: list[ApiError | None] = []

    def changed(self, store: Mapping[str, Pod]) -> None:
        self.store = store
        self.least = min(self.least, len(store))
        self.changes += 1

    @property
    def names(self) -> list[str] | None:
        return None if self.store is None else sorted(key.partition("/")[2] for key in self.store)


@asynccontextmanager
async def following(server: ApiServer, resource: Resource = PODS, **more: Any) -> AsyncIterator[Following]:
    """A reflector that waits a twentieth of what it should."""
    access = find_access(server.environ, service_account=server.service_account)
    assert access is not None
    api, seen = Api(access), Following()
    reflector = Reflector(
        api, resource, NAMESPACE, Pod, seen.changed, told=seen.told.append, rng=random.Random(3),
        sleep=lambda seconds: asyncio.sleep(seconds / 20), **more,
    )  # fmt: skip
    task = asyncio.create_task(reflector.run())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await api.close()


def pod(name: str, phase: str = "Running") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "llm"}},
        "status": {"phase": phase},
    }


async def until(true: Callable[[], object], patience_s: float = 15.0) -> None:
    async with asyncio.timeout(patience_s):
        while not true():  # noqa: ASYNC110, what is waited for happens in another thread
            await asyncio.sleep(0.005)


def test_on_the_loop_of_the_product(server: ApiServer) -> None:
    async def follow() -> None:
        server.apply(pod("a"))
        async with following(server) as seen:
            await until(lambda: seen.names == ["a"])
            server.apply(pod("b"))
            await until(lambda: seen.names == ["a", "b"])

    uvloop.run(follow())


async def test_outage_and_forgotten_history(server: ApiServer) -> None:
    server.apply([pod("a"), pod("b")])
    async with following(server, label_selector="app=llm") as seen:
        await until(lambda: seen.names == ["a", "b"])
        await until(lambda: seen.told == [None])
        server.away()
        await until(lambda: any(isinstance(error, Unreachable) for error in seen.told))
        assert seen.names == ["a", "b"]
        server.apply(pod("c"))
        server.delete("pods", NAMESPACE, "a")
        server.compact()
        server.back()
        await until(lambda: seen.names == ["b", "c"])
        await until(lambda: seen.told[-1] is None)
        assert seen.least == 2
        server.apply(pod("d"))
        await until(lambda: seen.names == ["b", "c", "d"])


async def test_watches_that_are_dropped_and_tokens_that_rotate(server: ApiServer) -> None:
    async with following(server) as seen:
        await until(lambda: seen.names == [])
        for turn, torn in enumerate([False, True, False, True]):
            await until(lambda: server.watching == 1)
            server.rotate_token()
            server.drop_watches(torn=torn)
            server.apply(pod(f"p{turn}"))
            await until(lambda turn=turn: seen.names == [f"p{number}" for number in range(turn + 1)])
        assert len(server.asked("list", "pods", code=200)) == 1


async def test_rights_that_come_later(server: ApiServer) -> None:
    server.apply(pod("a"))
    server.rules.deny("watch", "pods")
    async with following(server) as seen:
        await until(lambda: seen.names == ["a"])
        await until(lambda: len(seen.told) > 2)
        assert {type(error) for error in seen.told} == {Forbidden}
        server.apply(pod("b"))
        await until(lambda: seen.names == ["a", "b"])
        server.rules.reset()
        await until(lambda: seen.told[-1] is None)


async def test_kinds_that_come_later(server: ApiServer) -> None:
    server.rules.uninstall(POOLS.group)
    async with following(server, POOLS) as seen:
        await until(lambda: seen.told and isinstance(seen.told[-1], Missing))
        assert seen.names is None
        server.rules.install(POOLS.group)
        await until(lambda: seen.names == [])
        await until(lambda: seen.told[-1] is None)


async def test_a_thousand_heartbeats_are_no_change(server: ApiServer) -> None:
    names = [f"p{number}" for number in range(100)]
    server.apply([pod(name) for name in names])
    async with following(server) as seen:
        await until(lambda: seen.names == sorted(names))
        changes = seen.changes
        for turn in range(10):
            for name in names:
                server.patch("pods", NAMESPACE, name, {"metadata": {"generation": turn}})
        server.apply(pod("p0", "Failed"))
        await until(lambda: seen.store is not None and seen.store[f"{NAMESPACE}/p0"].status.phase == "Failed")
        assert seen.changes == changes + 1


async def test_malformed_objects_are_left_out_until_they_are_mended(server: ApiServer) -> None:
    told: list[tuple[str, str | None]] = []
    server.apply([pod("a"), pod("b") | {"status": {"phase": 3}}])
    async with following(server, malformed=lambda key, line: told.append((key, line))) as seen:
        await until(lambda: seen.names == ["a"])
        server.apply(pod("b"))
        await until(lambda: seen.names == ["a", "b"])
        assert told == [(f"{NAMESPACE}/b", "Expected `str`, got `int` - at `$.status.phase`"), (f"{NAMESPACE}/b", None)]
