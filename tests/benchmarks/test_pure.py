# SPDX-License-Identifier: Apache-2.0
"""The parts of the harness that need no stack: verdicts, the table, /proc, the readers of both ends of the line."""

from __future__ import annotations

import math
import os
from itertools import islice

import orjson
import pytest

from benchmarks import decision, load, proc, proxied, upstream, wrk
from benchmarks.__main__ import NAMES, _rows
from benchmarks.legs import Leg
from benchmarks.report import cpu_model, machine_facts, number, table
from benchmarks.rows import Row
from epp.requests.parser import Parser


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("r", "", 59.0, "us", budget=60.0), "ok"),
        (Row("r", "", 61.0, "us", budget=60.0), "over"),
        (Row("r", "", 61.0, "us"), "-"),
        (Row("r", "", 30.0, "us", 100.0, "echo", 0.30, relative=True), "ok"),
        (Row("r", "", 31.0, "us", 100.0, "echo", 0.30, relative=True), "over"),
        (Row("r", "", 0.1, "us", None, "echo", 0.30, relative=True), "over"),
        (Row("r", "", math.nan, "us", 100.0, "echo", 0.30, relative=True), "over"),
    ],
)
def test_a_budget_bounds_the_ratio_or_the_value(row: Row, verdict: str) -> None:
    assert row.verdict == verdict


def test_the_table_is_aligned_and_says_each_budget_in_its_own_terms() -> None:
    rows = [
        Row("request", "TLS", 214.4, "us", 1430.0, "echo", 0.30, relative=True),
        Row("decision", "1,000 endpoints", 59.36, "us", 360.0, "loop", 150.0),
        Row("start", "first", 2.81, "s"),
    ]
    assert table(rows) == (
        "row       case             measured  reference        ratio  budget     verdict\n"
        "request   TLS                214 us   1,430 us  echo  0.150  <= 0.30 x  ok\n"
        "decision  1,000 endpoints   59.4 us     360 us  loop  0.165  <= 150 us  ok\n"
        "start     first              2.81 s                                     -"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(14_300.4, "14,300 us"), (143.4, "143 us"), (14.34, "14.3 us"), (1.434, "1.43 us"), (0.01434, "0.0143 us")],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert number(value, "us") == text


def test_json_holds_what_the_table_says() -> None:
    told = Row("chunk", "TLS", 30.0, "us", 100.0, "echo", 0.25, relative=True, details={"cores": 0.4}).as_json()
    assert (told["ratio"], told["verdict"], told["details"]) == (0.3, "over", {"cores": 0.4})
    assert orjson.loads(orjson.dumps(told)) == told


def test_stat_is_read_past_a_name_with_parentheses_and_blanks() -> None:
    stat = "4242 (a) b (c) S 1 4242 4242 0 -1 4194304 9 8 7 6 123 45 3 2 20 0 5 0 9 1 2"
    assert proc.parse_stat(stat) == 168


def test_resident_memory_is_in_bytes() -> None:
    assert proc.parse_resident("Name:\tpython\nVmHWM:\t  9999 kB\nVmRSS:\t   57900 kB\n") == 57_900 * 1024
    with pytest.raises(ValueError, match="VmRSS"):
        proc.parse_resident("Name:\tzombie\nState:\tZ (zombie)\n")


def test_this_process_uses_cpu_and_memory() -> None:
    before_s = proc.cpu_s(os.getpid())
    while proc.cpu_s(os.getpid()) == before_s:
        sum(range(10_000))
    assert proc.resident_bytes(os.getpid()) > 1 << 20


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(ProcessLookupError):
        proc.cpu_s(2**22 + 1)


def test_the_cost_of_a_chunk_is_the_slope_between_two_legs() -> None:
    plain = Leg(streams=1000, messages=6000, cpu_s=0.2, wall_s=1.0, clients={})
    streamed = Leg(streams=50, messages=5300, cpu_s=0.15, wall_s=1.0, clients={})
    # (3000 us - 200 us) / (106 - 6 messages)
    assert proxied.cpu_us_per_chunk(plain, streamed) == pytest.approx(28.0)


