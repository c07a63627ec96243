# SPDX-License-Identifier: Apache-2.0
"""Responses that are followed to the end, to their headers, or not at all: what clients get, and what stays booked.

Every request is for a model whose first requests, which are always watched, are over.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from epp.director.estimate import FIRST
from tests.e2e.client import JSON, chat, head, post, receive
from tests.e2e.pod import sse_body
from tests.e2e.stack import PATIENCE_S, SEED_YAML, Epp, Page, Stack, connection_manager, envoy, pods, serving, stack

pytestmark = pytest.mark.envoy

EVENTS = 40
BUFFERED = {"request_body_mode": "BUFFERED", "response_body_mode": "STREAMED"}
BODY = chat("what is not read is not paid for", stream=True)
ENDS = "epp_unwatched_ends_total"


def warm(running: Stack) -> None:
    """The first requests of a model are watched, to learn."""
    for _ in range(FIRST):
        assert post(running.port, BODY, {"x-do": "sse 20 0"}).status == 200


def until(epp: Epp, holds: Callable[[Page], bool], timeout_s: float = PATIENCE_S) -> Page:
    """The first metrics page of which it is true."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        page = epp.metrics()
        if holds(page):
            return page
        ours = {
            name: page.samples.get(name) for name in (ENDS, "epp_unwatched_requests", "epp_access_log_entries_total")
        }
        assert time.monotonic() < deadline_s, f"never true: {ours}"
        time.sleep(0.02)


def nothing_booked(page: Page) -> bool:
    return page.sum("epp_unwatched_requests") == 0 and page.sum("llm_d_epp_request_running") == 0


