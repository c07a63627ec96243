# SPDX-License-Identifier: Apache-2.0
"""The pool table: lives, rows, subsets, and that in-flight sums are exactly the open leases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Endpoint
from epp.contract.signals import Sample, Signal
from epp.endpoints.lease import Lease
from epp.endpoints.pool import SUSPECT_S, Pool
from epp.testing import FakeClock


def spec(number: int, **changes: object) -> EndpointSpec:
    return replace(EndpointSpec("ns", f"pod-{number}", f"10.0.0.{number}", 8000), **changes)  # type: ignore[arg-type]


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, str, int]] = []

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        self.heard.append(("+", endpoint.name, endpoint.row))

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        self.heard.append(("-", endpoint.name, endpoint.row))


def test_a_snapshot_is_what_the_pool_holds() -> None:
    pool = Pool(FakeClock())
    assert not pool.synced
    pool.apply([])
    assert pool.synced
    pool.apply([spec(1), spec(2)])
    assert sorted(e.id for e in pool.candidates()) == ["ns/pod-1", "ns/pod-2"]
    assert len(pool) == 2


def test_listeners_hear_of_what_there_is_and_of_every_change() -> None:
    pool, listener = Pool(FakeClock()), Listener()
    pool.apply([spec(1)])
    pool.subscribe(listener)
    pool.apply([spec(2)])
    assert [(what, name) for what, name, _ in listener.heard] == [("+", "pod-1"), ("-", "pod-1"), ("+", "pod-2")]


def test_a_listener_that_raises_stops_nobody() -> None:
    class Broken(Listener):
        def on_endpoint_added(self, endpoint: Endpoint) -> None:
            raise RuntimeError("broken")

    pool, listener = Pool(FakeClock()), Listener()
    pool.subscribe(Broken())
    pool.subscribe(listener)
    pool.apply([spec(1)])
    assert len(listener.heard) == len(pool) == 1


@pytest.mark.parametrize("change", [{"ip": "10.0.0.9"}, {"port": 8001}, {"rank": 1}, {"incarnation": "uid-2"}])
def test_another_address_or_incarnation_is_another_life(change: dict[str, object]) -> None:
    pool = Pool(FakeClock())
    pool.apply([spec(1)])
    [before] = pool.candidates()
    pool.record(before, Sample(waiting=7))
    pool.apply([spec(1, **change)])
    [after] = pool.candidates()
    assert after.generation != before.generation
    assert pool.candidates().waiting.tolist() == [0]
    assert pool.candidates().age_s.tolist() == [np.inf]


def test_new_labels_do_not_end_a_life() -> None:
    pool = Pool(FakeClock())
    pool.apply([spec(1, labels={"role": "decode"})])
    seen = pool.candidates()
    pool.record(seen[0], Sample(waiting=7))
    pool.apply([spec(1, labels={"role": "prefill"})])
    now = pool.candidates()
    assert (now[0].generation, now[0].row) == (seen[0].generation, seen[0].row)
    assert now.label("role").tolist() == ["prefill"]
    assert now.waiting.tolist() == [7]
    assert seen[0].labels == {"role": "decode"}, "an earlier candidate set keeps what it saw"


def test_an_endpoint_that_is_not_ready_lives_on_and_is_not_chosen() -> None:
    pool, listener = Pool(FakeClock()), Listener()
    pool.apply([spec(1), spec(2)])
    pool.subscribe(listener)
    heard = list(listener.heard)
    before = next(e for e in pool.candidates() if e.name == "pod-1")
    pool.record(before, Sample(waiting=7))
    lease = pool.charge(before, 100)
    pool.apply([spec(1, ready=False), spec(2)])
    assert [e.name for e in pool.candidates()] == [e.name for e in pool] == ["pod-2"]
    assert len(pool) == 1
    assert not len(pool.subset(["10.0.0.1", "10.0.0.1:8000"]))
    assert pool.has_address("10.0.0.1:8000")
    assert not pool.has_address("10.0.0.1:8001")
    assert pool.columns.unready == {before.row}
    assert pool.record(before, Sample(running=3)), "it is still scraped"
    pool.apply([spec(1, ready=False, labels={"a": "b"}), spec(2)])
    pool.apply([spec(1, labels={"a": "b"}), spec(2)])
    after = next(e for e in pool.candidates() if e.name == "pod-1")
    assert (after.row, after.generation) == (before.row, before.generation)
    assert pool.columns.in_flight_requests[after.row] == 1
    assert (pool.columns.waiting[after.row], pool.columns.running[after.row]) == (7, 3)
    assert listener.heard == heard
    lease.release()
    assert pool.columns.in_flight_requests[after.row] == 0


def test_nobody_is_chosen_when_nobody_is_ready() -> None:
    pool = Pool(FakeClock(), capacity=1)
    pool.apply([spec(1), spec(2)])
    for endpoint in pool.candidates():
        pool.suspect(endpoint)
    pool.apply([spec(1, ready=False), spec(2, ready=False)])
    assert len(pool) == len(pool.candidates()) == len(list(pool)) == 0
    assert pool.synced
    pool.apply([spec(1, ready=False), spec(2, ready=False), spec(3), spec(4), spec(5)])  # the table grows
    assert sorted(e.name for e in pool.candidates()) == ["pod-3", "pod-4", "pod-5"]
    pool.apply([])
    assert not pool.columns.unready


def test_another_incarnation_that_is_not_ready_is_another_life() -> None:
    pool, listener = Pool(FakeClock()), Listener()
    pool.apply([spec(1)])
    pool.subscribe(listener)
    [old] = pool.candidates()
    lease = pool.charge(old, 100)
    pool.apply([spec(1, ready=False)])
    pool.apply([spec(1, ready=False, incarnation="uid-2")])
    assert [what for what, _, _ in listener.heard] == ["+", "-", "+"]
    pool.apply([spec(1, incarnation="uid-2")])
    [new] = pool.candidates()
    assert new.generation != old.generation
    assert pool.candidates().in_flight_requests.tolist() == [0]
    lease.release()
    assert pool.candidates().in_flight_requests.tolist() == [0]


def test_late_news_of_a_past_life_changes_nothing() -> None:
    pool = Pool(FakeClock())
    pool.apply([spec(1)])
    [old] = pool.candidates()
    lease = pool.charge(old, 100)
    pool.apply([])
    pool.apply([spec(1)])
    [new] = pool.candidates()
    assert new.row == old.row
    assert not pool.record(old, Sample(waiting=9))
    lease.release()
    assert pool.candidates().waiting.tolist() == pool.candidates().in_flight_requests.tolist() == [0]


def test_a_sample_leaves_what_it_does_not_say() -> None:
    clock = FakeClock()
    pool = Pool(clock)
    pool.apply([spec(1)])
    [endpoint] = pool.candidates()
    assert pool.record(endpoint, Sample(1, 2, 0.5, 16, 1000))
    assert pool.record(endpoint, Sample(waiting=3))
    seen = pool.candidates()
    assert (seen.waiting[0], seen.running[0], seen.kv_utilization[0]) == (3, 2, 0.5)
    assert (seen.block_size_tokens[0], seen.num_blocks[0], seen.age_s[0]) == (16, 1000, 0)


def test_each_signal_has_its_own_age() -> None:
    clock = FakeClock()
    pool = Pool(clock, capacity=1)
    pool.apply([spec(1)])
    [endpoint] = pool.candidates()
    pool.record(endpoint, Sample(1, 2, 0.5, 16, None))
    clock.advance(5.0)
    pool.record(endpoint, Sample(waiting=3, num_blocks=1000))
    pool.apply([spec(1), spec(2)])  # the table grows
    seen = pool.candidates()
    ages = {signal.name: seen.signal_age_s(signal).tolist() for signal in Signal}
    assert ages == {
        "WAITING": [0, np.inf],
        "RUNNING": [5, np.inf],
        "KV_UTILIZATION": [5, np.inf],
        "CACHE_CONFIG": [0, np.inf],
        "LORA": [np.inf, np.inf],
    }
    pool.apply([spec(1, incarnation="another"), spec(2)])
    assert pool.candidates().signal_age_s(Signal.WAITING).tolist() == [np.inf, np.inf], "a new life knows nothing"


def test_a_lease_gives_back_once_and_its_tokens_early() -> None:
    pool = Pool(FakeClock())
    pool.apply([spec(1)])
    lease = pool.charge(pool.candidates()[0], 99.6)
    assert (pool.candidates().in_flight_requests[0], pool.candidates().in_flight_tokens[0]) == (1, 100)
    lease.first_byte()
    lease.first_byte()
    assert (pool.candidates().in_flight_requests[0], pool.candidates().in_flight_tokens[0]) == (1, 0)
    lease.release()
    lease.release()
    assert (pool.candidates().in_flight_requests[0], pool.candidates().in_flight_tokens[0]) == (0, 0)


@pytest.mark.parametrize(("hint", "found"), [
    ("10.0.0.1", ["a", "a2"]),
    ("10.0.0.1:8000", ["a"]),
    (" 10.0.0.1:8001 ", ["a2"]),
    ("10.0.0.1:9999", []),
    ("fd00::1", ["six"]),
    ("[fd00::1]", ["six"]),
    ("[fd00::1]:8000", ["six"]),
    ("", []),
    ("nonsense", []),
])  # fmt: skip
def test_subset_hints_name_an_ip_or_an_address(hint: str, found: list[str]) -> None:
    pool = Pool(FakeClock())
    pool.apply([
        EndpointSpec("ns", "a", "10.0.0.1", 8000),
        EndpointSpec("ns", "a2", "10.0.0.1", 8001),
        EndpointSpec("ns", "six", "fd00::1", 8000),
    ])  # fmt: skip
    assert sorted(e.name for e in pool.subset([hint])) == found
    assert len(pool.subset([hint, hint])) == len(found), "named twice is there once"


def test_a_suspect_is_no_candidate_while_another_endpoint_is_there() -> None:
    clock = FakeClock()
    pool = Pool(clock)
    pool.apply([spec(1), spec(2)])
    first, second = pool.candidates()
    pool.suspect(first)
    assert [e.name for e in pool.candidates()] == [e.name for e in pool.subset(["10.0.0.1", "10.0.0.2"])] == ["pod-2"]
    assert [e.name for e in pool.subset(["10.0.0.1"])] == ["pod-1"], "nobody else is in the subset"
    pool.suspect(second)
    assert len(pool.candidates()) == 2, "a suspect is better than nobody"
    assert pool.record(first, Sample(waiting=1))
    assert [e.name for e in pool.candidates()] == ["pod-1"], "a good scrape clears it"
    clock.advance(SUSPECT_S)
    assert len(pool.candidates()) == 2, "a suspicion that nothing confirms ends"


def test_a_suspicion_does_not_outlive_the_endpoint() -> None:
    pool = Pool(FakeClock())
    pool.apply([spec(1), spec(2)])
    old = pool.candidates()[0]
    pool.suspect(old)
    pool.apply([spec(1, incarnation="new"), spec(2)])
    assert len(pool.candidates()) == 2
    pool.suspect(old)
    assert len(pool.candidates()) == 2, "late news of a past life"


def test_the_table_grows_and_rows_keep_their_values() -> None:
    pool = Pool(FakeClock(), capacity=2)
    pool.apply([spec(n) for n in range(1, 100)])
    by_name = {e.name: e for e in pool.candidates()}
    for name, endpoint in by_name.items():
        pool.record(endpoint, Sample(waiting=float(name.split("-")[1])))
    pool.apply([spec(n) for n in range(1, 200)])
    seen = pool.candidates()
    waiting = {e.name: w for e, w in zip(seen, seen.waiting.tolist(), strict=True)}
    assert waiting == {f"pod-{n}": (n if n < 100 else 0) for n in range(1, 200)}


class PoolMachine(RuleBasedStateMachine):
    """Endpoints come and go under requests that start and end; the sums must be the open leases of living ones."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(FakeClock(), capacity=2)
        self.pool.apply([])
        self.open: list[tuple[Lease, float]] = []

    @rule(
        present=st.sets(st.integers(1, 6)), unready=st.sets(st.integers(1, 6)), incarnation=st.sampled_from(["", "b"])
    )
    def membership(self, present: set[int], unready: set[int], incarnation: str) -> None:
        self.pool.apply(
            [spec(n, incarnation=incarnation if n == 3 else "", ready=n not in unready) for n in sorted(present)]
        )
        assert {e.name for e in self.pool.candidates()} == {f"pod-{n}" for n in present - unready}

    @rule(position=st.integers(0, 10), tokens=st.floats(0, 1e6))
    def start(self, position: int, tokens: float) -> None:
        candidates = self.pool.candidates()
        if len(candidates):
            lease = self.pool.charge(candidates[position % len(candidates)], tokens)
            self.open.append((lease, round(tokens)))

    @rule(position=st.integers(0, 100))
    def first_byte(self, position: int) -> None:
        if self.open:
            lease, _ = self.open[position % len(self.open)]
            lease.first_byte()
            self.open[position % len(self.open)] = (lease, 0)

    @rule(position=st.integers(0, 100))
    def end(self, position: int) -> None:
        if self.open:
            lease, _ = self.open.pop(position % len(self.open))
            lease.release()
            lease.release()

    @invariant()
    def sums_are_the_open_leases(self) -> None:
        columns = self.pool.columns
        for endpoint in filter(None, columns.endpoints):
            mine = [tokens for lease, tokens in self.open if lease.endpoint.generation == endpoint.generation]
            assert columns.in_flight_requests[endpoint.row] == len(mine)
            assert columns.in_flight_tokens[endpoint.row] == sum(mine)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
