# SPDX-License-Identifier: Apache-2.0
"""How the end of an unwatched request becomes known, in each of the ways, on a virtual clock."""

from __future__ import annotations

import pytest

from epp.contract.requests import Cause
from epp.director.estimate import DEFAULT_FIRST_BYTE_S, DEFAULT_TOKEN_S, DEFAULT_TOKENS
from epp.director.held import TICK_S
from epp.director.unwatched import (
    ARRIVAL_S,
    BACKSTOP_LEAST_S,
    LOG_LAG_S,
    LOG_LOST_S,
    PATIENCE_S,
    Source,
)
from tests.director.unwatched_bench import Bench

ESTIMATE_S = DEFAULT_FIRST_BYTE_S + DEFAULT_TOKENS * DEFAULT_TOKEN_S


def reporting(bench: Bench) -> None:
    """An access log is connected and has told of one of ours."""
    bench.unwatched.log_streams(1)
    bench.hold("first")
    assert bench.log("first")
    assert bench.unwatched.reporting


def test_the_log_tells_how_it_ended() -> None:
    bench = Bench()
    bench.hold("a", 1)
    assert bench.in_flight() == [0, 1]
    assert bench.log("a", 1, status=200, duration_s=2.5, first_byte_s=0.25, response_bytes=77)
    assert bench.in_flight() == bench.tokens() == [0, 0]
    [(source, completion)] = bench.told["a"]
    assert source == "log"
    assert (completion.cause, completion.reached_endpoint, completion.status) == (Cause.COMPLETE, True, 200)
    assert (completion.duration_s, completion.first_byte_s, completion.response_bytes) == (2.5, 0.25, 77)
    assert bench.done == ["a"]
    assert not bench.log("a", 1)
    assert len(bench.told["a"]) == 1


def test_a_request_that_never_reached_its_endpoint_says_so_and_makes_it_suspect() -> None:
    bench = Bench()
    bench.hold("a", 0)
    assert len(bench.pool.candidates()) == 2
    assert bench.log("a", 0, Cause.ERROR, reached=False, unreachable=True, status=503)
    [(_, completion)] = bench.told["a"]
    assert not completion.reached_endpoint
    assert [e.name for e in bench.pool.candidates()] == ["pod-1"]


def test_equal_ids_are_told_apart_by_endpoint_then_by_age() -> None:
    bench = Bench()
    bench.hold("same", 0)
    bench.hold("same", 1)
    bench.hold("same", 1)
    assert bench.log("same", 1)
    assert bench.in_flight() == [1, 1]
    assert bench.log("same", 1)
    assert not bench.log("same", 1)
    assert bench.in_flight() == [1, 0]
    assert bench.log("same", 0)
    assert bench.in_flight() == [0, 0]


def test_an_address_of_no_endpoint_does_not_tell_them_apart() -> None:
    bench = Bench()
    bench.hold("a", 0)
    bench.hold("b", 1)
    assert bench.log("a", "")
    assert bench.log("b", "127.0.0.1:15001")
    assert bench.in_flight() == [0, 0]


def test_entries_of_others_are_ignored() -> None:
    bench = Bench()
    bench.hold("a", 0)
    assert not bench.log("unknown", 0)
    assert not bench.log("a", 1)
    assert bench.in_flight() == [1, 0]
    assert not bench.unwatched.reporting


def test_without_a_log_the_estimate_releases_tokens_first() -> None:
    bench = Bench()
    bench.hold("a", 0, tokens=100)
    bench.run(DEFAULT_FIRST_BYTE_S - TICK_S)
    assert (bench.tokens(), bench.in_flight()) == ([100, 0], [1, 0])
    bench.run(2 * TICK_S + 0.01)
    assert (bench.tokens(), bench.in_flight()) == ([0, 0], [1, 0])
    bench.run(ESTIMATE_S - DEFAULT_FIRST_BYTE_S - 2 * TICK_S)
    assert bench.in_flight() == [1, 0]
    bench.run(4 * TICK_S)
    assert bench.in_flight() == [0, 0]
    [(source, completion)] = bench.told["a"]
    assert source == "estimate"
    assert (completion.cause, completion.reached_endpoint, completion.usage) == (Cause.UNKNOWN, True, None)
    assert not bench.timers, "nothing ticks while nothing is held"


def test_the_prompt_is_not_kept_for_the_whole_generation() -> None:
    bench = Bench()
    held = bench.hold("a")
    assert held.request.prompts
    bench.run(DEFAULT_FIRST_BYTE_S + 2 * TICK_S)
    assert held.request.prompts == ()
    assert len(bench.unwatched) == 1


def test_max_output_tokens_shorten_the_estimate() -> None:
    bench = Bench()
    bench.hold("short", max_output_tokens=1)
    bench.hold("long")
    bench.run(DEFAULT_FIRST_BYTE_S + DEFAULT_TOKEN_S + 3 * TICK_S)
    assert bench.source("short") == "estimate"
    assert "long" not in bench.told


def test_an_answer_that_is_not_streamed_is_over_with_its_headers() -> None:
    bench = Bench()
    bench.hold("json", status=200, first_byte_s=1.0, streaming=False)
    bench.hold("events", status=200, first_byte_s=1.0, streaming=True)
    bench.run(3 * TICK_S)
    assert bench.source("json") == "estimate"
    assert "events" not in bench.told
    assert bench.told["json"][0][1].status == 200


def test_a_log_that_reports_leaves_the_estimate_as_a_backstop() -> None:
    bench = Bench()
    reporting(bench)
    bench.hold("a", 0)
    bench.run(BACKSTOP_LEAST_S - 1)
    assert bench.in_flight() == [1, 0]
    bench.run(2)
    assert bench.source("a") == "backstop"
    assert bench.unwatched.ends[Source.BACKSTOP] == 1


