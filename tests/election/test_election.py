# SPDX-License-Identifier: Apache-2.0
"""Elections in virtual time: who leads, who is active, and what is said, one situation a test."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from epp.election.election import WHAT
from tests.election.leases import (
    ISOLATED_S,
    LEASE_S,
    RENEW_S,
    RETRY_S,
    Candidate,
    Server,
    lease_of,
    pair,
    until,
    write_as,
)
from tests.election.virtual import now_s, run


def test_the_holder_renews_and_keeps_when_it_began() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        await asyncio.sleep(60.0)
        times = [at_s for at_s, _ in server.written]
        assert all(1.9 < later - earlier < 2.1 for earlier, later in pairwise(times))
        specs = [document["spec"] for _, document in server.written]
        assert {spec["acquireTime"] for spec in specs} == {specs[0]["renewTime"]}
        assert {spec["leaseTransitions"] for spec in specs} == {0}
        assert {spec["leaseDurationSeconds"] for spec in specs} == {15}
        assert {spec["holderIdentity"] for spec in specs} == {one.identity}
        # Renewing asks once: what was written last is known.
        assert set(one.line.asked[2:]) == {"update"}
        assert two.election.holder == one.identity

    pair(scene)


def test_a_dead_holder_is_followed_when_its_lease_runs_out() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.kill()
        took_s = await until(lambda: two.leading, LEASE_S + RETRY_S)
        assert took_s > LEASE_S - 2.1
        assert two.active
        assert lease_of(server).spec.lease_transitions == 1

    pair(scene)


def test_release_hands_over_within_a_retry_period() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        await one.election.release()
        assert (one.leading, one.active) == (False, False)
        given_up = lease_of(server).spec
        assert (given_up.holder_identity, given_up.lease_duration_seconds) == ("", 1)
        await until(lambda: two.leading, RETRY_S + 0.01)
        # The one that left does not come back.
        await asyncio.sleep(100.0)
        assert (one.active, two.leading) == (False, True)
        assert [active for _, active in one.heard] == [True]
        assert one.task.done()

    pair(scene)


def test_release_of_a_standby_touches_nothing() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        asked = len(two.line.asked)
        await two.election.release()
        assert len(two.line.asked) == asked
        assert one.leading

    pair(scene)


def test_release_after_the_task_was_cancelled_in_the_middle_of_a_write() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.delay_s = lambda: 0.5
        renewals = one.line.asked.count("update")
        await until(lambda: one.line.asked.count("update") > renewals, 3.0)
        one.task.cancel()
        await one.election.release()
        assert server.holder == ""

    pair(scene)


def test_release_while_somebody_else_writes() -> None:
    """A label put on the lease makes the first try meet 409."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        two.kill()
        one.line.delay_s = lambda: 0.1
        one.task.cancel()
        releasing = asyncio.create_task(one.election.release())
        await asyncio.sleep(0.15)
        write_as(server, one.identity)
        await releasing
        assert server.holder == ""

    pair(scene)


def test_release_when_nobody_answers_ends() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.delay_s = lambda: 1e6
        began_s = now_s()
        await one.election.release()
        assert now_s() - began_s == pytest.approx(one.timing.request_s)
        assert not one.active
        await until(lambda: two.leading, LEASE_S + RETRY_S)

    pair(scene)


def test_only_the_leader_is_cut_off() -> None:
    """It stops leading before the other begins, and is active until it sees the other."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.cut = True
        stopped_s = await until(lambda: not one.leading, RENEW_S)
        assert stopped_s > RENEW_S - 2.1
        assert one.active
        began_s = stopped_s + await until(lambda: two.leading, LEASE_S + RETRY_S)
        assert began_s - stopped_s > 2.0
        await asyncio.sleep(3600.0)
        assert (one.active, one.leading, two.active) == (True, False, True)
        assert one.lines == ["nobody answers; still ready, as the last holder of the lease"]
        one.line.cut = False
        await until(lambda: not one.active, RETRY_S + 0.1)
        assert (two.leading, one.told[WHAT]) == (True, None)
        assert [active for _, active in one.heard] == [True, False]

    pair(scene)


def test_a_holder_that_is_back_before_anybody_took_over_goes_on() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.cut = True
        await asyncio.sleep(9.0)
        one.line.cut = False
        await until(lambda: one.leading, 3.0)
        await asyncio.sleep(30.0)
        assert (one.leading, two.leading, lease_of(server).spec.lease_transitions) == (True, False, 0)

    pair(scene)


def test_nobody_reaches_the_api_server() -> None:
    """The last leader stays active; the standby waits a minute and is active then too; back, one is."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.cut = two.line.cut = True
        began_s = now_s()
        while now_s() - began_s < 50.0:
            assert (one.active, two.active) == (True, False)
            await asyncio.sleep(0.5)
        assert two.lines == ["nobody answers; standing by for 60 s at most, then ready without a lease"]
        await until(lambda: two.active, 20.0)
        await asyncio.sleep(3600.0)
        assert (one.active, one.leading, two.active, two.leading) == (True, False, True, False)
        assert two.lines[1:] == ["nobody answers; ready without a lease, as other replicas may be"]
        one.line.cut = two.line.cut = False
        await until(lambda: one.leading != two.leading and one.active != two.active, 2 * RETRY_S)
        assert (one.told[WHAT], two.told[WHAT]) == (None, None)

    pair(scene)


