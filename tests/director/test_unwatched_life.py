# SPDX-License-Identifier: Apache-2.0
"""A request's life when the plan wants less than the whole response."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from epp.accesslog import Ended
from epp.contract.requests import Cause
from epp.director.estimate import FIRST
from epp.extproc import BodyMode, End, Route, Watch
from tests.director.test_life import CHAT, Bench, http

STREAM = {":status": "200", "content-type": "text/event-stream"}


def bench_with(watch: Watch, learned: bool = True) -> Bench:
    """A bench whose plan wants `watch`; unless told otherwise, the first requests, which are watched, are over."""
    bench = Bench(endpoints=1)
    bench.pool.subscribe(bench.unwatched)
    bench.director.plan = replace(bench.plan, watch=watch)
    for _ in range(FIRST if learned else 0):
        life, outcome = asked(bench)
        assert outcome.watch is Watch.BODY
        life.response_headers(STREAM, False)
        life.response_body(b"data: {}\n\n", False)
        life.closed(End.COMPLETE)
    bench.done.clear()
    return bench


def asked(bench: Bench, **changes: Any) -> tuple[Any, Route]:
    life = bench.director.open()
    request = http(changes.pop("body", CHAT))
    outcome = life.request(msgspec.structs.replace(request, **changes))
    assert isinstance(outcome, Route)
    return life, outcome


def entry(bench: Bench, **changes: Any) -> Ended:
    fields: dict[str, Any] = {
        "request_id": "id-1", "address": bench.routed[-1].target.address, "cause": Cause.COMPLETE, "reached": True,
        "unreachable": False, "status": 200, "duration_s": 3.0, "first_byte_s": 0.1, "response_bytes": 4321,
    }  # fmt: skip
    return Ended(**{**fields, **changes})


def test_a_released_request_stays_booked_until_the_log_tells() -> None:
    bench = bench_with(Watch.NOTHING)
    life, route = asked(bench)
    assert route.watch is Watch.NOTHING
    life.closed(End.UNWATCHED)
    assert (bench.in_flight(), bench.done) == ([1], [])
    assert bench.unwatched.ended(entry(bench))
    assert bench.in_flight() == [0]
    [completion] = bench.done
    assert (completion.duration_s, completion.response_bytes, completion.usage) == (3.0, 4321, None)


def test_the_answer_for_an_address_is_one_object_per_phase() -> None:
    bench = bench_with(Watch.NOTHING)
    first, second = asked(bench)[1], asked(bench)[1]
    assert first is second
    assert bench.director.route_to(bench.routed[-1].target.address) is not first


def test_an_answer_with_more_headers_has_the_phase_too() -> None:
    bench = bench_with(Watch.NOTHING)
    headers = {name: value for name, value in http().headers.items() if name != "x-request-id"}
    life, route = asked(bench, headers=headers)
    assert route.watch is Watch.NOTHING
    life.closed(End.UNWATCHED)
    assert bench.unwatched.ended(entry(bench, request_id="made-id"))


def test_the_headers_phase_gives_the_tokens_back_at_the_headers() -> None:
    bench = bench_with(Watch.HEADERS)
    life, route = asked(bench)
    assert route.watch is Watch.HEADERS
    life.response_headers(STREAM, False)
    assert bench.pool.candidates().in_flight_tokens[0] == 0
    life.closed(End.UNWATCHED)
    assert bench.in_flight() == [1]
    assert bench.unwatched.ended(entry(bench))
    assert bench.in_flight() == [0]


def test_an_error_is_over_with_its_headers() -> None:
    bench = bench_with(Watch.HEADERS)
    life, _ = asked(bench)
    life.response_headers({":status": "500", "content-type": "application/json"}, False)
    life.closed(End.UNWATCHED)
    assert bench.in_flight() == [0]
    assert [(c.status, c.cause) for c in bench.done] == [(500, Cause.COMPLETE)]


@pytest.mark.parametrize("wanted", [Watch.NOTHING, Watch.HEADERS])
def test_a_response_that_passes_by_anyway_is_watched(wanted: Watch) -> None:
    bench = bench_with(wanted)
    asked_for: list[Watch] = []
    assert asked(bench, can_end=lambda watch: bool(asked_for.append(watch)))[1].watch is Watch.BODY
    assert asked_for == [wanted]
    assert asked(bench)[1].watch is wanted


def test_the_first_requests_of_a_model_are_watched_and_teach() -> None:
    bench = bench_with(Watch.NOTHING, learned=False)
    for _ in range(FIRST):
        life, route = asked(bench)
        assert route.watch is Watch.BODY
        bench.clock.advance(2.0)
        life.response_headers(STREAM, False)
        life.response_body(b'data: {"usage":{"completion_tokens":4}}\n\n', False)
        bench.clock.advance(4.0)
        life.closed(End.COMPLETE)
    life, route = asked(bench)
    assert route.watch is Watch.NOTHING
    life.closed(End.UNWATCHED)
    [held] = bench.unwatched._table
    assert held.estimated_s - held.since_s == pytest.approx(6.0)


def test_in_modes_that_hide_the_response_the_request_stays_booked_too() -> None:
    bench = Bench(endpoints=1)
    life, route = asked(bench, mode=BodyMode.NONE, response_mode=BodyMode.NONE, body=None)
    assert route.watch is Watch.BODY
    life.closed(End.UNWATCHED)
    assert bench.in_flight() == [1]
    assert bench.unwatched.ended(entry(bench))
    assert bench.in_flight() == [0]


def test_running_requests_are_counted_until_their_end_is_known() -> None:
    bench = bench_with(Watch.NOTHING)
    life, _ = asked(bench)
    life.closed(End.UNWATCHED)
    [series] = bench.recorder.metrics._table.all()
    assert series.running == 1
    before = sum(series.duration.counts)
    bench.unwatched.ended(entry(bench))
    assert (series.running, sum(series.duration.counts) - before) == (0, 1)
    life, _ = asked(bench)
    life.closed(End.UNWATCHED)
    bench.pool.apply([])
    assert series.running == 0
    assert sum(series.duration.counts) - before == 1, "no duration is made up"


def test_a_server_error_in_the_log_counts_as_one() -> None:
    bench = bench_with(Watch.NOTHING)
    life, _ = asked(bench)
    life.closed(End.UNWATCHED)
    bench.unwatched.ended(entry(bench, status=502, cause=Cause.ERROR, reached=False))
    [series] = bench.recorder.metrics._table.all()
    assert series.errors == {"ModelServerError": 1}
    assert not bench.done[-1].reached_endpoint, "a prefix that was recorded for it is taken back"