def test_a_connected_log_gets_a_chance_to_show_that_it_reports() -> None:
    bench = Bench()
    bench.unwatched.log_streams(1)
    bench.hold("a")
    bench.run(ESTIMATE_S + LOG_LAG_S / 2)
    assert bench.log("a")
    bench.hold("b")
    bench.run(ESTIMATE_S + LOG_LAG_S + 1)
    assert "b" not in bench.told


def test_when_the_log_is_gone_the_estimate_counts_again() -> None:
    bench = Bench()
    reporting(bench)
    bench.hold("a")
    bench.run(20)
    bench.unwatched.log_streams(0)
    bench.run(LOG_LOST_S / 2)
    assert bench.unwatched.reporting
    bench.run(LOG_LOST_S / 2 + 3 * TICK_S)
    assert not bench.unwatched.reporting
    assert bench.source("a") == "estimate"
    # It must show again that it reports.
    bench.unwatched.log_streams(2)
    assert not bench.unwatched.reporting


def test_a_log_that_reconnects_soon_is_still_trusted() -> None:
    bench = Bench()
    reporting(bench)
    bench.unwatched.log_streams(0)
    bench.run(LOG_LOST_S / 2)
    bench.unwatched.log_streams(1)
    bench.run(LOG_LOST_S * 2)
    assert bench.unwatched.reporting


def test_reconciliation_releases_the_oldest_surplus_and_never_more() -> None:
    bench = Bench()
    for n in range(5):
        bench.hold(f"r{n}", 0)
    bench.hold("elsewhere", 1)
    bench.run(ARRIVAL_S + 0.1)
    bench.sample(0, waiting=1, running=2)
    assert bench.in_flight() == [3, 1]
    assert sorted(bench.told) == ["r0", "r1"]
    assert bench.source("r0") == "reconciliation"
    bench.sample(0, waiting=0, running=3)
    bench.sample(0, waiting=4, running=9)
    assert bench.in_flight() == [3, 1]


def test_requests_that_may_not_have_arrived_are_no_surplus() -> None:
    bench = Bench()
    bench.hold("old", 0)
    bench.run(ARRIVAL_S + 0.1)
    for n in range(4):
        bench.hold(f"young-{n}", 0)
    bench.sample(0, waiting=0, running=1)
    assert bench.in_flight() == [5, 0]
    bench.sample(0, waiting=0, running=0)
    assert bench.source("old") == "reconciliation"
    assert bench.in_flight() == [4, 0]


@pytest.mark.parametrize(("waiting", "running"), [(None, 0.0), (0.0, None), (None, None)])
def test_a_page_that_does_not_say_both_counts_says_nothing(waiting: float | None, running: float | None) -> None:
    bench = Bench()
    bench.hold("a", 0)
    bench.run(ARRIVAL_S + 1)
    bench.sample(0, waiting, running)
    assert bench.in_flight() == [1, 0]


def test_while_a_log_reports_a_surplus_must_last() -> None:
    bench = Bench()
    reporting(bench)
    for n in range(3):
        bench.hold(f"r{n}", 0)
    bench.run(ARRIVAL_S + 0.1)
    bench.sample(0, 0, 0)
    bench.run(PATIENCE_S - 1)
    bench.sample(0, 0, 1)
    assert bench.in_flight() == [3, 0]
    bench.run(1.5)
    bench.sample(0, 0, 0)
    assert bench.in_flight() == [1, 0], "the least surplus of that time"
    bench.sample(0, 0, 1)
    bench.run(PATIENCE_S + 1)
    bench.sample(0, 0, 0)
    assert bench.in_flight() == [1, 0], "a surplus that begins again must last again"


def test_drift_is_what_we_hold_minus_what_is_there() -> None:
    bench = Bench()
    for n in range(3):
        bench.hold(f"r{n}", 0)
    bench.sample(0, waiting=1, running=6)
    assert bench.unwatched.drift == {"default/pod-0": -4.0}
    bench.run(ARRIVAL_S + 0.1)
    bench.sample(0, waiting=0, running=1)
    assert bench.unwatched.drift == {"default/pod-0": 0.0}
    bench.apply(0)
    assert bench.unwatched.drift == {}


def test_an_endpoint_that_leaves_takes_its_requests_along() -> None:
    bench = Bench()
    bench.hold("a", 0)
    bench.hold("b", 1)
    bench.apply(1)
    bench.apply(2)
    assert bench.source("b") == "removal"
    assert bench.in_flight() == [1, 0]
    assert not bench.log("b", 1)


def test_the_table_is_bounded() -> None:
    bench = Bench(most_held=3)
    for n in range(5):
        bench.hold(f"r{n}", 0)
    assert len(bench.unwatched) == 3
    assert (bench.source("r0"), bench.source("r1")) == ("overflow", "overflow")
    assert bench.in_flight() == [3, 0]


def test_a_hook_that_raises_keeps_nobody_from_knowing() -> None:
    bench = Bench()
    bench.hold("a", 0)
    bench.hold("b", 0)

    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    bench.on_done = broken  # type: ignore[method-assign]
    bench.run(ESTIMATE_S + 3 * TICK_S)
    assert (bench.source("a"), bench.source("b"), bench.in_flight()) == ("estimate", "estimate", [0, 0])
    assert bench.hooks[0].errors == 2


def test_many_requests_with_one_id_end_in_order() -> None:
    bench = Bench()
    for _ in range(2000):
        bench.hold("constant", 1)
    for left in range(1999, -1, -1):
        assert bench.log("constant", 1)
        assert bench.in_flight() == [0, left]
