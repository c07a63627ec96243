# SPDX-License-Identifier: Apache-2.0
"""Many pools in one process: the requests it costs, who is told of what, and faults that stay where they are."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from epp.discovery.kubernetes import podfeed
from epp.discovery.kubernetes.fleet import KubernetesFleet
from epp.discovery.kubernetes.poolspec import PoolSpec
from tests.apiserver.server import ApiServer
from tests.discovery.kubernetes.support import (
    GIE,
    NS,
    Recorder,
    client,
    custom,
    hurry,
    pod_body,
    pool_v1,
    pool_x,
    running,
    until,
)


@contextlib.asynccontextmanager
async def fleet(
    server: ApiServer, *, opened: Callable[[PoolSpec], Any] | None = None, **options: Any
) -> AsyncIterator[tuple[dict[str, Recorder], Recorder]]:
    """Recorders by pool, and one for all."""
    members: dict[str, Recorder] = {}
    common = Recorder()

    def remember(pool: PoolSpec) -> Any:
        recorder = members.setdefault(pool.key, Recorder())
        return recorder, recorder.tell

    async with client(server) as api:
        one = KubernetesFleet(
            api, NS, opened or remember, tell=common.tell, rng=random.Random(3), sleep=hurry, **options
        )
        async with running(one.run):
            yield members, common


async def test_pools_of_both_groups_each_with_its_pods_and_objects() -> None:
    with ApiServer() as server:
        server.apply(
            [
                pool_v1("a", selector={"app": "a"}),
                pool_x("a", selector={"app": "no"}),
                pool_x("b", selector={"app": "b"}),
            ]
        )
        server.apply([pod_body("pa", labels={"app": "a", "x": "y"}), pod_body("pb", labels={"app": "b"})])
        server.apply(custom("InferenceObjective", "gold", {"poolRef": {"name": "a"}, "priority": 5}))
        async with fleet(server) as (members, common):
            await until(lambda: len(members) == 2 and all(member.snapshots for member in members.values()))
            a, b = members[f"{NS}/a"], members[f"{NS}/b"]
            assert (a.names, b.names) == (["pa-rank-0"], ["pb"])
            await until(lambda: a.seen and dict(a.seen[-1].objectives) == {"gold": 5})
            assert not b.seen
            server.patch("pods", NS, "pa", {"metadata": {"labels": {"app": "b"}}})
            await until(lambda: a.names == [] and b.names == ["pa", "pb"])
            assert a.wrong == {"endpoints": f"inferencepool {NS}/a: selector app=a matches no pod in namespace {NS}"}
            server.patch(
                f"inferencepools.{GIE}", NS, "a", {"spec": {"selector": {"matchLabels": {"app": None, "x": "y"}}}}
            )
            await until(lambda: a.names == ["pa-rank-0"])
            server.delete(f"inferencepools.{GIE}", NS, "a")
            await until(lambda: a.pools[-1].group != GIE and a.names == [])
            server.delete("inferencepools.inference.networking.x-k8s.io", NS, "a")
            await until(lambda: a.gones == 1)
            assert not common.wrong
            assert len(server.asked("list", "pods")) == 1


async def test_names_choose_and_a_listener_that_fails_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Recorder):
        def endpoints(self, endpoints: Any) -> None:
            raise ValueError("broken")

    members: dict[str, Recorder] = {}

    def opened(pool: PoolSpec) -> Any:
        if pool.name == "raises":
            raise ValueError("no configuration")
        members[pool.name] = Broken() if pool.name == "broken" else Recorder()
        return None if pool.name == "none" else (members[pool.name], members[pool.name].tell)

    with ApiServer() as server:
        names = ("broken", "good", "none", "raises", "unnamed")
        server.apply([*(pool_v1(name) for name in names), pod_body("a")])
        async with fleet(server, opened=opened, names=frozenset(names[:-1])):
            await until(lambda: "good" in members and members["good"].names == ["a-rank-0"])
            server.apply(pod_body("b"))
            await until(lambda: members["good"].names == ["a-rank-0", "b-rank-0"])
            assert members.keys() == {"broken", "good", "none"}
            assert members["broken"].pools
    assert {"pool kserve-test/broken: what follows from a change failed"} <= {r.getMessage() for r in caplog.records}
    assert any("inferencepool kserve-test/raises is left alone" in r.getMessage() for r in caplog.records)


async def test_two_hundred_pools_and_a_change_concerns_those_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = 0
    led_to = podfeed.PodFeed._led_to

    def counted(self: podfeed.PodFeed, pod: Any) -> Any:
        nonlocal offered
        found = led_to(self, pod)
        offered += len(found)
        return found

    monkeypatch.setattr(podfeed.PodFeed, "_led_to", counted)
    with ApiServer() as server:
        common = {"app.kubernetes.io/part-of": "llminferenceservice", "kserve.io/component": "workload"}
        server.apply(pool_v1(f"x{at}", selector=common | {"app.kubernetes.io/name": f"x{at}"}) for at in range(200))
        server.apply(
            pod_body(f"p{at}-{number}", labels=common | {"app.kubernetes.io/name": f"x{at}"}, ip=f"10.0.{at}.{number}")
            for at in range(200)
            for number in range(10)
        )
        async with fleet(server) as (members, _):
            await until(lambda: len(members) == 200 and all(len(m.names or ()) == 10 for m in members.values()), 60)
            # Each pod leads to its own pool, and to the two at most that came first and stand under a label all share.
            assert offered <= 3 * 2000 * 3
            offered = 0
            told = sum(len(member.snapshots) for member in members.values())
            server.patch("pods", NS, "p7-3", {"status": {"podIP": "10.9.9.9"}})
            await until(lambda: any(spec.ip == "10.9.9.9" for spec in members[f"{NS}/x7"].snapshots[-1]))
            await asyncio.sleep(0.05)
            assert offered <= 6
            assert sum(len(member.snapshots) for member in members.values()) == told + 1