def stream(port: int, do: str, name: str) -> socket.socket:
    """A request whose answer is on its way."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    fields = {**JSON, "x-do": do, "content-length": str(len(BODY)), "x-request-id": name}
    sock.sendall(head("POST", "/v1/chat/completions", fields) + BODY)
    return sock


def messages_sent(running: Stack) -> int:
    """ext_proc messages that Envoy sent so far."""
    import urllib.request

    url = f"http://127.0.0.1:{running.envoy.admin_port}/stats?filter=ext_proc.*stream_msgs_sent"
    with urllib.request.urlopen(url, timeout=5) as response:
        return sum(map(int, re.findall(rb": (\d+)", response.read())))


# grpcio sends the end of a stream by itself: there, a stream can end early where Envoy keeps a copy of the response.
@pytest.fixture(scope="module", params=[("ngh2", {}), ("grpcio", BUFFERED)], ids=str)
def releasing(request: pytest.FixtureRequest) -> Iterator[Stack]:
    transport, modes = request.param
    flags = ("--config-text", SEED_YAML, "--response-phase=release", f"--transport={transport}")
    with stack(*flags, access_log=True, **modes) as running:
        warm(running)
        yield running


@pytest.fixture
def released(releasing: Stack) -> Stack:
    """That stack, once the log has told the ends of all that an earlier test sent."""
    until(releasing.epp, nothing_booked)
    return releasing


@pytest.mark.parametrize(
    ("phase", "modes", "log_ends"),
    [
        ("full", {}, 0),
        ("headers", {}, 0),
        ("headers", BUFFERED, 5),
        ("release", {}, 5),
        ("release", BUFFERED, 5),
        ("auto", {}, 5),
    ],
)
def test_answers_arrive_whole_in_every_phase(phase: str, modes: dict[str, Any], log_ends: int) -> None:
    with stack("--config-text", SEED_YAML, f"--response-phase={phase}", access_log=True, **modes) as running:
        warm(running)
        for _ in range(5):
            answer = post(running.port, BODY, {"x-do": f"sse {EVENTS} 1"})
            assert (answer.status, answer.complete, answer.body) == (200, True, sse_body(EVENTS))
        page = until(running.epp, nothing_booked)
        assert page.sum(ENDS, source="log") == log_ends
        assert page.sum(ENDS) == log_ends
        assert page.sum("llm_d_epp_request_duration_seconds_count") == FIRST + 5
        assert not running.epp.complaints()


def shows_no_response(document: dict[str, Any]) -> None:
    mode = connection_manager(document)["http_filters"][0]["typed_config"]["processing_mode"]
    mode |= {"response_header_mode": "SKIP", "response_body_mode": "NONE", "response_trailer_mode": "SKIP"}


@pytest.mark.parametrize("phase", ["full", "release"])
def test_an_envoy_that_shows_no_response_at_all(phase: str) -> None:
    flags = ("--config-text", SEED_YAML, f"--response-phase={phase}")
    with stack(*flags, access_log=True, adapt=shows_no_response) as running:
        for _ in range(3):
            assert post(running.port, BODY, {"x-do": "sse 20 1"}).body == sse_body(20)
        page = until(running.epp, nothing_booked)
        assert page.sum(ENDS, source="log") == 3
        with closing(stream(running.port, "sse 50 10", "booked")) as sock:
            until(running.epp, lambda page: page.sum("epp_unwatched_requests") == 1)
            assert receive(sock).body == sse_body(50)
        until(running.epp, nothing_booked)


def test_what_is_not_watched_is_not_sent(released: Stack) -> None:
    before = messages_sent(released)
    assert post(released.port, BODY, {"x-do": "sse 200 1"}).body == sse_body(200)
    assert messages_sent(released) - before <= 3


def test_grpcio_ends_no_full_duplex_stream_early() -> None:
    flags = ("--config-text", SEED_YAML, "--response-phase=release", "--transport=grpcio")
    with stack(*flags, access_log=True) as running:
        for _ in range(FIRST + 12):
            assert post(running.port, BODY, {"x-do": "sse 20 0"}).body == sse_body(20)
        page = until(running.epp, nothing_booked)
        assert page.sum(ENDS) == 0


def test_a_released_request_stays_booked_while_it_runs(released: Stack) -> None:
    with closing(stream(released.port, "sse 100 10", "runs")) as sock:
        released.epp.handled("runs")
        page = until(released.epp, lambda page: page.sum("epp_unwatched_requests") == 1)
        assert page.sum("llm_d_epp_request_running") == 1
        answer = receive(sock)
        assert answer.body == sse_body(100)
    until(released.epp, nothing_booked)


def test_sizes_and_durations_come_from_the_log(released: Stack) -> None:
    before = released.epp.metrics()
    answer = post(released.port, BODY, {"x-do": "sleep 300"})
    page = until(released.epp, nothing_booked)
    size, duration = "llm_d_epp_response_size_bytes_sum", "llm_d_epp_request_duration_seconds_sum"
    assert page.sum(size) - before.sum(size) == len(answer.body)
    assert 0.3 <= page.sum(duration) - before.sum(duration) < 5.0


@pytest.mark.parametrize("do", ["sse 1000 20", "hang"])
def test_a_client_that_leaves(released: Stack, do: str) -> None:
    before = released.epp.metrics().sum(ENDS, source="log")
    sock = stream(released.port, do, f"left-{do}")
    released.epp.handled(f"left-{do}")
    until(released.epp, lambda page: page.sum("epp_unwatched_requests") == 1)
    sock.close()
    page = until(released.epp, nothing_booked)
    assert page.sum(ENDS, source="log") == before + 1


def test_an_endpoint_that_resets_the_connection(released: Stack) -> None:
    before = released.epp.metrics()
    assert not post(released.port, BODY, {"x-do": "reset"}).complete
    page = until(released.epp, nothing_booked)
    assert page.sum(ENDS, source="log") == before.sum(ENDS, source="log") + 1
    durations = "llm_d_epp_request_duration_seconds_count"
    assert page.sum(durations) == before.sum(durations), "only whole answers have a duration"


def test_errors_of_endpoints_are_counted(released: Stack) -> None:
    name = "llm_d_epp_request_error_total"
    before = released.epp.metrics().sum(name)
    assert post(released.port, BODY, {"x-do": "500"}).status == 500
    until(released.epp, lambda page: page.sum(name) == before + 1 and nothing_booked(page))


def test_one_request_id_for_many(released: Stack) -> None:
    with ExitStack() as open_ones:
        socks = [open_ones.enter_context(closing(stream(released.port, "sse 50 10", "the-same"))) for _ in range(8)]
        until(released.epp, lambda page: page.sum("epp_unwatched_requests") == 8)
        for sock in socks:
            assert receive(sock).body == sse_body(50)
    until(released.epp, nothing_booked)


def test_an_endpoint_that_is_not_there(tmp_path: Path) -> None:
    """Without metrics, nothing else tells that nobody listens there."""
    config = SEED_YAML.replace("  - type: load-aware-scorer\n    parameters:\n          threshold: 100\n", "").replace(
        "      - pluginRef: load-aware-scorer\n        weight: 1.0\n", ""
    )
    with (
        pods("127.0.0.1:0") as alive,
        serving(f"--endpoints={alive.addresses[0]}", "--config-text", config, "--response-phase=release") as epp,
        envoy(epp.port, access_log=True) as gateway,
    ):
        for _ in range(FIRST):
            assert post(gateway.port, BODY).status == 200
        alive.part.stop()
        assert post(gateway.port, BODY).status == 503
        page = until(epp, nothing_booked)
        assert page.sum(ENDS, source="log") == 1
        assert page.sum("llm_d_epp_request_error_total", error_code="ModelServerError") == 1


def test_a_picker_that_restarts_lets_unwatched_requests_go_on() -> None:
    with pods("127.0.0.1:0", "127.0.0.1:0") as served:
        endpoints = f"--endpoints={','.join(served.addresses)}"
        flags = (endpoints, "--config-text", SEED_YAML, "--response-phase=release", "--drain-timeout=0s")
        with serving(*flags) as first:
            port = first.port
            with envoy(port, access_log=True) as gateway:
                running = Stack(first, gateway, served)
                warm(running)
                with closing(stream(gateway.port, "sse 400 10", "survivor")) as sock:
                    first.handled("survivor")
                    began_s = time.monotonic()
                    first.signal(15)
                    assert first.ended() == 0
                    assert time.monotonic() - began_s < 5.0, "nothing waits for what nobody watches"
                    with serving(*flags, f"--grpc-port={port}") as second:
                        assert receive(sock).body == sse_body(400)
                        page = until(
                            second, lambda page: page.sum("epp_access_log_entries_total", result="unknown") >= 1
                        )
                        assert nothing_booked(page)
                        assert not second.complaints()
                        assert post(gateway.port, BODY, {"x-do": "sse 5 0"}).body == sse_body(5)


def test_without_a_log_the_estimate_releases() -> None:
    with stack("--config-text", SEED_YAML, "--response-phase=release") as running:
        warm(running)
        with closing(stream(running.port, "sse 20 1", "estimated")) as sock:
            assert receive(sock).body == sse_body(20)
        page = until(running.epp, nothing_booked)
        assert page.sum(ENDS, source="estimate") + page.sum(ENDS, source="reconciliation") == 1
        assert page.sum("epp_access_log_streams") == 0
