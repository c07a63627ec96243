# SPDX-License-Identifier: Apache-2.0
"""What else Envoy's filter can be told, and its limits: what is skipped, what is too long or too slow, what Envoy
answers by itself, what it only shows. Each test ends with nothing left open and nothing charged."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from epp.extproc import End
from epp.local.envoy import EnvoyConfig, bootstrap
from tests.e2e.matrix_bench import BUFFER_BYTES, MODES, Bench, Run, ext_proc, running
from tests.e2e.matrix_parts import BIG, EVENTS, PLAIN
from tests.e2e.stack import envoy_binary

pytestmark = pytest.mark.envoy

NONE, STREAMED, BUFFERED, PARTIAL, DUPLEX = MODES
SMALL = b'{"pod": 1, "x": "' + b"a" * 1000 + b'"}'
MIDDLE = b'{"pod": 1, "x": "' + b"a" * 600_000 + b'"}'
TEN_MB = b'{"pod": 1, "x": "' + b"a" * 10_000_000 + b'"}'
SSE = b"".join(EVENTS)
TRAILERS = [("x-t", "1")]
ANSWERED = {"grpc-status": "0", "x-sum": "6"}


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Bench, Run]]:
    with running() as both:
        yield both


@pytest.fixture
def bench(both: tuple[Bench, Run]) -> Iterator[Bench]:
    yield both[0]
    both[1](both[0].healthy())


@pytest.fixture
def run(both: tuple[Bench, Run]) -> Run:
    return both[1]


# What is skipped


@pytest.mark.parametrize(("mode", "end"), [
    # The last piece has no end, and the trailers are not shown: a client that left looks the same.
    (NONE, End.COMPLETE), (STREAMED, End.GONE), (BUFFERED, End.COMPLETE), (PARTIAL, End.COMPLETE),
])  # fmt: skip
def test_trailers_that_are_not_sent_to_us_reach_the_other_side(bench: Bench, run: Run, mode: str, end: End) -> None:
    answer, seen = run(bench.ask_h2((mode, mode, "no-trailers"), SMALL, TRAILERS))
    assert (answer.status, answer.complete, answer.trailers) == (200, True, ANSWERED)
    assert json.loads(answer.body) == {"trailers": {"x-t": "1"}}
    assert seen.end is end


@pytest.mark.parametrize("side", ["request", "response"])
def test_envoy_refuses_full_duplex_without_trailers(side: str) -> None:
    document = bootstrap(EnvoyConfig(port=0, epp_port=1, admin_port=0))
    ext_proc(document["static_resources"]["listeners"][0])["processing_mode"][f"{side}_trailer_mode"] = "SKIP"
    argv = [str(envoy_binary()), "--mode", "validate", "--log-level", "error", "--config-yaml", json.dumps(document)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"the {side}_trailer_mode has to be set to SEND" in done.stderr


@pytest.mark.parametrize(("response", "end"), [
    # Nothing of the response is shown: Envoy ends the stream, at once or at the response, as it likes.
    (NONE, End.UNWATCHED), (STREAMED, End.COMPLETE), (BUFFERED, End.COMPLETE), (PARTIAL, End.COMPLETE),
    (DUPLEX, End.COMPLETE),
])  # fmt: skip
@pytest.mark.parametrize("request_mode", [STREAMED, BUFFERED, DUPLEX])
def test_a_response_without_its_headers(bench: Bench, run: Run, request_mode: str, response: str, end: End) -> None:
    for variant in ("no-response-headers", "request-only") if response != DUPLEX else ("no-response-headers",):
        answer, seen = run(bench.ask("POST", (request_mode, response, variant), SMALL, do="sse"))
        assert (answer.status, answer.body, answer.complete) == (200, SSE, True)
        assert (seen.end, seen.response_headers, seen.body) == (end, [], b"" if response == NONE else SSE)


@pytest.mark.parametrize("watch", ["NOTHING", "HEADERS"])
@pytest.mark.parametrize("response", MODES)
def test_a_response_without_its_headers_that_is_not_watched(bench: Bench, run: Run, response: str, watch: str) -> None:
    modes = (BUFFERED, response, "no-response-headers")
    answer, seen = run(bench.ask("POST", modes, SMALL, do="sse", watch=watch))
    assert (answer.status, answer.body, answer.complete) == (200, SSE, True)
    assert (seen.end, seen.response_headers, seen.body) == (End.UNWATCHED, [], b"")


# What is too long


@pytest.mark.parametrize("response", MODES)
def test_a_request_over_the_buffer_is_answered_by_envoy(bench: Bench, run: Run, response: str) -> None:
    answer, seen = run(bench.ask("POST", (BUFFERED, response, "all"), TEN_MB))
    assert (answer.status, answer.body) == (413, b"Payload Too Large")
    assert (seen.requests, seen.end) == ([], End.GONE)


def test_a_request_over_the_partial_buffer_is_decided_on_its_beginning(bench: Bench, run: Run) -> None:
    answer, seen = run(bench.ask("POST", (PARTIAL, DUPLEX, "all"), MIDDLE))
    [request] = seen.requests
    assert (answer.status, answer.headers["x-pod"], answer.headers["x-size"]) == (200, "1", str(len(MIDDLE)))
    assert not request.body_complete
    assert request.body is not None
    assert BUFFER_BYTES <= len(request.body) < len(MIDDLE)
    assert MIDDLE.startswith(request.body)


def test_a_response_over_the_buffer_is_refused_by_envoy(bench: Bench, run: Run) -> None:
    answer, seen = run(bench.ask("POST", (STREAMED, BUFFERED, "all"), SMALL, do="huge"))
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert (len(seen.response_headers), seen.body, seen.end) == (1, b"", End.GONE)


@pytest.mark.parametrize("response", [NONE, STREAMED, PARTIAL, DUPLEX])
def test_a_response_over_the_buffer_passes_elsewhere(bench: Bench, run: Run, response: str) -> None:
    answer, seen = run(bench.ask("POST", (STREAMED, response, "all"), SMALL, do="huge"))
    assert (answer.status, answer.body == BIG * 2, answer.complete) == (200, True, True)
    assert seen.end is End.COMPLETE


# What is too slow


@pytest.mark.parametrize("mode", [NONE, STREAMED, BUFFERED, PARTIAL])
def test_a_decision_that_takes_too_long_is_cancelled(bench: Bench, run: Run, mode: str) -> None:
    answer, seen = run(bench.ask("POST", (mode, mode, "all", "impatient"), SMALL, wait="30"))
    assert (answer.status, answer.body) == (504, b"")
    assert seen.end is End.GONE


def test_envoy_does_not_time_a_full_duplex_stream(bench: Bench, run: Run) -> None:
    answer, seen = run(bench.ask("POST", (DUPLEX, DUPLEX, "all", "impatient"), SMALL, wait="0.3"))
    assert (answer.status, answer.body, seen.end) == (200, PLAIN, End.COMPLETE)


@pytest.mark.parametrize("listener", ["eager", "overriding"])
@pytest.mark.parametrize("mode", MODES)
def test_a_decision_that_is_waited_for(bench: Bench, run: Run, mode: str, listener: str) -> None:
    """Also where Envoy sends the body before it is answered, and where it would let us change its modes."""
    answer, seen = run(bench.ask("POST", (mode, mode, "all", listener), MIDDLE, do="sse", wait="0.02"))
    assert (answer.status, answer.body, answer.headers["x-size"]) == (200, SSE, str(len(MIDDLE)))
    assert seen.end is End.COMPLETE


# What Envoy answers by itself


@pytest.mark.parametrize("mode", MODES)
def test_what_another_filter_answers_before_us_passes_by(bench: Bench, run: Run, mode: str) -> None:
    before = bench.opened
    answer, seen = run(bench.ask("POST", (mode, mode, "all"), SMALL, **{"envoy-fault-abort-request": "429"}))
    assert (answer.status, answer.body) == (429, b"fault filter abort")
    assert bench.opened == before + 1, "Envoy shows us the answer, though never the request"
    assert (seen.requests, seen.response_headers, seen.end) == ([], [], End.GONE)


@pytest.mark.parametrize("mode", MODES)
def test_a_pod_that_is_not_there(bench: Bench, run: Run, mode: str) -> None:
    bench.addresses["h1"].append("127.0.0.1:1")
    try:
        nowhere = b'{"pod": 2}'
        answer, seen = run(bench.ask("POST", (mode, mode, "all"), nowhere, pod="2"))
    finally:
        bench.addresses["h1"].pop()
    assert answer.status == 503
    assert b"upstream connect error" in answer.body
    assert [headers[":status"] for headers, _ in seen.response_headers] == ["503"]
    assert seen.end is End.COMPLETE


# What has no body, and no end


@pytest.mark.parametrize("mode", MODES)
def test_a_get_that_ends_with_trailers(bench: Bench, run: Run, mode: str) -> None:
    answer, seen = run(bench.ask_h2((mode, mode, "all"), None, TRAILERS, method="GET"))
    assert (answer.status, answer.headers["x-pod"], seen.end) == (200, "0", End.COMPLETE)
    assert json.loads(answer.body) == {"trailers": {"x-t": "1"}}


@pytest.mark.parametrize("mode", MODES)
def test_a_post_of_an_empty_frame(bench: Bench, run: Run, mode: str) -> None:
    answer, seen = run(bench.ask_h2((mode, mode, "all"), b"", []))
    assert (answer.status, answer.trailers, seen.end) == (200, ANSWERED, End.COMPLETE)


@pytest.mark.parametrize("mode", MODES)
def test_a_post_of_trailers_alone(bench: Bench, run: Run, mode: str) -> None:
    answer, seen = run(bench.ask_h2((mode, mode, "all"), None, TRAILERS))
    fixed = mode in (BUFFERED, PARTIAL)
    assert seen.requests[0].headers_fixed is fixed
    # The handler of the bench names a pod all the same, in headers that Envoy does not take.
    assert (answer.status, answer.headers.get("x-pod")) == ((503, None) if fixed else (200, "0"))


@pytest.mark.parametrize("mode", [NONE, STREAMED, DUPLEX])
def test_a_connection_that_changes_its_protocol(bench: Bench, run: Run, mode: str) -> None:
    async def talk() -> list[Any]:
        headers: dict[str, str] = {}
        cell = bench.cell(headers)
        url, heard = bench.url(mode, mode, "all"), []
        async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as socket:
            for said in (b"one", b"two" * 30_000):
                await socket.send_bytes(said)
                heard.append((await socket.receive()).data == said)
        return [*heard, (await bench.ended(cell)).requests[0].headers["upgrade"]]

    assert run(talk()) == [True, True, "websocket"]


# What is only shown


@pytest.mark.parametrize("mode", MODES)
def test_what_is_only_observed_is_not_asked_for(
    bench: Bench, run: Run, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    with caplog.at_level(logging.WARNING, "epp.extproc"):
        for _ in range(2):
            before = bench.opened
            answer, _ = run(bench.ask("POST", (mode, mode, "all", "observing"), MIDDLE, pod="1"))
            # Nobody named a pod.
            assert answer.status == 503
            # Envoy does not wait for us.
            run(bench.until(lambda: bench.opened > before and not bench.open))  # noqa: B023
            seen = bench.last
            assert (seen.requests, seen.response_headers, seen.end) == ([], [], End.UNWATCHED)
            assert bench.opened == before + 1
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (1 if mode == MODES[0] else 0), "said once"
    assert all("remove observability_mode" in text for text in said)
