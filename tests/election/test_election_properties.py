# SPDX-License-Identifier: Apache-2.0
"""Any number of candidates, with wrong clocks, slow, cut and refused lines, deaths and departures, in virtual time.

Promised: never two that lead; at most a bounded time without an active one; and once all is well, one that leads and is
the only one active.
"""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.election.leases import Candidate, Server, until
from tests.election.virtual import now_s, run

LEASE_S, RETRY_S, REQUEST_S, ISOLATED_S = 15.0, 4.4, 5.0, 60.0
SLOWEST, FASTEST = 0.85, 1.15
"""Rates of the clocks: the lease bears up to 1.5 between two of them."""

LONGEST_GAP_S = (ISOLATED_S + LEASE_S) / SLOWEST + 2 * RETRY_S + 4 * REQUEST_S
"""How long nobody may be active although somebody lives: belief in a leader that died unseen, or that took the lease
without hearing that it did."""

SETTLED_S = LEASE_S / SLOWEST + 2 * RETRY_S + 4 * REQUEST_S
"""How long until one leads once every line works."""

Step = tuple[str, int, float]
ACTIONS = ("start", "kill", "leave", "cut", "mend", "slow", "refuse")

steps = st.lists(
    st.tuples(
        st.sampled_from(ACTIONS),
        st.integers(0, 3),
        st.one_of(st.floats(0.0, 8.0), st.floats(0.0, 100.0)),
    ),
    max_size=25,
)
clocks = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(SLOWEST, FASTEST)),
    min_size=4,
    max_size=4,
)


class World:
    """Candidates that come and go on four machines, and the promises, looked at all the time."""

    def __init__(self, clocks: list[tuple[float, float]], seed: int) -> None:
        self.server = Server()
        self.clocks = clocks
        self.seed = seed
        self.rng = random.Random(seed)
        self.made = 0
        self.here: dict[int, Candidate] = {}
        self.leaving: set[asyncio.Task[None]] = set()

    def do(self, action: str, machine: int) -> None:
        candidate = self.here.get(machine)
        if action == "start" and candidate is None:
            offset_s, rate = self.clocks[machine]
            self.made += 1
            self.here[machine] = new = Candidate(self.server, self.made, offset_s=offset_s, rate=rate, seed=self.seed)
            new.start()
        if candidate is None:
            return
        if action == "kill":
            candidate.kill()
            del self.here[machine]
        elif action == "leave":
            self.leaving.add(asyncio.create_task(candidate.election.release()))
            del self.here[machine]
        elif action == "cut":
            candidate.line.cut = True
        elif action == "slow":
            candidate.line.delay_s = lambda: self.rng.choice((0.0, 0.1, 1.0, 3.0, 20.0))
        elif action == "refuse":
            verbs = ("get", "create", "update")
            candidate.line.refused = frozenset(
                verbs[: self.rng.randint(1, 3)] if self.rng.random() < 0.5 else verbs[1:]
            )
        elif action == "mend":
            self.mend(candidate)

    def mend(self, candidate: Candidate) -> None:
        candidate.line.cut = False
        candidate.line.delay_s = lambda: 0.01
        candidate.line.refused = frozenset()

    async def watch(self) -> None:
        """Fails at the first broken promise."""
        served_s = now_s()
        while True:
            leaders = [c.identity for c in self.here.values() if c.leading]
            assert len(leaders) <= 1, f"at {now_s()} {leaders} lead"
            if not self.here or any(candidate.active for candidate in self.here.values()):
                served_s = now_s()
            assert now_s() - served_s < LONGEST_GAP_S, f"nobody was active from {served_s} to {now_s()}"
            await asyncio.sleep(0.1)

    async def play(self, script: list[Step]) -> None:
        watching = asyncio.create_task(self.watch())
        self.do("start", 0)
        self.do("start", 1)
        for action, machine, pause_s in script:
            self.do(action, machine)
            await asyncio.wait((watching,), timeout=pause_s)
            if watching.done():
                watching.result()
        for candidate in self.here.values():
            self.mend(candidate)
        self.do("start", 3)
        await until(self.settled, SETTLED_S)
        for _ in range(200):
            await asyncio.sleep(0.5)
            assert self.settled()
        if watching.done():
            watching.result()
        watching.cancel()
        for candidate in self.here.values():
            candidate.kill()

    def settled(self) -> bool:
        leaders = [candidate for candidate in self.here.values() if candidate.leading]
        active = [candidate for candidate in self.here.values() if candidate.active]
        return len(leaders) == 1 and leaders == active and self.server.holder == leaders[0].identity


@settings(max_examples=150)
@given(script=steps, clocks=clocks, seed=st.integers(0, 1000))
def test_promises(script: list[Step], clocks: list[tuple[float, float]], seed: int) -> None:
    run(World(clocks, seed).play(script))
