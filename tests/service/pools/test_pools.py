# SPDX-License-Identifier: Apache-2.0
"""The directory of pools: what sources say, in any order, and faults that stay where they are."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from epp.accesslog import Ended
from epp.config.catalog import collect
from epp.config.configuration import Configuration
from epp.config.load import load_text
from epp.contract.discovery import EndpointSpec
from epp.contract.models import Models
from epp.contract.requests import Cause
from epp.endpoints.pool import Pool
from epp.observe.decision.ring import DecisionRing
from epp.observe.degraded import Degraded
from epp.observe.log.logs import open_log
from epp.service.flags.parsing import parse
from epp.service.pools import pools as pools_module
from epp.service.pools.choosing import Claim
from epp.service.pools.configs import Given
from epp.service.pools.folder import File
from epp.service.pools.identity import PoolId
from epp.service.pools.logs import SharedLog
from epp.service.pools.place import Wanted
from epp.service.pools.pools import Pools
from epp.service.served import Among, ServedPool
from epp.signals.poll.common import Common

A, B, C = PoolId("x", "a"), PoolId("x", "b"), PoolId("y", "a")
GOOD = (
    "plugins: [{type: random-picker}]\nschedulingProfiles: [{name: default, plugins: [{pluginRef: random-picker}]}]\n"
)
BAD = "plugins: [{type: nonsense}]"


class Sink:
    def write(self, data: bytes | bytearray) -> None:
        """Nobody reads it."""


class Call:
    def __init__(self, authority: str) -> None:
        self.authority = authority
        self.values: dict[str, str] = {}


class World:
    """Pools that build the real thing, without scraping or a network."""

    def __init__(self, names: tuple[str, ...] = ("*",), namespace: str = "*") -> None:
        self.degraded = Degraded()
        self.catalog = collect()
        self.lines = open_log(Sink())
        self.changes = 0
        self.fail_build: set[PoolId] = set()
        self.naps: asyncio.Queue[float] = asyncio.Queue()
        self.gone: list[PoolId] = []
        self.retired: list[ServedPool] = []
        self.common, self.numbers = Common(0.5), itertools.count(1)
        self.pools = Pools(
            names, namespace, self.build, self.read, tell=self.degraded.tell,
            about=lambda pool: self.degraded.about(str(pool)), changed=self.changed, sleep=self.nap,
            removed=self.gone.append, retired=self.retired.append, ports=range(9010, 9020),
        )  # fmt: skip
        self.open_door = asyncio.Event()

    def build(self, pool: PoolId, configuration: Configuration) -> ServedPool:
        if pool in self.fail_build:
            raise RuntimeError("no luck")
        among = Among(str(pool), configuration, self.common, DecisionRing(10, 1 << 16, self.numbers))
        return ServedPool(parse([], {}), self.lines, lambda: 0.0, random.Random(1), self.catalog, among)

    async def read(self, given: Given) -> Configuration:
        return load_text(given.text, self.catalog, source=given.source)

    def changed(self) -> None:
        self.changes += 1

    async def nap(self, seconds: float) -> None:
        await self.open_door.wait()
        await asyncio.sleep(0)

    def put(self, pool: PoolId, annotation: str = "", port: int = 9002) -> None:
        self.pools.put(Wanted(Claim(pool, f"{pool.name}-epp", port), annotation))

    def wrong(self) -> str:
        return "\n".join(self.degraded.lines())

    def found(self, authority: str) -> Any:
        return self.pools.chooser.on_port(9002)(Call(authority))


async def settled(world: World) -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[Pools]:
    task = asyncio.create_task(world.pools.run())
    try:
        yield world.pools
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.pools.stop()
        world.lines.close()


def endpoint(name: str, ip: str = "127.0.0.1", port: int = 1) -> EndpointSpec:
    return EndpointSpec("x", name, ip, port)


async def test_pools_are_known_when_their_endpoints_are() -> None:
    world = World()
    async with running(world) as pools:
        world.put(A)
        world.put(B)
        pools.endpoints(A, [endpoint("one")])  # before it is built
        pools.models(A, Models(priorities={"m": 1}))
        pools.listed()
        await settled(world)
        assert not pools.known
        assert pools.pickable
        [(_, served), _] = pools.served()
        assert len(served.pool) == 1
        assert served.director.models.priorities == {"m": 1}
        pools.endpoints(B, ())
        assert pools.known
        world.put(C)
        await settled(world)
        assert pools.known  # a new pool makes nobody unready
        assert world.found("a-epp.x.svc:9002") is not None
        assert world.found("a-epp.y.svc:9002") is not None
        assert world.found("a-epp") is None


async def test_only_pools_that_are_asked_for() -> None:
    world = World(("a", "gone"), "x")
    async with running(world) as pools:
        for pool in (A, B, C):
            world.put(pool)
        pools.listed()
        await settled(world)
        assert [str(pool) for pool, _ in pools] == ["x/a"]
        assert "pools-missing: no pool gone in namespace x" in world.wrong()


async def test_a_bad_configuration_costs_its_pool_only() -> None:
    world = World()
    async with running(world) as pools:
        world.put(A, BAD)
        world.put(B, GOOD)
        await settled(world)
        assert "x/a/configuration: " in world.wrong()
        assert "the built-in one is used" in world.wrong()
        by_id = dict(pools.served())
        assert by_id[A].assembly.configuration.source == "built-in configuration"
        assert B.name in by_id[B].assembly.configuration.source
        world.put(A, GOOD)
        await settled(world)
        assert world.wrong() == ""
        assert "annotation" in by_id[A].assembly.configuration.source
        world.put(A, BAD)
        await settled(world)
        assert "its last good one is kept" in world.wrong()
        assert "annotation" in by_id[A].assembly.configuration.source


async def test_a_pool_that_cannot_be_built_is_no_pool_and_others_are() -> None:
    world = World()
    world.fail_build = {A}
    async with running(world) as pools:
        world.put(A)
        world.put(B)
        await settled(world)
        assert [pool for pool, _ in pools.served()] == [B]
        assert world.found("a-epp.x") is None
        assert world.found("b-epp.x") is not None
        pools.endpoints(B, ())
        pools.listed()
        assert pools.known


async def test_files_of_configurations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with running(world) as pools:
        pools.files({"x.a": File(tmp_path / "x.a.yaml", GOOD), "z": File(tmp_path / "z.yaml", GOOD)})
        world.put(A)
        world.put(B)
        pools.listed()
        await settled(world)
        by_id = dict(pools.served())
        assert by_id[A].assembly.configuration.source.endswith("x.a.yaml")
        assert by_id[B].assembly.configuration.source == "built-in configuration"
        pools.use_otherwise(Given(GOOD, "flag"))
        pools.files({})
        await settled(world)
        assert {served.assembly.configuration.source for _, served in pools.served()} == {"flag"}
    assert sum("no pool uses z.yaml" in record.getMessage() for record in caplog.records) == 1


async def test_ports_that_pools_ask_for() -> None:
    world = World()
    async with running(world) as pools:
        world.put(A, port=9011)
        world.put(B, port=9500)
        assert pools.ports() == {9011}


async def test_a_removed_pool_is_found_no_more_and_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools_module, "RETIRE_LEAST_S", 0.0)
    world = World()
    async with running(world) as pools:
        world.put(A)
        world.put(B)
        pools.endpoints(A, [endpoint("one")])
        await settled(world)
        [(_, served), _] = pools.served()
        lease = served.pool.charge(next(iter(served.pool)), 1.0)
        pools.remove(A)
        assert world.gone == [A]
        assert world.found("a-epp.x") is None
        world.open_door.set()
        await settled(world)
        assert len(served.pool) == 1  # what is on its way still finds its endpoints
        assert world.retired == []
        lease.release()
        await settled(world)
        assert world.retired == [served]
        assert len(served.pool) == 0
        pools.remove(A)
        pools.endpoints(A, [endpoint("late")])


async def test_what_a_pool_held_is_given_back_without_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools_module, "RETIRE_LEAST_S", 0.0)
    world = World()
    world.open_door.set()
    gc.disable()
    try:
        async with running(world) as pools:
            world.put(A)
            pools.endpoints(A, [endpoint("one")])
            await settled(world)
            [(_, served)] = pools.served()
            trackers = [getattr(made, "tracker", None) for made in served.assembly.objects.values()]
            held = [weakref.ref(tracker.index) for tracker in trackers if tracker is not None]
            held.append(weakref.ref(served.director))
            assert len(held) == 2
            del served, trackers
            pools.remove(A)
            await settled(world)
            assert len(world.retired) == 1
            assert [reference() for reference in held] == [None, None]
    finally:
        gc.enable()


class Holder:
    """Stands for a pool's unwatched requests."""

    def __init__(self, *ids: str) -> None:
        self.ids = list(ids)
        self.asked = 0
        self.streams = -1

    def __len__(self) -> int:
        return len(self.ids)

    def ended(self, end: Ended) -> bool:
        self.asked += 1
        return end.request_id in self.ids

    def log_streams(self, count: int) -> None:
        self.streams = count


def end(request_id: str, address: str) -> Ended:
    return Ended(request_id, address, Cause.COMPLETE, True, False, 200, 1.0, 0.5, 10)


def test_an_entry_of_the_access_log_is_looked_up_in_one_pool() -> None:
    shared = SharedLog()
    shared.log_streams(2)
    holders = [Holder(f"id-{at}") for at in range(200)]
    holders[7].ids.clear()
    for at, holder in enumerate(holders):
        hook = shared.add(holder)  # type: ignore[arg-type]
        if at < 2:
            pool = Pool(lambda: 0.0)
            pool.subscribe(hook)
            pool.apply([endpoint("one", ip=f"127.0.0.{at + 1}", port=80)])
    assert {holder.streams for holder in holders} == {2}
    assert shared.ended(end("id-1", "127.0.0.2:80"))
    assert not shared.ended(end("id-0", "127.0.0.2:80"))  # of another pool's endpoint: not that one
    assert sum(holder.asked for holder in holders) == holders[1].asked == 2
    assert shared.ended(end("id-150", ""))
    assert shared.ended(end("id-3", "10.0.0.1:80"))
    assert holders[7].asked == 0
    shared.remove(holders[3])  # type: ignore[arg-type]
    assert not shared.ended(end("id-3", ""))
