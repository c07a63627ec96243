# SPDX-License-Identifier: Apache-2.0
"""Every body mode of ext_proc on real Envoy, with every kind of request and response, also those that end badly.

Each test ends by looking that nothing is left: no request is running, nothing is charged to a pod, nothing was logged
as wrong. What is charged shows in the scores of `active-request-scorer`: 1 for every pod that holds nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import h2.config
import h2.connection
import h2.events
import pytest

from tests.e2e.client import JSON, Answer, ask, chat, chunked, get, head, post, receive
from tests.e2e.pod import ANSWER, SSE_USAGE, sse_body
from tests.e2e.stack import PATIENCE_S, Page, Stack, envoy, stack

pytestmark = pytest.mark.envoy

CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: prefix-cache-scorer
  - type: active-request-scorer
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: prefix-cache-scorer
      - pluginRef: active-request-scorer
"""
MIB = 1024 * 1024
DUPLEX, BUFFERED, STREAMED, PARTIAL, NONE = "FULL_DUPLEX_STREAMED", "BUFFERED", "STREAMED", "BUFFERED_PARTIAL", "NONE"
SHOWS_BODY = (DUPLEX, BUFFERED, PARTIAL)
"""Modes in which the picker sees the request's body before it must choose."""


class Case:
    """One stack, and what the tests of it look at."""

    def __init__(self, running: Stack, mode: str, tls: bool) -> None:
        self.stack, self.mode, self.tls = running, mode, tls
        self.port = running.port
        self.before: Page = running.epp.metrics()
        self.logged = len(running.epp.lines)

    def grew(self, name: str) -> float:
        """By how much a metric has grown since the test began, once nothing is running."""
        return self.stack.epp.settled().sum(name) - self.before.sum(name)

    def nothing_is_left(self) -> None:
        """No request is running, no pod is charged, no line complains."""
        epp = self.stack.epp
        epp.settled()
        deadline_s = time.monotonic() + PATIENCE_S
        for turn in itertools.count():
            probe = f"probe-{self.logged}-{turn}"
            assert get(self.port, "/v1/models", {"x-request-id": probe}).status == 200
            profile = epp.handled(probe)["decision"]["profiles"][0]
            # An endpoint that Envoy could not reach is left out for a second.
            standings = [profile[who] for who in ("picked", "runner_up") if who in profile]
            if [one["scores"]["active-request-scorer"]["raw"] for one in standings] == [1.0, 1.0]:
                break
            assert time.monotonic() < deadline_s, f"a pod is charged for ever: {profile}"
        # Where prompts are not seen the picker says so, once.
        blind = f"Envoy shows no request bodies (request_body_mode {self.mode})"
        assert sum(blind in line for line in epp.lines) <= (self.mode not in SHOWS_BODY)
        assert [line for line in epp.complaints(self.logged) if blind not in line] == []


STACKS = {
    "ngh2-duplex-tls": ("ngh2", DUPLEX, True),
    "ngh2-buffered": ("ngh2", BUFFERED, False),
    "ngh2-streamed": ("ngh2", STREAMED, False),
    "ngh2-partial-tls": ("ngh2", PARTIAL, True),
    "ngh2-none": ("ngh2", NONE, False),
    "grpcio-duplex-tls": ("grpcio", DUPLEX, True),
    "grpcio-buffered": ("grpcio", BUFFERED, False),
}


@pytest.fixture(scope="module", params=STACKS.values(), ids=STACKS)
def running(request: pytest.FixtureRequest) -> Iterator[tuple[Stack, str, bool]]:
    transport, mode, tls = request.param
    sizes = {BUFFERED: 8 * MIB, PARTIAL: 1 * MIB}
    limit = {"buffer_bytes": sizes[mode]} if mode in sizes else {}
    flags = ("--config-text", CONFIG, "--transport", transport, "--seed=1")
    with stack(*flags, tls=tls, request_body_mode=mode, response_body_mode=mode, **limit) as started:
        yield started, mode, tls


@pytest.fixture
def case(running: tuple[Stack, str, bool]) -> Iterator[Case]:
    case = Case(*running)
    yield case
    case.nothing_is_left()


def big_chat() -> bytes:
    """A chat request of 5 MB and a bit."""
    letters = random.Random(5).choices("abcdefghijklmnop ", k=5_000_000)
    return chat("".join(letters))


def test_get(case: Case) -> None:
    answer = get(case.port, "/v1/models")
    assert (answer.status, answer.body) == (200, ANSWER)
    assert answer.get("x-went-into-resp-headers") == "true"


