# SPDX-License-Identifier: Apache-2.0
"""What the body modes leave open: unwatched responses, answers of Envoy's own, and how a stream's end is to be read."""

from __future__ import annotations

import asyncio

import pytest

from epp.contract.errors import ProtocolError
from epp.extproc import BodyMode, End, Exchange, Outcome, Route, Watch
from epp.extproc.replies import CHUNK_BYTES, Replies
from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from tests.extproc.messages import (
    DUPLEX,
    ROUTE,
    Recorder,
    body,
    decoded,
    exchange,
    headers,
    kinds,
    response_body,
    response_headers,
    response_trailers,
    trailers,
)

NONE, STREAMED, BUFFERED, PARTIAL = (
    BodyMode.NONE,
    BodyMode.STREAMED,
    BodyMode.BUFFERED,
    BodyMode.BUFFERED_PARTIAL,
)


def routed(handler: Recorder, response: BodyMode, size: int = 2) -> Exchange:
    machine = exchange(handler)
    machine.receive(headers(response=response))
    machine.receive(body(b"x" * size, True))
    return machine


def streamed(replies: list[bytes], kind: str) -> list[tuple[bytes, bool]]:
    pieces = [getattr(r, kind).response.body_mutation.streamed_response for r in decoded(replies)]
    return [(piece.body, piece.end_of_stream) for piece in pieces]


@pytest.mark.parametrize(("response", "size", "ends"), [
    (NONE, 2, True), (STREAMED, 2, True), (BUFFERED, 2, True), (PARTIAL, 2, True), (DUPLEX, 2, True),
    # The endpoint may answer before all of a long body has reached it.
    (STREAMED, CHUNK_BYTES + 1, True), (DUPLEX, CHUNK_BYTES, True), (DUPLEX, CHUNK_BYTES + 1, False),
])  # fmt: skip
def test_an_unwatched_response_ends_the_stream_when_nothing_can_be_on_its_way(
    response: BodyMode, size: int, ends: bool
) -> None:
    handler = Recorder(Route(watch=Watch.NOTHING))
    machine = routed(handler, response, size)
    assert (handler.ends, machine.finished) == ([End.UNWATCHED], ends)
    if not ends:
        assert kinds(machine.receive(response_headers())) == ["response_headers"]
        assert streamed(machine.receive(response_body(b"all", True)), "response_body") == [(b"all", True)]
    assert handler.response == []


def test_a_full_duplex_response_passes_by_when_only_its_headers_are_watched() -> None:
    """Envoy keeps no copy of what it sent, so ending here would cost the client what is on its way."""
    handler = Recorder(Route(watch=Watch.HEADERS))
    machine = routed(handler, DUPLEX)
    [reply] = decoded(machine.receive(response_headers()))
    assert reply.response_headers.response.HasField("header_mutation")
    assert handler.ends == [End.UNWATCHED]
    assert not machine.finished
    assert streamed(machine.receive(response_body(b"one", False)), "response_body") == [(b"one", False)]
    assert kinds(machine.receive(response_trailers())) == ["response_trailers"]
    assert handler.response == [({":status": "200"}, False)]
    assert handler.ends == [End.UNWATCHED]


@pytest.mark.parametrize("response", [STREAMED, BUFFERED, PARTIAL])
def test_a_response_that_comes_without_its_headers_is_let_go_at_its_first_piece(response: BodyMode) -> None:
    handler = Recorder(Route(watch=Watch.HEADERS))
    machine = routed(handler, response)
    assert kinds(machine.receive(response_body(b"a", False))) == ["response_body"]
    assert (handler.response, handler.ends, machine.finished) == ([], [End.UNWATCHED], True)


def test_a_response_without_headers_is_watched_to_its_end() -> None:
    handler = Recorder()
    machine = routed(handler, STREAMED)
    machine.receive(response_body(b"a", False))
    machine.receive(response_body(b"b", True))
    assert (handler.response, handler.ends) == ([(b"a", False), (b"b", True)], [End.COMPLETE])


