# SPDX-License-Identifier: Apache-2.0
"""One lease on a server of a few lines, and the lines to it, which can be slow, cut or refused."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from epp.election.election import Election, Timing
from epp.election.record import Lease
from epp.kube.errors import ApiError, Conflict, Forbidden, Missing, Unreachable
from epp.kube.resource import LEASES, Resource
from tests.election.virtual import now_s, run

T = TypeVar("T")
NAMESPACE, NAME = "ns", "epp-ns-pool.llm-d.ai"
LEASE_S, RENEW_S, ISOLATED_S = 15.0, 10.0, 60.0
RETRY_S = 2.0 * 2.2
"""The longest pause of a candidate."""


class Server:
    """Holds the lease as JSON, as the API server would; `written` is every accepted write with its time."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.written: list[tuple[float, dict[str, Any]]] = []

    @property
    def holder(self) -> str:
        return (self.lease or {}).get("spec", {}).get("holderIdentity") or ""

    def read(self) -> dict[str, Any]:
        if self.lease is None:
            raise Missing("no such lease", status=404)
        return self.lease

    def write(self, body: Any, creates: bool) -> dict[str, Any]:
        new = msgspec.json.decode(msgspec.json.encode(body))
        assert new["apiVersion"] == "coordination.k8s.io/v1"
        assert new["kind"] == "Lease"
        assert (new["metadata"]["namespace"], new["metadata"]["name"]) == (NAMESPACE, NAME)
        if creates and self.lease is not None:
            raise Conflict("it is there", status=409)
        if not creates:
            if self.lease is None:
                raise Missing("no such lease", status=404)
            if new["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise Conflict("it changed", status=409)
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self.lease = new
        self.written.append((now_s(), new))
        return new


@dataclass
class Line:
    """A candidate's way to the server. `cut` breaks it, also under way: a write may arrive and its answer not."""

    server: Server
    delay_s: Callable[[], float] = lambda: 0.001
    cut: bool = False
    refused: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)
    asked_s: list[float] = field(default_factory=list)
    silence: str = "nobody answers"

    async def _way(self) -> None:
        await asyncio.sleep(self.delay_s())
        if self.cut:
            raise Unreachable(self.silence)

    async def _ask(self, verb: str, act: Callable[[], dict[str, Any]], decode: type[T]) -> T:
        self.asked.append(verb)
        self.asked_s.append(now_s())
        await self._way()
        if verb in self.refused:
            raise Forbidden(f"may not {verb} leases", status=403, verb=verb, resource=LEASES)
        failure, answer = None, {}
        try:
            answer = act()
        except ApiError as error:
            failure = error
        text = msgspec.json.encode(answer)
        await self._way()
        if failure is not None:
            raise failure
        return msgspec.json.decode(text, type=decode)

    async def read(self, resource: Resource, namespace: str, name: str, decode: type[T]) -> T:
        assert (resource, namespace, name) == (LEASES, NAMESPACE, NAME)
        return await self._ask("get", self.server.read, decode)

    async def create(self, resource: Resource, namespace: str | None, body: Any, decode: type[T]) -> T:
        assert (resource, namespace) == (LEASES, NAMESPACE)
        return await self._ask("create", lambda: self.server.write(body, True), decode)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Any, decode: type[T]) -> T:
        assert (resource, namespace, name) == (LEASES, NAMESPACE, NAME)
        return await self._ask("update", lambda: self.server.write(body, False), decode)


class Candidate:
    """An election, its line, what it told, and its clock, which may go wrong by an offset and a rate."""

    def __init__(self, server: Server, number: int, *, offset_s: float = 0.0, rate: float = 1.0, seed: int = 0) -> None:
        self.line = Line(server)
        self.identity = f"epp-{number}_{number}"
        self.told: dict[str, str | None] = {}
        self.lines: list[str] = []
        self.heard: list[tuple[float, bool]] = []
        self.alive = False
        self.timing = Timing()
        self.election = Election(
            self.line,
            NAMESPACE,
            NAME,
            self.identity,
            clock=lambda: offset_s + rate * now_s(),
            rng=random.Random(seed * 100 + number),
            tell=self._tell,
            wall=lambda: 1_700_000_000.0 + offset_s + rate * now_s(),
            timing=self.timing,
        )

    def _tell(self, what: str, line: str | None) -> None:
        if line is not None and self.told.get(what) != line:
            self.lines.append(line)
        self.told[what] = line

    def start(self) -> None:
        self.alive = True
        self.task = asyncio.create_task(self.election.run(lambda active: self.heard.append((now_s(), active))))

    def kill(self) -> None:
        """It is gone in the middle of whatever it did."""
        self.alive = False
        self.task.cancel()

    @property
    def leading(self) -> bool:
        return self.alive and self.election.leading

    @property
    def active(self) -> bool:
        return self.alive and self.election.active


async def until(true: Callable[[], bool], within_s: float) -> float:
    """How long it took until `true`, looked at every 10 ms of virtual time."""
    began_s = now_s()
    while not true():
        assert now_s() - began_s <= within_s, f"not within {within_s} s"
        await asyncio.sleep(0.01)
    return now_s() - began_s


def lease_of(server: Server) -> Lease:
    """What the server holds, as we read it."""
    return msgspec.convert(server.read(), Lease)


def pair(scene: Callable[[Server, Candidate, Candidate], Coroutine[Any, Any, None]]) -> None:
    """`scene` with the first candidate leading and the second standing by."""

    async def main() -> None:
        server = Server()
        one, two = Candidate(server, 1), Candidate(server, 2)
        one.start()
        await until(lambda: one.leading, 1.0)
        two.start()
        await asyncio.sleep(10.0)
        assert (one.leading, one.active, two.leading, two.active) == (True, True, False, False)
        await scene(server, one, two)
        one.kill()
        two.kill()

    run(main())


def write_as(server: Server, holder: str, **fields: object) -> None:
    """Somebody else writes the lease."""
    lease = server.read()
    server.write({**lease, "spec": {**lease["spec"], "holderIdentity": holder, **fields}}, creates=False)
