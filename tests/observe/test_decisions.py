# SPDX-License-Identifier: Apache-2.0
"""The ring of the last decisions: order, number, memory."""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.contract.decision import Decision, FilterTrace, ProfileResult, ScoreTrace
from epp.contract.endpoints import Endpoints
from epp.contract.requests import Cause, Completion, Usage
from epp.contract.snapshot import snapshot
from epp.observe.decision.record import Record
from epp.observe.decision.ring import DecisionRing, estimate_bytes

Decide = Callable[..., Decision]


def record(decision: Decision) -> Record:
    return Record(decision, 1.0, 1.001, 0.0005, 12.0)


def ids(records: list[Record]) -> list[str]:
    return [record.decision.request_id for record in records]


def test_newest_first_and_bounded_in_number(decide: Decide) -> None:
    ring = DecisionRing(max_records=3)
    for number in range(5):
        ring.add(record(decide(request_id=f"r{number}")))
    assert ids(ring.last(10)) == ["r4", "r3", "r2"]
    assert ids(ring.last(2)) == ["r4", "r3"]
    assert ring.last(0) == []
    assert ring.last(-1) == []
    assert len(ring) == 3


def test_find_gives_the_newest_of_a_request_id(decide: Decide) -> None:
    ring = DecisionRing(max_records=10)
    for model in ("first", "second"):
        ring.add(record(decide(request_id="same", model=model)))
    ring.add(record(decide(request_id="other")))
    assert [found.decision.model for found in ring.find("same")] == ["second"]
    assert [found.decision.model for found in ring.find("same", 9)] == ["second", "first"]
    assert ring.find("nobody") == []


def test_a_decision_too_large_for_the_ring_is_not_kept(decide: Decide) -> None:
    ring = DecisionRing(max_records=10, max_bytes=20_000)
    ring.add(record(decide(request_id="small")))
    ring.add(record(decide(request_id="huge", model="m" * 50_000)))
    assert ids(ring.last(5)) == ["small"]


def test_the_oldest_leave_first_when_the_ring_has_come_round(decide: Decide) -> None:
    ring = DecisionRing(max_records=3, max_bytes=23_000)
    for number in range(4):
        ring.add(record(decide(request_id=f"r{number}")))
    ring.add(record(decide(request_id="big", model="m" * 7_500)))
    assert ids(ring.last(9)) == ["big", "r3", "r2"]
    ring.add(record(decide(request_id="bigger", model="m" * 9_000)))
    assert ids(ring.last(9)) == ["bigger"]
    assert ring.bytes == estimate_bytes(ring.last(1)[0]) + 2 * 8


@settings(deadline=None)
@given(st.lists(st.integers(1, 3000), max_size=60), st.integers(1, 12), st.integers(8_000, 30_000))
def test_it_holds_as_many_of_the_newest_as_fit(
    decide: Decide, sizes: list[int], max_records: int, max_bytes: int
) -> None:
    ring = DecisionRing(max_records, max_bytes)
    template = decide().result.endpoints
    expected: deque[tuple[str, int]] = deque()
    for number, size in enumerate(sizes):
        decision = decide(endpoints=template, request_id=str(number), model="m" * size)
        ring.add(record(decision))
        # The first decision also pays for the membership that all share: two endpoints.
        expected.append((str(number), estimate_bytes(record(decision)) + (16 if number == 0 else 0)))
        while len(expected) > max_records or sum(size for _, size in expected) > max_bytes:
            expected.popleft()
        assert ids(ring.last(100)) == [name for name, _ in reversed(expected)]
        assert ring.bytes == sum(size for _, size in expected) <= max_bytes
        assert len(ring) == len(expected)


@pytest.mark.parametrize(("candidates", "scorers"), [(4, 2), (100, 3), (1000, 3)])
def test_memory_stays_near_the_bound(endpoints: Callable[..., Endpoints], candidates: int, scorers: int) -> None:
    max_bytes = 1 << 20
    ring = DecisionRing(max_records=2000, max_bytes=max_bytes)
    columns = endpoints(candidates).columns

    def decision(number: int) -> Decision:
        scores = tuple(ScoreTrace("scorer", 1.0, np.zeros(candidates)) for _ in range(scorers))
        result = ProfileResult(
            "default",
            Endpoints(columns, np.arange(candidates), float(number)),
            (FilterTrace("filter", candidates, np.arange(candidates // 2)),),
            scores,
            np.zeros(candidates),
            (number % candidates,),
        )
        known = snapshot(result.endpoints)
        name = f"model-{number:012d}"
        return Decision(f"{number:036d}", name, "t", "default", {"default": result}, candidates, 0.5, known)

    def ended(number: int) -> Record:
        one = record(decision(number))
        usage = Usage(number + 300, number + 400, number + 500)
        one.completion = Completion(Cause.COMPLETE, True, 200, usage, number / 7, number / 9, number + 1000)
        return one

    ring.add(ended(0))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            ring.add(ended(number))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.5 * max_bytes < used < 1.1 * max_bytes, used / max_bytes


def test_changed_membership_is_paid_for(decide: Decide, endpoints: Callable[..., Endpoints]) -> None:
    ring = DecisionRing()
    small, large = endpoints(2), endpoints(1000)
    one = record(decide(endpoints=small))
    ring.add(one)
    ring.add(one)
    assert ring.bytes == 2 * estimate_bytes(one) + 2 * 8
    other = record(decide(endpoints=large))
    ring.add(other)
    assert ring.bytes == 2 * estimate_bytes(one) + 2 * 8 + estimate_bytes(other) + 1000 * 8