@pytest.mark.parametrize("mode", [DUPLEX, BUFFERED, PARTIAL])
@pytest.mark.parametrize("response", [DUPLEX, BUFFERED, STREAMED])
def test_an_answer_of_envoy_s_own_before_the_decision_passes_by(mode: BodyMode, response: BodyMode) -> None:
    handler = Recorder()
    machine = exchange(handler)
    machine.receive(headers(mode=mode, response=response))
    [reply] = decoded(machine.receive(response_headers(status="413")))
    assert not reply.response_headers.response.HasField("header_mutation")
    assert (handler.requests, handler.response, handler.ends) == ([], [], [End.GONE])
    assert machine.receive(body(b"late", True)) == []
    replies = machine.receive(response_body(b"too long", True))
    if response is DUPLEX:
        assert streamed(replies, "response_body") == [(b"too long", True)]
    else:
        assert not decoded(replies)[0].response_body.response.HasField("body_mutation")


@pytest.mark.parametrize("response", [DUPLEX, BUFFERED, STREAMED, NONE])
def test_a_stream_that_begins_with_a_response_knows_its_modes(response: BodyMode) -> None:
    """What another filter answers comes by on its way to the client, without its request ever having come."""
    message = ProcessingRequest.FromString(response_headers(status="429"))
    message.protocol_config.request_body_mode = message.protocol_config.response_body_mode = response
    handler = Recorder()
    machine = exchange(handler)
    assert kinds(machine.receive(message.SerializeToString())) == ["response_headers"]
    assert handler.ends == [End.GONE]
    if response is not NONE:
        [reply] = decoded(machine.receive(response_body(b"no", True)))
        assert reply.response_body.response.HasField("body_mutation") is (response is DUPLEX)


def test_an_answer_of_envoy_s_own_ends_the_wait_for_a_decision() -> None:
    async def decide() -> Outcome:
        return ROUTE

    decision = decide()
    handler = Recorder(decision)
    machine = exchange(handler)
    machine.receive(headers())
    assert machine.receive(body(b"{}", True)) == []
    assert kinds(machine.receive(response_headers(status="504"))) == ["response_headers"]
    assert machine.awaiting is None
    assert handler.ends == [End.GONE]
    decision.close()  # type: ignore[attr-defined]


def test_what_waits_for_a_decision_is_bounded() -> None:
    pending: asyncio.Future[Outcome] = asyncio.Future(loop=asyncio.new_event_loop())
    machine = exchange(Recorder(pending), limit=10)
    machine.receive(headers(mode=STREAMED))
    piece = body(b"x" * 100_000, False)
    for _ in range(10):
        assert machine.receive(piece) == []
    with pytest.raises(ProtocolError, match="while a decision was awaited"):
        machine.receive(piece)
    pending.get_loop().close()


@pytest.mark.parametrize(("response", "seen", "end"), [
    (NONE, [], End.UNWATCHED),
    (NONE, [response_headers()], End.COMPLETE),
    (STREAMED, [], End.GONE),
    (STREAMED, [response_headers(), response_body(b"a", False)], End.GONE),
    (DUPLEX, [response_headers(), response_body(b"a", False)], End.GONE),
    (BUFFERED, [response_headers()], End.GONE),
    # Response trailers are skipped, or the rest is over the limit.
    (BUFFERED, [response_headers(), response_body(b"a", False)], End.COMPLETE),
    (PARTIAL, [response_headers(), response_body(b"a", False)], End.COMPLETE),
])  # fmt: skip
def test_how_a_stream_that_envoy_ends_is_to_be_read(response: BodyMode, seen: list[bytes], end: End) -> None:
    handler = Recorder()
    machine = routed(handler, response)
    for message in seen:
        machine.receive(message)
    machine.close(End.GONE)
    assert handler.ends == [end]


def test_where_response_headers_are_shown_a_stream_that_ends_before_them_is_gone() -> None:
    shared = Replies()
    first, second = Recorder(), Recorder()
    for handler, answer in ((first, [response_headers()]), (second, [])):
        machine = Exchange(handler, shared, 100)
        for message in (headers(end=True, mode=NONE, response=NONE), *answer):
            machine.receive(message)
        machine.close(End.GONE)
    assert (first.ends, second.ends) == ([End.COMPLETE], [End.GONE])


def test_a_client_that_leaves_within_its_upload_is_gone_though_the_response_would_not_be_shown() -> None:
    handler = Recorder()
    machine = exchange(handler)
    machine.receive(headers(mode=STREAMED, response=NONE))
    machine.receive(body(b"half", False))
    machine.close(End.GONE)
    assert handler.ends == [End.GONE]


