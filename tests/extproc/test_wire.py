# SPDX-License-Identifier: Apache-2.0
"""Bodies read and written by hand must be what protobuf reads and writes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epp.extproc import wire
from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse

BODIES = st.binary(max_size=300) | st.sampled_from([127, 128, 16_383, 16_384, 62_000, 2_100_000]).map(
    lambda n: b"x" * n
)


def request_message(kind: int, body: bytes, end: bool, metadata: bool = False) -> bytes:
    message = ProcessingRequest()
    member = message.request_body if kind == wire.REQUEST_BODY else message.response_body
    member.SetInParent()
    member.body = body
    member.end_of_stream = end
    if metadata:
        message.metadata_context.filter_metadata["envoy.lb"].update({"k": "v"})
    return message.SerializeToString()


@given(st.sampled_from([wire.REQUEST_BODY, wire.RESPONSE_BODY]), BODIES, st.booleans())
def test_what_protobuf_writes_is_read(kind: int, body: bytes, end: bool) -> None:
    found = wire.read_body(request_message(kind, body, end))
    assert found is not None
    assert found[1:] == (body, end)
    assert found[0] == wire.encode_body(body, end)


@given(st.sampled_from([wire.REQUEST_BODY, wire.RESPONSE_BODY]), BODIES, st.booleans())
def test_replies_are_what_protobuf_writes(kind: int, body: bytes, end: bool) -> None:
    expected = ProcessingResponse()
    member = expected.request_body if kind == wire.REQUEST_BODY else expected.response_body
    piece = member.response.body_mutation.streamed_response
    piece.SetInParent()
    piece.body, piece.end_of_stream = body, end
    assert wire.Heads().reply(kind, wire.encode_body(body, end)) == expected.SerializeToString()


def test_metadata_may_follow_a_response_body_but_sends_a_request_body_to_the_parser() -> None:
    assert wire.read_body(request_message(wire.RESPONSE_BODY, b"abc", True, metadata=True)) is not None
    assert wire.read_body(request_message(wire.REQUEST_BODY, b"abc", True, metadata=True)) is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x2a",
        b"\x2a\x05",
        b"\x2a\x03\x0a\x02a",
        b"\x2a\x04\x0a\x02ab\x50\x01",
        b"\x2a\x03\x10\x01\x18",
        b"\x2a\x04\x10\x00\x10\x01",
        b"\x2a\x05\x0a\x09abc",
        b"\x2a" + b"\xff" * 40,
        # A length that says more than there is, though an end of stream stands at the end.
        b"\x2a\x09\x0a\x03abc\x10\x01",
        # What follows the metadata counts: observability mode, another body, another kind of message.
        b"\x2a\x02\x10\x01\x42\x00\x50\x01",
        b"\x2a\x02\x10\x01\x42\x00\x2a\x03\x0a\x01x",
        b"\x2a\x02\x10\x01\x42\x00\x12\x00",
        b"\x2a\x02\x10\x01\x42\x05",
    ],
)
def test_other_forms_are_left_to_the_parser(data: bytes) -> None:
    assert wire.read_body(data) is None


@given(st.binary(max_size=60))
@example(b"\x0a\x03abc\x10\x01")
def test_any_bytes_are_read_as_protobuf_reads_them_or_not_at_all(inner: bytes) -> None:
    data = b"\x2a" + bytes([len(inner)]) + inner
    found = wire.read_body(data)
    if found is not None:
        body = ProcessingRequest.FromString(data).response_body
        assert found[1:] == (body.body, body.end_of_stream)


def test_an_endless_length_is_given_up_at_once() -> None:
    # Summing it up would take minutes.
    assert wire.read_body(b"\x2a" + b"\xff" * 8_000_000) is None


def test_kept_heads_are_bounded() -> None:
    heads = wire.Heads()
    for size in range(wire.KEPT_HEADS + 10):
        heads.reply(wire.RESPONSE_BODY, b"x" * size if size < 9 else wire.encode_body(b"x" * size, False))
    assert len(heads._kept) <= wire.KEPT_HEADS


@pytest.mark.parametrize("metadata", [False, True])
@pytest.mark.parametrize("size", [0, 5, 200, 70_000])
def test_the_bytes_of_the_body_are_known_without_reading_it(size: int, metadata: bool) -> None:
    alone = request_message(wire.REQUEST_BODY, b"x" * size, True)
    assert wire.body_bytes(request_message(wire.REQUEST_BODY, b"x" * size, True, metadata)) == len(alone)
    assert wire.body_bytes(alone[:-1]) == len(alone) - 1
    assert wire.body_bytes(b"\x12" + alone[1:]) == 0
    assert wire.body_bytes(b"\x22" + b"\xff" * 40) == 0