def test_head(case: Case) -> None:
    answer = get(case.port, "/v1/models", method="HEAD")
    assert (answer.status, answer.body, answer.get("x-went-into-resp-headers")) == (200, b"", "true")


def test_a_small_post(case: Case) -> None:
    body = chat("a small post")
    answer = post(case.port, body)
    assert (answer.status, answer.body, answer.get("x-went-into-resp-headers")) == (200, ANSWER, "true")
    arrived = post(case.port, body, {"x-do": "echo"}).json()
    assert (arrived["body_bytes"], arrived["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    # Two requests; what the picker never sees it does not count.
    seen = case.mode in SHOWS_BODY
    assert case.grew("inference_model_request_total") == (2 if seen else 0)
    # 178: the tokens that ANSWER says were generated; the echo says nothing of the kind.
    assert case.grew("inference_model_output_tokens_sum") == (178 if seen else 0)


def test_an_empty_post(case: Case) -> None:
    answer = post(case.port, b"")
    assert (answer.status, answer.body) == (200, ANSWER)


def test_a_post_of_5_megabytes(case: Case) -> None:
    body = big_chat()
    arrived = post(case.port, body, {"x-do": "echo"}).json()
    assert (arrived["body_bytes"], arrived["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_a_chunked_post_with_trailers(case: Case) -> None:
    body = chat("with trailers")
    fields = {**JSON, "transfer-encoding": "chunked", "te": "trailers", "trailer": "x-check", "x-do": "echo"}
    request = head("POST", "/v1/chat/completions", fields) + chunked([body[:20], body[20:]], {"x-check": "7"})
    answer = ask(case.port, request)
    assert answer.status == 200
    arrived = answer.json()
    assert (arrived["sha256"], arrived["trailers"]) == (hashlib.sha256(body).hexdigest(), [["x-check", "7"]])
    if case.mode in (DUPLEX, BUFFERED):
        assert case.grew("inference_model_request_total") == 1


def test_trailers_without_a_body(case: Case) -> None:
    fields = {**JSON, "transfer-encoding": "chunked", "te": "trailers", "x-do": "echo"}
    answer = ask(case.port, head("POST", "/v1/chat/completions", fields) + chunked([], {"x-check": "7"}))
    if case.mode in (BUFFERED, PARTIAL):
        # The headers were answered when a body was still to be expected, and it never came: no header that names an
        # endpoint can be set any more.
        assert answer.status == 400
        assert answer.body.startswith(b"inference error: BadRequest - trailers but no body")
    else:
        assert (answer.status, answer.json()["trailers"]) == (200, [["x-check", "7"]])


def test_http2_with_trailers(case: Case) -> None:
    body = chat("over HTTP/2")
    status, data, trailers = http2_post(case.port, body, {"x-do": "echo"}, [("x-check", "8")])
    assert (status, trailers) == (200, [])
    assert b'["x-check", "8"]' in data
    assert hashlib.sha256(body).hexdigest().encode() in data


def test_sse(case: Case) -> None:
    answer = post(case.port, chat("stream it", stream=True), {"x-do": "sse 200 1"})
    assert (answer.status, answer.complete) == (200, True)
    assert answer.body == sse_body(200)
    seen = case.mode in SHOWS_BODY
    assert case.grew("inference_model_input_tokens_sum") == (SSE_USAGE["prompt_tokens"] if seen else 0)
    assert case.grew("inference_model_output_tokens_sum") == (SSE_USAGE["completion_tokens"] if seen else 0)
    assert case.grew("llm_d_epp_request_cached_tokens_sum") == (3 if seen else 0)
    assert case.grew("inference_model_response_sizes_sum") == (len(answer.body) if seen else 0)


def test_sse_arrives_while_it_is_made(case: Case) -> None:
    if case.mode in (BUFFERED, PARTIAL):
        pytest.skip("the mode collects the response")
    with sending(case.port, chat("slowly", stream=True), {"x-do": "sse 100 20"}) as sock:
        partly = receive(sock, until=lambda answer: len(answer.body) > 0)
        assert not partly.complete
        assert sse_body(100).startswith(partly.body)


def test_a_response_with_trailers(case: Case) -> None:
    answer = post(case.port, chat("trailers please"), {"x-do": "trailers", "te": "trailers"})
    assert (answer.status, answer.body, answer.complete) == (200, b"onetwo", True)
    assert answer.trailers == [("x-sum", "6")]


def test_no_content(case: Case) -> None:
    answer = post(case.port, chat("nothing"), {"x-do": "204"})
    assert (answer.status, answer.body) == (204, b"")


def test_an_upstream_error(case: Case) -> None:
    answer = post(case.port, chat("fail"), {"x-do": "500"})
    assert (answer.status, answer.body) == (500, b'{"error": {"message": "boom"}}')
    assert case.grew("inference_model_request_error_total") == (1 if case.mode in SHOWS_BODY else 0)


def test_an_upstream_that_resets_within_its_answer(case: Case) -> None:
    answer = post(case.port, chat("reset"), {"x-do": "reset"})
    if case.mode in (BUFFERED, PARTIAL):
        # Nothing was passed on yet, so Envoy says what happened.
        assert answer.status in (502, 503)
    else:
        assert (answer.status, answer.complete) == (200, False)


def test_a_client_gone_within_its_upload(case: Case) -> None:
    body = chat("never whole " * 1000)
    fields = {**JSON, "content-length": str(len(body))}
    with socket.create_connection(("127.0.0.1", case.port)) as sock:
        sock.sendall(head("POST", "/v1/chat/completions", fields) + body[:5000])
        time.sleep(0.05)


def test_a_client_gone_while_the_pod_thinks(case: Case) -> None:
    with sending(case.port, chat("hang"), {"x-do": "hang", "x-request-id": f"gone-{case.logged}"}):
        case.stack.epp.handled(f"gone-{case.logged}")


def test_a_client_gone_within_a_stream(case: Case) -> None:
    fields = {"x-do": "sse 500 10", "x-request-id": f"leaves-{case.logged}"}
    with sending(case.port, chat("leave", stream=True), fields) as sock:
        case.stack.epp.handled(f"leaves-{case.logged}")
        if case.mode not in (BUFFERED, PARTIAL):
            receive(sock, until=lambda answer: len(answer.body) > 100)


def test_a_client_that_reads_nothing(case: Case) -> None:
    """More than all buffers on the way hold is stuck until the client goes."""
    fields = {"x-do": "sse 60000 0", "x-request-id": f"stuck-{case.logged}"}
    with sending(case.port, chat("stuck", stream=True), fields):
        case.stack.epp.handled(f"stuck-{case.logged}")
        time.sleep(0.3)
        assert case.stack.epp.metrics().sum("llm_d_epp_request_running") == (1 if case.mode in SHOWS_BODY else 0)
        assert post(case.port, chat("another")).status == 200


def test_many_kinds_at_once(case: Case) -> None:
    """What was sent alone above, mixed and at the same time."""

    def one(number: int) -> Answer:
        kind = ("", "echo", "sse 20 1", "trailers", "500", "204", "sleep 20")[number % 7]
        return post(case.port, chat(f"mixed {number} " * 50), {"x-do": kind} if kind else {})

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(70)))
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 500, 204, 200] * 10


def test_a_gateway_that_dies(case: Case) -> None:
    """Its streams end with its connection; another gateway is served at once."""
    epp = case.stack.epp
    with envoy(epp.port, epp_tls=case.tls) as gateway, sending(gateway.port, chat("hang"), {"x-do": "hang"}):
        epp.say("Request handled", case.logged)
        gateway.stop()
    assert post(case.port, chat("next")).status == 200


@contextlib.contextmanager
def sending(port: int, body: bytes, headers: dict[str, str]) -> Iterator[socket.socket]:
    """A POST whose answer is read as far as the block likes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        fields = {**JSON, **headers, "content-length": str(len(body))}
        sock.sendall(head("POST", "/v1/chat/completions", fields) + body)
        yield sock


def http2_post(
    port: int, body: bytes, headers: dict[str, str], trailers: list[tuple[str, str]]
) -> tuple[int, bytes, list[tuple[str, str]]]:
    """POST over HTTP/2 without TLS. Returns status, body and trailers."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    status, data, found = 0, b"", []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        connection.initiate_connection()
        pseudo = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":scheme", "http"),
            (":authority", "gateway"),
        ]
        connection.send_headers(1, [*pseudo, *JSON.items(), *headers.items(), ("te", "trailers")])
        connection.send_data(1, body)
        connection.send_headers(1, trailers, end_stream=True)
        sock.sendall(connection.data_to_send())
        while True:
            for event in connection.receive_data(sock.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])
                elif isinstance(event, h2.events.DataReceived):
                    data += event.data
                elif isinstance(event, h2.events.TrailersReceived):
                    found = list(event.headers)
                elif isinstance(event, h2.events.StreamEnded):
                    return status, data, found
            sock.sendall(connection.data_to_send())
