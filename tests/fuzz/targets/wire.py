# SPDX-License-Identifier: Apache-2.0
"""Body messages read by hand against the full parse.

* What `read_body` reads, protobuf reads the same, unless protobuf refuses a field that was only stepped over; then the
  message without that field reads the same.
* A message as protobuf writes it, with nothing beside the body, is read by hand.
* The reply made from the encoded piece is a streamed piece with the same content.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from epp.extproc import wire
from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from tests.fuzz.harness import Run, Target

_NAMES = {wire.REQUEST_BODY: "request_body", wire.RESPONSE_BODY: "response_body"}


def _make() -> Run:
    heads = wire.Heads()

    def run(data: bytes) -> None:
        name = _NAMES.get(data[0]) if data else None
        if name is None:
            return
        found = wire.read_body(data)
        message = _parsed(data)
        if found is None:
            if message is not None and _plain(message, name) == data:
                raise AssertionError("a plain message is not read by hand")
            return
        encoded, body, end = found
        if message is None:
            message = _parsed(data[: _head_bytes(data) + len(encoded)])
        assert message is not None
        assert message.WhichOneof("request") == name
        assert not message.observability_mode
        member = getattr(message, name)
        assert (member.body, member.end_of_stream) == (body, end)
        reply = ProcessingResponse.FromString(heads.reply(data[0], encoded))
        piece = getattr(reply, name).response.body_mutation.streamed_response
        assert (piece.body, piece.end_of_stream) == (body, end)
        assert len(heads._kept) <= wire.KEPT_HEADS

    return run


def _head_bytes(data: bytes) -> int:
    """Bytes of the first field's tag and length."""
    return 2 + next(i for i, byte in enumerate(data[1:]) if byte < 0x80)


def _parsed(data: bytes) -> ProcessingRequest | None:
    try:
        return ProcessingRequest.FromString(data)
    except DecodeError:
        return None


def _plain(message: ProcessingRequest, name: str) -> bytes:
    """`message` with its body alone, as protobuf writes it."""
    plain = ProcessingRequest()
    member, given = getattr(plain, name), getattr(message, name)
    member.SetInParent()
    member.body, member.end_of_stream = given.body, given.end_of_stream
    return plain.SerializeToString()


def _seeds() -> list[bytes]:
    seeds = []
    for name in _NAMES.values():
        for body, end in ((b"", False), (b"", True), (b"hello", False), (b"hello", True), (b"x" * 200, True)):
            for metadata in (False, True):
                message = ProcessingRequest()
                member = getattr(message, name)
                member.SetInParent()
                member.body, member.end_of_stream = body, end
                if metadata:
                    message.metadata_context.filter_metadata["envoy.lb"].update({"k": ["v", 1.5, None]})
                seeds.append(message.SerializeToString())
    return seeds


_WORDS = (
    b"\x22",
    b"\x2a",
    b"\x0a",
    b"\x10\x01",
    b"\x10\x00",
    b"\x42",
    b"\x4a",
    b"\x50\x01",
    b"\x80\x00",
    b"\xff" * 9 + b"\x01",
)
TARGET = Target("wire", _make, _seeds, _WORDS)