@pytest.mark.parametrize("mode", [BUFFERED, PARTIAL])
def test_trailers_in_the_place_of_a_body_find_the_headers_fixed(mode: BodyMode) -> None:
    handler = Recorder()
    machine = exchange(handler)
    assert kinds(machine.receive(headers((":method", "POST"), mode=mode))) == ["request_headers"]
    [reply] = decoded(machine.receive(trailers()))
    [request] = handler.requests
    assert (request.headers_fixed, request.body) == (True, None)
    assert not reply.request_trailers.HasField("header_mutation")
    assert "envoy.lb" in reply.dynamic_metadata.fields


@pytest.mark.parametrize("mode", [BUFFERED, PARTIAL])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_method_without_a_body_is_decided_at_its_headers(mode: BodyMode, method: str) -> None:
    handler = Recorder()
    machine = exchange(handler)
    [reply] = decoded(machine.receive(headers((":method", method), mode=mode)))
    assert reply.request_headers.response.header_mutation.set_headers
    assert not handler.requests[0].headers_fixed
    assert kinds(machine.receive(body(b"", False)) + machine.receive(trailers())) == [
        "request_body",
        "request_trailers",
    ]


def test_a_get_with_a_length_is_decided_on_its_body() -> None:
    handler = Recorder()
    machine = exchange(handler)
    machine.receive(headers((":method", "GET"), ("content-length", "3"), mode=BUFFERED))
    assert handler.requests == []
    machine.receive(body(b"abc", True))
    assert handler.requests[0].body == b"abc"


def test_a_change_of_protocol_is_decided_at_its_headers_and_passes_by() -> None:
    handler = Recorder()
    machine = exchange(handler)
    [first] = machine.receive(headers((":method", "GET"), ("upgrade", "websocket")))
    assert ProcessingResponse.FromString(first).request_headers.response.clear_route_cache
    assert kinds(machine.receive(response_headers(status="101"))) == ["response_headers"]
    assert streamed(machine.receive(body(b"ping", False)), "request_body") == [(b"ping", False)]
    assert streamed(machine.receive(response_body(b"pong", False)), "response_body") == [(b"pong", False)]
    assert streamed(machine.receive(body(b"", True)), "request_body") == [(b"", True)]


def test_the_rest_of_a_body_over_the_limit_passes_by() -> None:
    handler = Recorder()
    machine = exchange(handler, limit=4)
    machine.receive(headers())
    out = machine.receive(body(b"12345", False))
    assert kinds(out) == ["request_headers", "request_body"]
    assert streamed(out[1:], "request_body") == [(b"12345", False)]
    assert streamed(machine.receive(body(b"67", True)), "request_body") == [(b"67", True)]
    assert not handler.requests[0].body_complete


def test_an_unwatched_route_waits_for_the_rest_of_a_body_over_the_limit() -> None:
    handler = Recorder(Route(watch=Watch.NOTHING))
    machine = exchange(handler, limit=4)
    machine.receive(headers(response=STREAMED))
    machine.receive(body(b"12345", False))
    assert not machine.finished
    assert streamed(machine.receive(body(b"67", True)), "request_body") == [(b"67", True)]
    assert kinds(machine.receive(response_headers())) == ["response_headers"]
    assert machine.finished


@pytest.mark.parametrize(
    "messages",
    [
        [headers(), body(b"", True), body(b"", True)],
        [headers(end=True), body(b"", True)],
        [headers(mode=BUFFERED), body(b"a", True), body(b"b", True)],
        [headers(), trailers(), trailers()],
        [headers(end=True), response_headers(), response_headers()],
        [headers(end=True), response_headers(end=True), response_body(b"a", True)],
        [headers(end=True), response_body(b"a", True), response_headers()],
        [headers(end=True), response_trailers(), response_trailers()],
        [headers(end=True), response_trailers(), response_body(b"a", True)],
    ],
)
def test_what_has_no_meaning_is_refused_and_not_answered(messages: list[bytes]) -> None:
    machine = exchange(Recorder())
    for message in messages[:-1]:
        machine.receive(message)
    with pytest.raises(ProtocolError):
        machine.receive(messages[-1])


@pytest.mark.parametrize("side", ["request", "response"])
def test_an_unknown_mode_of_either_side_is_named(side: str) -> None:
    message = ProcessingRequest.FromString(headers())
    setattr(message.protocol_config, f"{side}_body_mode", 9)
    with pytest.raises(ProtocolError, match=f"{side}_body_mode to FULL_DUPLEX_STREAMED"):
        exchange(Recorder()).receive(message.SerializeToString())