def test_facts_name_the_machine() -> None:
    assert cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 9B14\n") == "AMD EPYC 9B14"
    facts = machine_facts()
    assert facts["cores"] >= 1
    assert "not installed" not in facts["packages"].values()


def test_unknown_rows_are_refused_by_name() -> None:
    assert _rows("request,decision") == ("request", "decision")
    with pytest.raises(Exception, match=f"'nothing' is no row; allowed: {', '.join(NAMES)}"):
        _rows("nothing")


@pytest.mark.parametrize("stream", [False, True])
def test_every_request_is_a_chat_of_9_kilobytes_that_shares_60_percent(stream: bool) -> None:
    requests = list(islice(load.messages(8080, 8 if stream else 0, 5), load.SYSTEM_PROMPTS + 1))
    bodies = []
    for request in requests:
        head, _, body = request.partition(b"\r\n\r\n")
        assert b"content-length: %d" % len(body) in head
        assert (b"x-chunks: 8" in head) == stream
        parsed = Parser().parse("/v1/chat/completions", body)
        assert (parsed.model, parsed.stream, abs(len(body) - load.BODY_BYTES) < 50) == ("bench", stream, True)
        bodies.append(body)
    first, again = bodies[0], bodies[load.SYSTEM_PROMPTS]
    shared = next(place for place, (one, other) in enumerate(zip(first, again, strict=True)) if one != other)
    assert 0.55 < shared / len(first) < 0.65
    assert len(set(bodies)) == len(bodies)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n0\r\n\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
SIZED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello"


@pytest.mark.parametrize(("raw", "status"), [(CHUNKED, 200), (SIZED, 503)])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_answer_ends_with_its_last_byte(raw: bytes, status: int, size: int) -> None:
    # Cut so that "0\r\n\r\n" inside the body never ends a piece: see the class.
    answer = load.Answer()
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    if size == 1 and raw is CHUNKED:
        pieces = [raw[:50], raw[50:]]
    assert [answer.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert answer.status == status


def test_the_pods_wait_for_the_whole_request() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    assert not upstream.whole_body(head)
    assert upstream.whole_body(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not upstream.whole_body(head + b"content-length: 3\r\n\r\nab")
    assert upstream.whole_body(head + b"Content-Length: 3\r\n\r\nabc")
    assert not upstream.whole_body(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert upstream.whole_body(head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert upstream.header(b"post / http/1.1\r\nx-chunks: 12\r\nhost: x", b"x-chunks") == b"12"


WRK = """Running 3s test @ http://127.0.0.1:8080/
  1 threads and 32 connections
  Latency Distribution
     50%    1.25ms
     75%    2.00ms
     99%   12.50ms
  4321 requests in 3.01s, 2.00MB read
  Socket errors: connect 0, read 2, write 0, timeout 1
  Non-2xx or 3xx responses: 4
Requests/sec:   1435.55
"""


def test_the_report_of_wrk_is_read() -> None:
    told = wrk.figures(WRK)
    assert told == {"requests": 4321, "seconds": 3.01, "failures": 7, "p50_ms": 1.25, "p99_ms": 12.5}
    with pytest.raises(ValueError, match="no total"):
        wrk.figures("unable to connect")


def test_wrk_gets_the_same_bodies() -> None:
    script = wrk.lua([(b'{"a":"', b'"}')], {"x-chunks": "3"})
    assert 'parts = {{[==[{"a":"]==],[==["}]==]}}' in script
    assert '["x-chunks"]="3"' in script


def test_the_plain_loop_chooses_as_the_scheduler_does() -> None:
    rows = decision.run({8: 1e9}, turns=1)
    assert [row.name for row in rows] == ["decision"]
    assert rows[0].verdict == "ok"