def test_the_leader_dies_while_nobody_reaches_the_api_server() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.cut = two.line.cut = True
        one.kill()
        await until(lambda: two.active, ISOLATED_S + 0.1)
        assert not two.leading

    pair(scene)


def test_an_outage_of_many_faces_is_told_once() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.cut = True
        for minute in range(30):
            one.line.silence = f"no answer, for reason {minute}"
            await asyncio.sleep(60.0)
        assert len(one.lines) == 1

    pair(scene)


def test_a_lost_answer_is_nothing_to_speak_of() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        for candidate in (one, two):
            candidate.line.cut = True
            await asyncio.sleep(5.0)
            candidate.line.cut = False
            await asyncio.sleep(5.0)
        assert (one.lines, two.lines) == ([], [])
        assert one.leading

    pair(scene)


def test_a_lost_answer_to_a_write_that_arrived() -> None:
    """The next write meets 409, the record says it is ours, and leading goes on."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.delay_s = lambda: 0.2
        written = len(server.written)
        await until(lambda: len(server.written) > written, 3.0)
        one.line.cut = True
        await asyncio.sleep(0.3)
        one.line.cut = False
        while now_s() < 60.0:
            assert one.leading
            await asyncio.sleep(0.1)
        assert one.line.asked.count("get") == 2

    pair(scene)


def test_a_deleted_lease_is_made_again() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        server.lease = None
        await asyncio.sleep(RETRY_S + LEASE_S + RETRY_S)
        assert one.leading != two.leading
        assert server.holder == (one.identity if one.leading else two.identity)
        assert one.lines == two.lines == []

    pair(scene)


def test_another_wrote_itself_in() -> None:
    """Whatever was agreed, who stands in the record leads."""

    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        write_as(server, "go")
        await until(lambda: not one.leading, 2.1)
        assert not one.active
        await asyncio.sleep(10.0)
        assert (one.active, two.active, two.election.holder) == (False, False, "go")
        await until(lambda: one.leading or two.leading, LEASE_S)

    pair(scene)


def test_the_holder_of_another_duration_is_believed() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.kill()
        write_as(server, "go", leaseDurationSeconds=40)
        asked = len(two.line.asked)
        await until(lambda: two.leading, 40.0 + RETRY_S)
        # From when it was seen, and without waiting for the next turn.
        assert 40.0 < now_s() - two.line.asked_s[asked] < 40.1

    pair(scene)


def test_a_candidate_believes_its_own_clock_alone() -> None:
    """The wall clocks are a year apart, and the record's times are not looked at."""

    async def main() -> None:
        server = Server()
        one, two = Candidate(server, 1, offset_s=-3e7), Candidate(server, 2)
        one.start()
        await asyncio.sleep(1.0)
        two.start()
        while now_s() < 120.0:
            assert one.leading
            assert not two.leading
            await asyncio.sleep(0.5)

    run(main())


def test_a_process_that_was_stopped_does_not_lead_when_it_wakes() -> None:
    async def main() -> None:
        server = Server()
        one = Candidate(server, 1)
        one.start()
        await until(lambda: one.leading, 1.0)
        one.task.cancel()
        await asyncio.sleep(9.9)
        assert one.leading
        await asyncio.sleep(0.2)
        assert (one.leading, one.active) == (False, True)

    run(main())


def test_a_new_replica_asks_first() -> None:
    """Also when it must wait for the answer: it is active after a minute without any."""

    async def main() -> None:
        server = Server()
        one = Candidate(server, 1)
        one.line.cut = True
        one.start()
        await asyncio.sleep(ISOLATED_S - 1.0)
        assert not one.active
        await asyncio.sleep(1.1)
        assert (one.active, one.leading) == (True, False)
        one.line.cut = False
        await until(lambda: one.leading, RETRY_S + 0.1)

    run(main())


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    async def scene(server: Server, one: Candidate, two: Candidate) -> None:
        one.line.delay_s = lambda: 1e6
        await until(lambda: two.leading, LEASE_S + RETRY_S)
        assert one.active
        one.line.delay_s = lambda: 0.001
        await until(lambda: not one.active, one.timing.request_s + RETRY_S)

    pair(scene)
