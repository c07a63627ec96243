# SPDX-License-Identifier: Apache-2.0
"""Elections whose API server says no: who is active then, and what is said."""

from __future__ import annotations

import asyncio

import pytest

from epp.election.election import WHAT
from tests.election.leases import ISOLATED_S, LEASE_S, RETRY_S, Candidate, Server, pair, until, write_as
from tests.election.virtual import now_s, run

VERBS = frozenset({"get", "create", "update"})


@pytest.mark.parametrize("refused", [VERBS, frozenset({"create", "update"}), frozenset({"create"})])
def test_a_role_without_leases(refused: frozenset[str]) -> None:
    """Nobody can take part: everybody is active, and says once what would mend it; once it is, one leads."""

    async def main() -> None:
        server = Server()
        both = [Candidate(server, number) for number in (1, 2)]
        for candidate in both:
            candidate.line.refused = refused
            candidate.start()
        await asyncio.sleep(1.0)
        verb = "get" if "get" in refused else "create"
        for candidate in both:
            assert (candidate.active, candidate.leading) == (True, False)
            (line,) = candidate.lines
            error, remedy, follows = line.split("; ")
            assert error == f"may not {verb} leases"
            assert remedy == "an election takes get, create and update on leases.coordination.k8s.io in namespace ns"
            assert follows == "ready without a lease, as other replicas may be"
        await asyncio.sleep(600.0)
        assert all(len(candidate.lines) == 1 and len(candidate.heard) == 1 for candidate in both)
        assert all(len(candidate.line.asked) < 130 for candidate in both)
        for candidate in both:
            candidate.line.refused = frozenset()
        await until(lambda: sum(c.leading for c in both) == 1 and sum(c.active for c in both) == 1, 21.0)
        assert all(candidate.told[WHAT] is None for candidate in both)

    run(main())


def test_a_role_that_loses_its_leases() -> None:
    """The leader stays active; the standby has seen it alive, and waits its minute."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.refused = two.line.refused = VERBS
        began_s = now_s()
        while now_s() - began_s < 55.0:
            assert (one.active, two.active) == (True, False)
            await asyncio.sleep(0.5)
        await until(lambda: two.active, 10.0)

    pair(scene)


def test_refused_after_another_was_faster() -> None:
    """409 tells of a leader as well as the record does."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.kill()
        two.line.delay_s = lambda: 0.1
        tries = two.line.asked.count("update")
        await until(lambda: two.line.asked.count("update") > tries, LEASE_S + RETRY_S)
        write_as(server, "go")
        await asyncio.sleep(0.15)
        two.line.refused = VERBS
        await asyncio.sleep(ISOLATED_S - 10.0)
        assert not two.active
        await until(lambda: two.active, 20.0)

    pair(scene)


def test_reading_is_allowed_and_another_leads() -> None:
    """A replica that cannot write stands by as long as somebody leads, and is active once nobody does."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        two.line.refused = frozenset({"create", "update"})
        await asyncio.sleep(200.0)
        assert (two.active, two.lines) == (False, [])
        one.kill()
        await until(lambda: two.active, LEASE_S + RETRY_S)
        assert not two.leading

    pair(scene)
