# SPDX-License-Identifier: Apache-2.0
"""Two replicas and the stand-in API server, over HTTPS, with the roles that KServe grants. In real time, with a lease
of two seconds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from epp.election.election import WHAT, Election, Timing
from epp.election.names import lease_name, new_identity
from epp.kube.access import find_access
from epp.kube.api import Api
from tests.apiserver.roles import CONFORMANCE, KSERVE_ROLES
from tests.apiserver.server import ApiServer

NAMESPACE = "kserve-test"
NAME = lease_name(NAMESPACE, "qwen-instruct-inference-pool")
QUICK = Timing(lease_s=2, renew_s=1.4, retry_s=0.1, request_s=0.6, refused_s=0.2, isolated_s=3.0)


class Replica:
    """An election with a client of its own."""

    def __init__(self, server: ApiServer, name: str, seed: int) -> None:
        access = find_access(server.environ, service_account=server.service_account)
        assert access is not None
        self.api = Api(access)
        self.identity = new_identity(name)
        self.told: dict[str, str | None] = {}
        self.election = Election(
            self.api,
            NAMESPACE,
            NAME,
            self.identity,
            clock=time.monotonic,
            rng=random.Random(seed),
            tell=self.told.__setitem__,
            timing=QUICK,
        )

    def start(self) -> None:
        self.task = asyncio.create_task(self.election.run(lambda active: None))

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.api.close()


class World:
    """The server, and two replicas of which the first leads if it can."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.one, self.two = Replica(server, "epp-1", 1), Replica(server, "epp-2", 2)

    @classmethod
    @asynccontextmanager
    async def of(cls, server: ApiServer) -> Any:
        world = cls(server)
        world.one.start()
        await until(lambda: world.one.election.active)
        world.two.start()
        try:
            yield world
        finally:
            await world.one.kill()
            await world.two.kill()

    @property
    def active(self) -> tuple[bool, bool]:
        return self.one.election.active, self.two.election.active

    @property
    def leading(self) -> tuple[bool, bool]:
        return self.one.election.leading, self.two.election.leading

    @property
    def spec(self) -> dict[str, Any]:
        lease = self.server.object("leases", NAMESPACE, NAME)
        assert lease is not None
        spec: dict[str, Any] = lease["spec"]
        return spec


async def until(true: Callable[[], object], patience_s: float = 20.0) -> None:
    end = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


@pytest.fixture
def server() -> Any:
    with ApiServer(namespace=NAMESPACE) as server:
        server.rules.allow_only(KSERVE_ROLES["v0.17"])
        yield server


async def test_one_leads_and_dies_and_the_other_leads(server: ApiServer) -> None:
    async with World.of(server) as world:
        await until(lambda: world.two.election.holder == world.one.identity)
        assert (world.leading, world.active) == ((True, False), (True, False))
        assert world.spec["holderIdentity"] == world.one.identity
        assert (world.spec["leaseDurationSeconds"], world.spec["leaseTransitions"]) == (2, 0)
        world.one.task.cancel()
        await until(lambda: world.two.election.leading)
        assert (world.spec["holderIdentity"], world.spec["leaseTransitions"]) == (world.two.identity, 1)
    asked = {(request.verb, request.resource, request.namespace) for request in server.requests}
    assert asked == {(verb, "leases", NAMESPACE) for verb in ("get", "create", "update")}
    assert server.asked(code=403) == []


async def test_release_hands_over(server: ApiServer) -> None:
    async with World.of(server) as world:
        await world.one.election.release()
        assert world.active[0] is False
        await until(lambda: world.two.election.leading)
        assert world.spec["leaseTransitions"] == 1
        assert world.one.told == {WHAT: None}


async def test_what_release_leaves_behind(server: ApiServer) -> None:
    async with World.of(server) as world:
        await world.two.kill()
        server.patch("leases", NAMESPACE, NAME, {"metadata": {"labels": {"team": "serving"}}})
        await world.one.election.release()
        assert (world.spec["holderIdentity"], world.spec["leaseDurationSeconds"]) == ("", 1)
        lease = server.object("leases", NAMESPACE, NAME)
        assert lease is not None
        assert lease["metadata"]["labels"] == {"team": "serving"}


@pytest.mark.parametrize("role", [KSERVE_ROLES["v0.16"], CONFORMANCE])
async def test_a_role_without_leases(server: ApiServer, role: Any) -> None:
    server.rules.allow_only(role)
    async with World.of(server) as world:
        await until(lambda: world.active == (True, True))
        assert world.leading == (False, False)
        for replica in (world.one, world.two):
            await until(lambda replica=replica: replica.told.get(WHAT))
            line = replica.told[WHAT]
            assert line is not None
            assert "\n" not in line
            assert (
                f"an election takes get, create and update on leases.coordination.k8s.io in namespace {NAMESPACE}"
                in line
            )
            assert line.endswith("ready without a lease, as other replicas may be")
        server.rules.allow_only(KSERVE_ROLES["v0.17"])
        await until(lambda: sorted(world.leading) == [False, True] and world.active == world.leading)
        assert (world.one.told, world.two.told) == ({WHAT: None}, {WHAT: None})


async def test_the_api_server_is_away_and_back(server: ApiServer) -> None:
    async with World.of(server) as world:
        await until(lambda: world.two.election.holder == world.one.identity)
        await asyncio.to_thread(server.away)
        await until(lambda: not world.one.election.leading)
        assert world.active == (True, False)
        await until(lambda: world.one.told[WHAT])
        assert str(world.one.told[WHAT]).endswith("still ready, as the last holder of the lease")
        await until(lambda: world.active == (True, True))
        assert world.leading == (False, False)
        await asyncio.to_thread(server.back)
        await until(lambda: sorted(world.leading) == [False, True] and world.active == world.leading)
        await until(lambda: (world.one.told, world.two.told) == ({WHAT: None}, {WHAT: None}))


async def test_another_writes_at_the_same_time(server: ApiServer) -> None:
    """409 at a renewal: the record is read, it is ours still, and leading goes on."""
    async with World.of(server) as world:
        for number in range(20):
            server.patch("leases", NAMESPACE, NAME, {"metadata": {"annotations": {"number": str(number)}}})
            await asyncio.sleep(0.05)
        await until(lambda: server.asked("update", "leases", code=409))
        await until(lambda: world.one.election.leading)
        assert world.active == (True, False)
        assert world.spec["leaseTransitions"] == 0


async def test_the_api_server_is_busy(server: ApiServer) -> None:
    async with World.of(server) as world:
        await until(lambda: world.two.election.holder == world.one.identity)
        server.throttle(4, retry_after=0)
        server.fail(2, 500)
        await until(lambda: len(server.asked("get", "leases", code=500)) + len(server.asked("update", code=500)) > 0)
        await until(lambda: world.leading == (True, False) and world.active == (True, False))


async def test_the_token_is_rotated(server: ApiServer) -> None:
    async with World.of(server) as world:
        server.rotate_token()
        await asyncio.sleep(0.5)
        await until(lambda: world.leading == (True, False))
        assert world.active == (True, False)
