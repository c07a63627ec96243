# SPDX-License-Identifier: Apache-2.0
"""Ours and client-go's candidates contend for one lease, in virtual time.

`GoCandidate` behaves as client-go's `LeaderElector` over a `LeaseLock` does, by its documented rules: it compares
records at the precision of seconds, waits for the duration in the record, polls every 2 to 4.4 s, and leads until it
failed to renew for 10 s after a pause of 2 s.
"""

from __future__ import annotations

import asyncio
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from epp.kube.errors import ApiError, Missing
from tests.election.leases import NAME, NAMESPACE, Candidate, Server, until
from tests.election.virtual import now_s, run

LEASE_S, RENEW_S, RETRY_S, DELAY_S = 15, 10.0, 2.0, 0.01
POLL_S = 4.4 + 4 * DELAY_S
WALL_S = 1_700_000_000.0


def micro(at_s: float) -> str:
    return datetime.fromtimestamp(WALL_S + at_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class GoCandidate:
    """One Go replica. Older releases write an empty holder when they leave, newer ones may leave it out."""

    def __init__(self, server: Server, identity: str, *, seed: int = 0, leaves_out_empty: bool = False) -> None:
        self.server = server
        self.identity = identity
        self.rng = random.Random(seed)
        self.leaves_out_empty = leaves_out_empty
        self.leading = self.alive = False
        self.record: dict[str, Any] = {}
        self.raw = ""
        self.observed_s = 0.0
        self.lease: dict[str, Any] = {}

    def start(self) -> None:
        self.alive = True
        self.task = asyncio.create_task(self._run())

    def kill(self) -> None:
        self.alive = self.leading = False
        self.task.cancel()

    async def release(self) -> None:
        self.kill()
        spec = {"leaseDurationSeconds": 1, "leaseTransitions": self.record["leaseTransitions"],
                "acquireTime": micro(now_s()), "renewTime": micro(now_s())}  # fmt: skip
        if not self.leaves_out_empty:
            spec["holderIdentity"] = ""
        await self._put(spec)

    async def _run(self) -> None:
        self.leading = await self._acquire_or_renew()
        while not self.leading:
            await asyncio.sleep(RETRY_S * (1 + 1.2 * self.rng.random()))
            self.leading = await self._acquire_or_renew()
        while True:
            await asyncio.sleep(RETRY_S)
            until_s = now_s() + RENEW_S
            while not await self._acquire_or_renew():
                if now_s() + RETRY_S > until_s:
                    self.leading = False
                    return
                await asyncio.sleep(RETRY_S)

    def _is_mine(self) -> bool:
        return self.record.get("holderIdentity") == self.identity

    def _observe(self, record: dict[str, Any]) -> None:
        self.record, self.observed_s = record, now_s()

    async def _put(self, spec: dict[str, Any]) -> None:
        await asyncio.sleep(DELAY_S)
        self.lease = self.server.write(
            {**self.lease, "spec": spec}, creates="resourceVersion" not in self.lease["metadata"]
        )
        await asyncio.sleep(DELAY_S)
        self._observe(spec)

    async def _acquire_or_renew(self) -> bool:
        now = micro(now_s())
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": LEASE_S,
                "acquireTime": now, "renewTime": now, "leaseTransitions": 0}  # fmt: skip
        try:
            await asyncio.sleep(DELAY_S)
            self.lease = self.server.read()
        except Missing:
            metadata = {"name": NAME, "namespace": NAMESPACE}
            self.lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
            return await self._tried(spec)
        await asyncio.sleep(DELAY_S)
        found = self.lease["spec"]
        raw = json.dumps({**found, "renewTime": found["renewTime"][:19], "acquireTime": found["acquireTime"][:19]})
        if raw != self.raw:
            self.raw = raw
            self._observe(found)
        alive = self.observed_s + self.record["leaseDurationSeconds"] > now_s()
        if found.get("holderIdentity") and alive and not self._is_mine():
            return False
        spec["leaseTransitions"] = found["leaseTransitions"] + (not self._is_mine())
        if self._is_mine():
            spec["acquireTime"] = found["acquireTime"]
        return await self._tried(spec)

    async def _tried(self, spec: dict[str, Any]) -> bool:
        try:
            await self._put(spec)
        except ApiError:
            return False
        return True


