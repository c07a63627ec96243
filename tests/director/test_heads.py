# SPDX-License-Identifier: Apache-2.0
"""Headers that plugins set on responses, and that nobody pays for who has no such plugin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from epp.api import Decision, InferenceRequest, ResponseHead
from epp.director import Settings
from epp.director.headers import WENT_INTO_RESPONSE
from epp.director.plan import Plan
from epp.extproc import End, Route
from epp.scheduling.guard import BENCH_AFTER, Guarded
from tests.director.test_life import Bench

Added = Mapping[str, str] | Exception


class Hook:
    """Sets the same headers on every response."""

    def __init__(self, added: Added) -> None:
        self.added = added
        self.told: list[tuple[InferenceRequest, Decision, ResponseHead]] = []

    def on_response_headers(
        self, request: InferenceRequest, decision: Decision, response: ResponseHead
    ) -> Mapping[str, str]:
        self.told.append((request, decision, response))
        if isinstance(self.added, Exception):
            raise self.added
        return self.added


def bench_with(*hooks: Hook, settings: Settings | None = None) -> Bench:
    bench = Bench(endpoints=1, settings=settings)
    guarded = [Guarded(f"hook-{number}", hook, bench.clock) for number, hook in enumerate(hooks)]
    bench.plan = bench.director.plan = replaced(bench.plan, plugins=guarded)
    return bench


def replaced(plan: Plan, **fields: Any) -> Plan:
    return replace(plan, **fields)


def answered(bench: Bench, headers: dict[str, str] | None = None, metadata: dict[str, Any] | None = None) -> list[Any]:
    life, route = bench.ask()
    assert route.take_metadata is not None
    if metadata is not None:
        route.take_metadata(metadata)
    told = list(life.response_headers(headers or {":status": "200"}, True))
    life.closed(End.COMPLETE)
    return told


def test_a_plan_without_hooks_asks_for_nothing_and_answers_with_one_object() -> None:
    bench = Bench(endpoints=1)
    assert bench.plan.response_hooks == ()
    life, route = bench.ask()
    assert (route.reused, route.take_metadata) == (True, None)
    assert life.response_headers({":status": "200"}, True) is WENT_INTO_RESPONSE


def test_hooks_see_the_head_and_set_headers() -> None:
    first, second = Hook({"X-One": "1", "x-two": ""}), Hook({"x-three": "gr\u00fcn"})
    bench = bench_with(first, second)
    told = answered(bench, {":status": "503", "x-a": "b"}, {"envoy.lb": {"k": "v"}})
    assert told == [*WENT_INTO_RESPONSE, ("x-one", b"1"), ("x-two", b""), ("x-three", "gr\u00fcn".encode())]
    [(request, decision, head)] = first.told
    assert (request.request_id, decision) == ("id-1", bench.routed[0])
    assert head == ResponseHead(503, {":status": "503", "x-a": "b"}, {"envoy.lb": {"k": "v"}})


def test_without_metadata_a_hook_sees_none() -> None:
    hook = Hook({})
    assert answered(bench_with(hook), {":status": "x"}) == list(WENT_INTO_RESPONSE)
    assert hook.told[0][2] == ResponseHead(None, {":status": "x"}, {})


def test_hooks_come_before_the_decision_and_after_the_echo() -> None:
    settings = Settings(echo_headers=True, emit_decision=True)
    told = answered(bench_with(Hook({"x-one": "1"}), settings=settings), {":status": "200", "x-a": "b"})
    assert [name for name, _ in told] == ["x-went-into-resp-headers", ":status", "x-a", "x-one", "x-epp-decision"]


@pytest.mark.parametrize(
    "added",
    [
        RuntimeError("boom"),
        {"x-good": "1", ":status": "200"},
        {"x-good": "1", "bad name": "1"},
        {"x-good": "1", "": "1"},
        {"x-good": "1", "x-b": "a\r\nx-evil: 1"},
        {"x-good": "1", "x-b": "\0"},
        {"x-b": 7},
        None,
    ],
    ids=str,
)
def test_a_hook_that_fails_sets_nothing_and_disturbs_nobody(added: Any) -> None:
    bad = Hook(added)
    bench = bench_with(bad, Hook({"x-one": "1"}))
    assert answered(bench) == [*WENT_INTO_RESPONSE, ("x-one", b"1")]
    assert bench.plan.plugins[0].errors == 1
    for _ in range(BENCH_AFTER + 3):
        answered(bench)
    assert len(bad.told) == BENCH_AFTER, "it is benched"
    assert bench.plan.plugins[1].errors == 0


def test_a_hook_that_recovers_is_forgiven() -> None:
    hook = Hook(RuntimeError("boom"))
    bench = bench_with(hook)
    for _ in range(BENCH_AFTER - 1):
        answered(bench)
    hook.added = {"x-one": "1"}
    assert answered(bench)[1:] == [("x-one", b"1")]
    assert bench.plan.plugins[0].failing == 0


def test_a_refused_request_asks_for_no_metadata() -> None:
    bench = bench_with(Hook({}))
    bench.pool.apply([])
    _, outcome = bench.ask()
    assert not isinstance(outcome, Route)
