# SPDX-License-Identifier: Apache-2.0
"""The exchange, message by message, in every body mode. Expected sequences: reference section 2.11 of the server
specification, with request trailers answered and BUFFERED supported."""

from __future__ import annotations

import asyncio

import pytest

from epp.contract.errors import ProtocolError
from epp.extproc import BodyMode, End, Exchange, Immediate, Outcome, Route, Watch
from epp.extproc.exchange import MOST_PARSED_BYTES
from epp.extproc.replies import CHUNK_BYTES
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


def assert_decision(common: object, reply: ProcessingResponse) -> None:
    assert common.clear_route_cache  # type: ignore[attr-defined]
    mutation = common.header_mutation  # type: ignore[attr-defined]
    [option] = mutation.set_headers
    assert (option.header.key, option.header.raw_value) == ("x-gateway-destination-endpoint", b"10.0.0.1:8000")
    assert option.append_action == 2
    assert list(mutation.remove_headers) == ["x-prefiller-host-port"]
    chosen = reply.dynamic_metadata.fields["envoy.lb"].struct_value.fields["x-gateway-destination-endpoint"]
    assert chosen.string_value == "10.0.0.1:8000"


def test_full_duplex_decides_at_the_end_of_the_body_and_forwards_the_bytes() -> None:
    handler = Recorder()
    machine = exchange(handler)
    assert machine.receive(headers((":path", "/v1/completions"), ("X-A", "1"), ("x-a", "2"))) == []
    assert machine.receive(body(b'{"model":', False)) == []
    replies = decoded(machine.receive(body(b'"m"}', False)) + machine.receive(body(b"", True)))
    [request] = handler.requests
    assert request.body == b'{"model":"m"}'
    assert request.body_complete
    assert request.headers == {":path": "/v1/completions", "x-a": "2"}
    assert [r.WhichOneof("response") for r in replies] == ["request_headers", "request_body"]
    assert_decision(replies[0].request_headers.response, replies[0])
    piece = replies[1].request_body.response.body_mutation.streamed_response
    assert (piece.body, piece.end_of_stream) == (b'{"model":"m"}', True)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_full_duplex_cuts_the_body_at_62000_bytes_and_ends_once(size: int) -> None:
    machine = exchange(Recorder())
    machine.receive(headers())
    replies = decoded(machine.receive(body(b"x" * size, True)))[1:]
    pieces = [r.request_body.response.body_mutation.streamed_response for r in replies]
    assert b"".join(p.body for p in pieces) == b"x" * size
    assert [p.end_of_stream for p in pieces] == [False] * (len(pieces) - 1) + [True]
    assert max(len(p.body) for p in pieces) <= 62_000
    assert len(pieces) == max(1, -(-size // CHUNK_BYTES))


def test_full_duplex_trailers_end_the_body_and_are_answered() -> None:
    handler = Recorder()
    machine = exchange(handler)
    machine.receive(headers())
    assert machine.receive(body(b"abc", False)) == []
    replies = decoded(machine.receive(trailers()))
    assert [r.WhichOneof("response") for r in replies] == ["request_headers", "request_body", "request_trailers"]
    piece = replies[1].request_body.response.body_mutation.streamed_response
    assert (piece.body, piece.end_of_stream) == (b"abc", False)
    assert handler.requests[0].body == b"abc"


def test_full_duplex_trailers_without_a_body_send_no_piece() -> None:
    machine = exchange(Recorder())
    machine.receive(headers())
    assert kinds(machine.receive(trailers())) == ["request_headers", "request_trailers"]


def test_a_replaced_body_is_what_travels() -> None:
    machine = exchange(Recorder(Route(body=b"new")))
    machine.receive(headers())
    [_, piece] = decoded(machine.receive(body(b"old", True)))
    assert piece.request_body.response.body_mutation.streamed_response.body == b"new"


@pytest.mark.parametrize("mode", list(BodyMode))
def test_a_request_without_a_body_is_answered_at_its_headers(mode: BodyMode) -> None:
    handler = Recorder()
    [reply] = decoded(exchange(handler).receive(headers((":method", "GET"), end=True, mode=mode)))
    assert_decision(reply.request_headers.response, reply)
    assert handler.requests[0].body is None


@pytest.mark.parametrize("mode", [BodyMode.NONE, BodyMode.STREAMED])
def test_modes_that_show_no_whole_body_are_decided_at_the_headers(mode: BodyMode) -> None:
    machine = exchange(Recorder())
    [reply] = decoded(machine.receive(headers(mode=mode)))
    assert_decision(reply.request_headers.response, reply)
    if mode is BodyMode.STREAMED:
        assert kinds(machine.receive(body(b"a", False)) + machine.receive(body(b"", True))) == ["request_body"] * 2


@pytest.mark.parametrize(("mode", "eos", "complete"), [
    (BodyMode.BUFFERED, True, True),
    (BodyMode.BUFFERED, False, True),
    (BodyMode.BUFFERED_PARTIAL, True, True),
    (BodyMode.BUFFERED_PARTIAL, False, False),
])  # fmt: skip
def test_buffered_modes_answer_the_headers_at_once_and_decide_on_the_body(
    mode: BodyMode, eos: bool, complete: bool
) -> None:
    handler = Recorder()
    machine = exchange(handler)
    [first] = decoded(machine.receive(headers(mode=mode)))
    assert first.HasField("request_headers")
    assert not first.request_headers.response.clear_route_cache
    [reply] = decoded(machine.receive(body(b"abc", eos)))
    assert_decision(reply.request_body.response, reply)
    assert not reply.request_body.response.HasField("body_mutation")
    assert (handler.requests[0].body, handler.requests[0].body_complete) == (b"abc", complete)


def test_buffered_replacement_sets_the_length() -> None:
    machine = exchange(Recorder(Route(body=b"longer")))
    machine.receive(headers(mode=BodyMode.BUFFERED))
    [reply] = decoded(machine.receive(body(b"x", True)))
    common = reply.request_body.response
    assert common.body_mutation.body == b"longer"
    assert [(o.header.key, o.header.raw_value) for o in common.header_mutation.set_headers] == [
        ("content-length", b"6")
    ]


def test_no_protocol_config_means_full_duplex() -> None:
    machine = exchange(Recorder())
    assert machine.receive(headers(mode=None)) == []
    assert kinds(machine.receive(body(b"a", True))) == ["request_headers", "request_body"]


def test_an_immediate_answer_ends_the_stream() -> None:
    handler = Recorder(Immediate(503, b"inference error: x", [("x-reason", b"r")], "ServiceUnavailable"))
    machine = exchange(handler)
    machine.receive(headers())
    [reply] = decoded(machine.receive(body(b"{}", True)))
    assert reply.immediate_response.status.code == 503
    assert reply.immediate_response.body == b"inference error: x"
    assert reply.immediate_response.details == "ServiceUnavailable"
    assert reply.immediate_response.headers.set_headers[0].header.key == "x-reason"
    assert machine.finished
    assert handler.ends == [End.COMPLETE]
    assert machine.receive(response_headers()) == []


def test_a_body_over_the_limit_is_decided_on_its_beginning() -> None:
    handler = Recorder(Immediate(413))
    machine = exchange(handler, limit=10)
    machine.receive(headers())
    assert machine.receive(body(b"x" * 10, False)) == []
    assert kinds(machine.receive(body(b"x", False))) == ["immediate_response"]
    assert not handler.requests[0].body_complete


def test_a_body_in_many_pieces_is_put_together_and_handed_on() -> None:
    handler = Recorder()
    machine = exchange(handler)
    machine.receive(headers())
    for piece in (b"", b"ab", b"", b"cd", b"e"):
        assert machine.receive(body(piece, False)) == []
    assert not isinstance(machine._body, list)
    replies = decoded(machine.receive(body(b"", True)))
    assert handler.requests[0].body == b"abcde"
    assert [r.request_body.response.body_mutation.streamed_response.body for r in replies[1:]] == [b"abcde"]


def test_what_is_no_body_must_be_small() -> None:
    machine = exchange(Recorder())
    with pytest.raises(ProtocolError, match="no body"):
        machine.receive(headers(("x", "y" * MOST_PARSED_BYTES)))
    machine = exchange(Recorder(), limit=1 << 24)
    machine.receive(headers())
    large = ProcessingRequest.FromString(body(b"x" * (MOST_PARSED_BYTES + 10), True))
    large.metadata_context.filter_metadata["n"].update({"k": "v"})
    assert machine.receive(large.SerializeToString())


def test_a_route_that_wants_no_response_ends_after_the_request_phase() -> None:
    handler = Recorder(Route(watch=Watch.NOTHING))
    machine = exchange(handler)
    machine.receive(headers())
    machine.receive(body(b"{}", True))
    assert machine.finished
    assert handler.ends == [End.UNWATCHED]


def routed(handler: Recorder, response: BodyMode = DUPLEX) -> Exchange:
    machine = exchange(handler)
    machine.receive(headers(response=response))
    machine.receive(body(b"{}", True))
    return machine


def test_a_route_that_watches_the_headers_ends_with_the_answer_to_them() -> None:
    handler = Recorder(Route(watch=Watch.HEADERS))
    machine = routed(handler, BodyMode.STREAMED)
    assert not machine.finished
    assert kinds(machine.receive(response_headers())) == ["response_headers"]
    assert machine.finished
    assert handler.ends == [End.UNWATCHED]


def test_the_response_passes_by_and_completes_at_its_end() -> None:
    handler = Recorder()
    machine = routed(handler)
    [reply] = decoded(machine.receive(response_headers()))
    assert [
        (o.header.key, o.header.raw_value) for o in reply.response_headers.response.header_mutation.set_headers
    ] == [("x-went-into-resp-headers", b"true")]
    [piece] = decoded(machine.receive(response_body(b"data: 1\n\n", False)))
    streamed = piece.response_body.response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"data: 1\n\n", False)
    assert handler.ends == []
    [last] = decoded(machine.receive(response_body(b"", True)))
    assert last.response_body.response.body_mutation.streamed_response.end_of_stream
    assert handler.ends == [End.COMPLETE]
    assert handler.response == [({":status": "200"}, False), (b"data: 1\n\n", False), (b"", True)]


def test_a_large_response_chunk_is_cut_and_ends_once() -> None:
    machine = routed(Recorder())
    pieces = [
        r.response_body.response.body_mutation.streamed_response
        for r in decoded(machine.receive(response_body(b"y" * (2 * CHUNK_BYTES + 1), True)))
    ]
    assert [len(p.body) for p in pieces] == [CHUNK_BYTES, CHUNK_BYTES, 1]
    assert [p.end_of_stream for p in pieces] == [False, False, True]


@pytest.mark.parametrize("mode", [BodyMode.STREAMED, BodyMode.BUFFERED])
def test_other_response_modes_are_answered_without_a_body(mode: BodyMode) -> None:
    machine = routed(Recorder(), response=mode)
    [reply] = decoded(machine.receive(response_body(b"abc", True)))
    assert reply.HasField("response_body")
    assert not reply.response_body.response.HasField("body_mutation")


def test_a_response_of_headers_alone_is_complete() -> None:
    handler = Recorder()
    routed(handler).receive(response_headers(end=True, status="204"))
    assert handler.ends == [End.COMPLETE]


def test_response_trailers_complete_and_are_answered() -> None:
    handler = Recorder()
    machine = routed(handler)
    machine.receive(response_body(b"a", False))
    assert kinds(machine.receive(response_trailers())) == ["response_trailers"]
    assert handler.ends == [End.COMPLETE]


def test_closing_tells_the_handler_once() -> None:
    handler = Recorder()
    machine = routed(handler)
    machine.close(End.GONE)
    machine.close(End.COMPLETE)
    machine.receive(response_body(b"late", True))
    assert handler.ends == [End.GONE]
    assert handler.response == []


def test_messages_wait_for_an_awaited_decision() -> None:
    async def decide() -> Outcome:
        return ROUTE

    decision = decide()
    machine = exchange(Recorder(decision))
    assert machine.receive(headers(mode=BodyMode.STREAMED)) == []
    assert machine.awaiting is decision
    assert machine.receive(body(b"{}", False)) == []
    assert machine.receive(trailers()) == []
    outcome = asyncio.run(decision)  # type: ignore[arg-type]
    assert kinds(machine.decided(outcome)) == ["request_headers", "request_body", "request_trailers"]


def test_metadata_arrives_as_plain_values() -> None:
    handler = Recorder()
    machine = exchange(handler)
    message = ProcessingRequest.FromString(headers(end=True))
    subset = message.metadata_context.filter_metadata["envoy.lb.subset_hint"]
    subset.update({"k": ["10.0.0.1:8000", "10.0.0.2:8000"], "n": 1.5, "s": {"deep": True}, "none": None})
    machine.receive(message.SerializeToString())
    assert handler.requests[0].metadata == {
        "envoy.lb.subset_hint": {"k": ["10.0.0.1:8000", "10.0.0.2:8000"], "n": 1.5, "s": {"deep": True}, "none": None}
    }


def test_observability_mode_is_not_answered_and_not_routed() -> None:
    handler = Recorder()
    machine = exchange(handler)
    message = ProcessingRequest.FromString(headers(end=True))
    message.observability_mode = True
    assert machine.receive(message.SerializeToString()) == []
    assert handler.requests == []
    assert handler.ends == [End.UNWATCHED]
    assert (machine.finished, machine.observed) == (True, True)


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([b"\xff\xff\xff"], "no ProcessingRequest"),
        ([headers(), headers()], "second message with request headers"),
        ([body(b"x", True)], "before the request headers"),
        ([trailers()], "before the request headers"),
    ],
)
def test_what_is_no_protocol_is_refused(messages: list[bytes], says: str) -> None:
    machine = exchange(Recorder())
    for message in messages[:-1]:
        machine.receive(message)
    with pytest.raises(ProtocolError, match=says):
        machine.receive(messages[-1])


def test_an_unknown_body_mode_names_the_remedy() -> None:
    message = ProcessingRequest.FromString(headers())
    message.protocol_config.request_body_mode = 9
    with pytest.raises(ProtocolError, match="FULL_DUPLEX_STREAMED or BUFFERED"):
        exchange(Recorder()).receive(message.SerializeToString())