def test_go_stands_by_for_ours_and_takes_what_ours_gives_up() -> None:
    async def main() -> None:
        server = Server()
        ours, go = Candidate(server, 1), GoCandidate(server, "go-1")
        ours.start()
        await until(lambda: ours.leading, 1.0)
        go.start()
        while now_s() < 300.0:
            assert ours.leading
            assert not go.leading
            await asyncio.sleep(0.1)
        await ours.election.release()
        await until(lambda: go.leading, POLL_S)
        assert server.read()["spec"]["leaseTransitions"] == 1
        go.kill()

    run(main())


@pytest.mark.parametrize("leaves_out_empty", [False, True])
def test_ours_stands_by_for_go_and_takes_what_go_gives_up(leaves_out_empty: bool) -> None:
    async def main() -> None:
        server = Server()
        ours, go = Candidate(server, 1), GoCandidate(server, "go-1", leaves_out_empty=leaves_out_empty)
        go.start()
        await until(lambda: go.leading, 1.0)
        ours.start()
        while now_s() < 300.0:
            assert go.leading
            assert not ours.active
            await asyncio.sleep(0.1)
        await go.release()
        await until(lambda: ours.leading, POLL_S)
        assert server.read()["spec"]["leaseTransitions"] == 1
        ours.kill()

    run(main())


def test_each_follows_the_other_s_death() -> None:
    async def main() -> None:
        server = Server()
        ours, go = Candidate(server, 1), GoCandidate(server, "go-1")
        ours.start()
        await until(lambda: ours.leading, 1.0)
        go.start()
        await asyncio.sleep(10.0)
        ours.kill()
        took_s = await until(lambda: go.leading, LEASE_S + 2 * POLL_S)
        assert took_s > LEASE_S - RETRY_S - 0.1
        other = Candidate(server, 2)
        other.start()
        await asyncio.sleep(10.0)
        go.kill()
        took_s = await until(lambda: other.leading, LEASE_S + POLL_S)
        assert took_s > LEASE_S - RETRY_S - 0.1
        other.kill()

    run(main())


@pytest.mark.parametrize("seed", range(20))
def test_never_two_of_whichever_kind(seed: int) -> None:
    """Replicas of both kinds come, die and leave; lines of ours break. Of all at most one leads."""

    async def main() -> None:
        server, rng = Server(), random.Random(seed)
        here: list[Candidate | GoCandidate] = []
        for number in range(60):
            kind = rng.choice(("ours", "go", "kill", "leave", "cut", "mend"))
            if kind == "ours" and len(here) < 5:
                here.append(Candidate(server, number, seed=seed, rate=rng.uniform(0.9, 1.1)))
                here[-1].start()
            elif kind == "go" and len(here) < 5:
                here.append(GoCandidate(server, f"go-{number}", seed=number))
                here[-1].start()
            elif kind == "kill" and here:
                here.pop(rng.randrange(len(here))).kill()
            elif kind == "leave" and here:
                leaver = here.pop(rng.randrange(len(here)))
                if isinstance(leaver, Candidate):
                    await leaver.election.release()
                elif leaver.leading:
                    await leaver.release()
                else:
                    leaver.kill()
            for one in here:
                if isinstance(one, Candidate) and kind in ("cut", "mend"):
                    one.line.cut = kind == "cut" and rng.random() < 0.5
            end_s = now_s() + rng.choice((0.5, 3.0, 30.0))
            while now_s() < end_s:
                assert sum(one.leading for one in here) <= 1
                await asyncio.sleep(0.1)
        for one in here:
            if isinstance(one, Candidate):
                one.line.cut = False
        here.append(Candidate(server, 99))
        here[-1].start()
        await until(lambda: any(one.leading for one in here), LEASE_S / 0.9 + 2 * POLL_S)
        for one in here:
            one.kill()

    run(main())
