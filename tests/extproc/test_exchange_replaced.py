# SPDX-License-Identifier: Apache-2.0
"""A handler that puts something else in the place of a response's body, in every response body mode."""

from __future__ import annotations

import pytest

from epp.extproc import BodyMode, End, Exchange
from epp.extproc.replies import CHUNK_BYTES
from epp.protos.ext_proc_pb2 import ProcessingResponse
from tests.extproc.messages import (
    DUPLEX,
    Recorder,
    decoded,
    exchange,
    headers,
    response_body,
    response_headers,
    response_trailers,
)

STREAMED = BodyMode.STREAMED


class Longer(Recorder):
    """Says every piece twice; keeps a last `!` back until more comes."""

    kept = b""

    def response_body(self, chunk: bytes, end: bool) -> bytes:  # type: ignore[override]
        super().response_body(chunk, end)
        data, self.kept = self.kept + chunk, b""
        if data.endswith(b"!") and not end:
            data, self.kept = data[:-1], b"!"
        return data * 2


def opened(mode: BodyMode, handler: Recorder) -> Exchange:
    machine = exchange(handler)
    machine.receive(headers((":method", "GET"), end=True, response=mode))
    machine.receive(response_headers())
    return machine


def replies(machine: Exchange, data: bytes) -> list[ProcessingResponse]:
    return decoded(machine.receive(data))


def test_every_piece_is_answered_with_its_replacement() -> None:
    handler = Longer()
    machine = opened(STREAMED, handler)
    [first] = replies(machine, response_body(b"ab!", False))
    common = first.response_body.response
    assert common.body_mutation.body == b"abab"
    # Envoy drops the length by itself where it does not hold the headers back.
    assert not common.header_mutation.set_headers
    [last] = replies(machine, response_body(b"c", True))
    assert last.response_body.response.body_mutation.body == b"!c!c"
    assert handler.ends == [End.COMPLETE]


@pytest.mark.parametrize("mode", [BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL])
def test_of_the_one_piece_of_a_buffering_mode_nothing_is_kept_back(mode: BodyMode) -> None:
    handler = Longer()
    machine = opened(mode, handler)
    [reply] = replies(machine, response_body(b"ab!", False))
    assert reply.response_body.response.body_mutation.body == b"ab!ab!"
    [trailers] = replies(machine, response_trailers())
    assert trailers.HasField("response_trailers")
    assert [entry for entry in handler.response if entry == (b"", True)] == []


def test_an_empty_replacement_is_said_and_no_replacement_is_not() -> None:
    machine = opened(STREAMED, Longer())
    [reply] = replies(machine, response_body(b"!", False))
    assert reply.response_body.response.body_mutation.WhichOneof("mutation") == "body"
    [plain] = replies(opened(STREAMED, Recorder()), response_body(b"!", False))
    assert not plain.response_body.response.HasField("body_mutation")


def test_a_buffered_body_gets_its_new_length() -> None:
    [reply] = replies(opened(BodyMode.BUFFERED, Longer()), response_body(b"abc", True))
    common = reply.response_body.response
    assert common.body_mutation.body == b"abcabc"
    [length] = common.header_mutation.set_headers
    assert (length.header.key, length.header.raw_value) == ("content-length", b"6")


def test_full_duplex_sends_what_there_is_in_pieces_of_the_usual_size() -> None:
    machine = opened(DUPLEX, Longer())
    assert replies(machine, response_body(b"!", False)) == []
    pieces = replies(machine, response_body(b"x" * CHUNK_BYTES, False))
    streamed = [piece.response_body.response.body_mutation.streamed_response for piece in pieces]
    assert [len(one.body) for one in streamed] == [CHUNK_BYTES, CHUNK_BYTES, 2]
    assert not any(one.end_of_stream for one in streamed)
    [last] = replies(machine, response_body(b"", True))
    assert last.response_body.response.body_mutation.streamed_response.end_of_stream


def test_what_is_kept_back_goes_before_the_trailers() -> None:
    handler = Longer()
    machine = opened(DUPLEX, handler)
    replies(machine, response_body(b"a!", False))
    [rest, trailers] = replies(machine, response_trailers())
    streamed = rest.response_body.response.body_mutation.streamed_response
    assert (streamed.body, streamed.end_of_stream) == (b"!!", False)
    assert trailers.HasField("response_trailers")
    assert handler.ends == [End.COMPLETE]


def test_where_pieces_are_answered_one_by_one_nothing_is_added_at_the_trailers() -> None:
    machine = opened(STREAMED, Longer())
    replies(machine, response_body(b"a!", False))
    [trailers] = replies(machine, response_trailers())
    assert trailers.HasField("response_trailers")


def test_trailers_without_a_body_ask_for_none() -> None:
    handler = Longer()
    machine = opened(DUPLEX, handler)
    [trailers] = replies(machine, response_trailers())
    assert trailers.HasField("response_trailers")
    assert len(handler.response) == 1
