# SPDX-License-Identifier: Apache-2.0
"""Envoy's side of ext_proc conversations, as records of messages: seeds for the targets that hear them."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence

from epp.protos.ext_proc_pb2 import ProcessingRequest
from tests.fuzz.harness import record

MESSAGE, HALF_CLOSE, CANCEL, TURN = 0, 1, 2, 3
"""Kinds of records: a message, and what happens to the stream. TURN lets the loop, or what was awaited, go on."""

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hello there"}],"stream":true}'
BODIES = (
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", b'{"model":"m","prompt":["a",[1,2,3]],"max_tokens":5,"cache_salt":"s"}'),
    (
        "/v1/messages",
        b'{"model":"m","max_tokens":9,"system":[{"type":"text","text":"be brief"}],"messages":[{"role":"user","content":"hello"}]}',
    ),
    ("/v1/responses?x=1", b'{"model":"m","input":"hello","instructions":"be brief","max_output_tokens":9}'),
    ("/v1/embeddings", b'{"model":"m","input":["a","b"]}'),
    ("/elsewhere", b"opaque"),
)
SSE = (
    b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":24,"completion_tokens":178,"total_tokens":202}}\n\n',
    b"data: [DONE]\n\n",
)
WORDS = (
    b"\x12", b"\x1a", b"\x22", b"\x2a", b"\x32", b"\x3a", b"\x42", b"\x50\x01", b"\x5a\x04\x08\x02\x10\x02", b"\x10\x01",
    record(HALF_CLOSE), record(CANCEL), record(TURN), b":status", b":path", b"content-encoding", b"content-type", b"gzip",
    b"text/event-stream", b"x-request-id", b"/v1/completions", b'"usage":{', b"\xff\xfe", b"\xed\xa0\x80", b"\xc2\xb2",
    b'"model":"\\ud800"', b"null", b"[[[[", b"1e999", record(MESSAGE, b"\x22\x02\x10\x01"), record(MESSAGE, b"\x2a\x00"),
    record(MESSAGE, b"\x3a\x00"), record(MESSAGE, b"\x32\x00"),
)  # fmt: skip


def request_headers(
    pairs: Iterable[tuple[str, bytes]],
    *,
    end: bool = False,
    modes: tuple[int, int] | None = (4, 4),
    subset: object = None,
) -> bytes:
    """The first message of a stream."""
    message = ProcessingRequest()
    message.request_headers.end_of_stream = end
    _fill(message.request_headers, pairs)
    if modes is not None:
        message.protocol_config.request_body_mode, message.protocol_config.response_body_mode = modes
    if subset is not None:
        hint = message.metadata_context.filter_metadata["envoy.lb.subset_hint"]
        hint.update({"x-gateway-destination-endpoint-subset": subset})
    return message.SerializeToString()


def response_headers(pairs: Iterable[tuple[str, bytes]], *, end: bool = False) -> bytes:
    """The response's headers."""
    message = ProcessingRequest()
    message.response_headers.end_of_stream = end
    _fill(message.response_headers, pairs)
    return message.SerializeToString()


def body(data: bytes, *, end: bool, response: bool = False) -> bytes:
    """A piece of a body."""
    message = ProcessingRequest()
    member = message.response_body if response else message.request_body
    member.SetInParent()
    member.body, member.end_of_stream = data, end
    return message.SerializeToString()


def trailers(*, response: bool = False) -> bytes:
    """Trailers."""
    message = ProcessingRequest()
    (message.response_trailers if response else message.request_trailers).SetInParent()
    return message.SerializeToString()


def conversations() -> list[bytes]:
    """Whole conversations in every mode, with and without a body, compressed, cut short, and with trailers."""
    found = []
    for path, data in BODIES:
        asked = [(":path", path.encode()), (":method", b"POST"), ("x-request-id", b"id-1")]
        half = len(data) // 2
        for modes in ((4, 4), (0, 0), (1, 1), (2, 2), (3, 3), None):
            said = [request_headers(asked, modes=modes)]
            if modes is None or modes[0] in (1, 4):
                said += [body(data[:half], end=False), body(data[half:], end=True)]
            elif modes[0]:
                said.append(body(data, end=modes[0] == 2))
            found.append(_records([*said, *_answered()]))
    asked = [(":path", b"/v1/chat/completions"), (":method", b"POST"), ("content-encoding", b"gzip")]
    packed = gzip.compress(CHAT, mtime=0)
    found.append(_records([request_headers(asked), body(packed, end=True), *_answered()]))
    found.append(_records([request_headers(asked[:2]), body(CHAT, end=False), trailers(), *_answered(trailed=True)]))
    found.append(_records([request_headers([(":method", b"GET"), (":path", b"/v1/models")], end=True), *_answered()]))
    hints: tuple[object, ...] = ("10.0.0.1:8000", ["10.0.0.2", 7, None], {"a": 1}, [])
    hinted = [request_headers(asked[:2], subset=hint) for hint in hints]
    return found + [_records([headers, body(CHAT, end=True), *_answered()]) for headers in hinted]


def _answered(*, trailed: bool = False) -> list[bytes]:
    said = [response_headers([(":status", b"200"), ("content-type", b"text/event-stream")])]
    said += [body(piece, end=not trailed and piece is SSE[-1], response=True) for piece in SSE]
    return [*said, trailers(response=True)] if trailed else said


def _records(said: Sequence[bytes]) -> bytes:
    return b"".join(record(MESSAGE, message) for message in said) + record(TURN) + record(HALF_CLOSE)


def _fill(member: object, pairs: Iterable[tuple[str, bytes]]) -> None:
    for key, value in pairs:
        header = member.headers.headers.add()  # type: ignore[attr-defined]
        header.key, header.raw_value = key, value
