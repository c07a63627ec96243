# SPDX-License-Identifier: Apache-2.0
"""Bodies on the wire, without building messages: bodies are most of the bytes and, streamed, most of the messages.

`HttpBody` (what Envoy sends) and `StreamedBodyResponse` (what we send back) have the same encoding: bytes in field 1,
a bool in field 2. So a piece that passes by is sent back as the very bytes it came in, behind a head that depends on
their number alone. Only the plain form that protobuf libraries write is read here; for any other, `read_body` says
None and the message is parsed in full.

    ProcessingRequest   request_body = 4, response_body = 5: HttpBody {body = 1, end_of_stream = 2}
    ProcessingResponse  request_body = 3, response_body = 4: {response = 1 {body_mutation = 3 {streamed_response = 3}}}
"""

from __future__ import annotations

REQUEST_BODY = 0x22
RESPONSE_BODY = 0x2A
_REPLY_TAGS = {REQUEST_BODY: b"\x1a", RESPONSE_BODY: b"\x22"}
_BODY = 0x0A
_END = b"\x10\x01"
# What may follow the body in Envoy's messages: metadata_context and attributes.
_LATER_FIELDS = (0x42, 0x4A)
_LONGEST_SHIFT = 28
KEPT_HEADS = 4096

Body = tuple[bytes, bytes, bool]
"""The encoded piece, the piece itself, and whether it is the last."""


def read_body(data: bytes) -> Body | None:
    """The body of a message whose first byte is `REQUEST_BODY` or `RESPONSE_BODY`; None when it must be parsed."""
    try:
        size, start = _length(data, 1)
        stop = start + size
        # Metadata that comes with a request's body may still count for the choice.
        if stop < len(data) and (data[0] == REQUEST_BODY or not _only_later_fields(data, stop)):
            return None
        body, after = b"", start
        if size and data[start] == _BODY:
            length, first = _length(data, start + 1)
            after = first + length
            body = data[first:after]
    except IndexError:
        return None
    if stop > len(data) or after > stop:
        return None
    rest = data[after:stop]
    if rest == _END:
        return data[start:stop], body, True
    return None if rest else (data[start:stop], body, False)


def body_bytes(data: bytes) -> int:
    """Bytes of a message that are the body at its front, 0 when there is none; the body itself is not looked at."""
    if data[0] not in _REPLY_TAGS:
        return 0
    try:
        size, start = _length(data, 1)
    except IndexError:
        return 0
    return min(start + size, len(data))


def encode_body(body: bytes, end: bool) -> bytes:
    """A piece in the encoding that both messages share."""
    head = b"\x0a" + _varint(len(body)) + body if body else b""
    return head + _END if end else head


class Heads:
    """What stands before an encoded piece in a reply; kept by length, as the same lengths come again and again."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int], bytes] = {}

    def reply(self, kind: int, encoded: bytes) -> bytes:
        """The reply to a body message of `kind` that hands `encoded` on."""
        key = (kind, len(encoded))
        head = self._kept.get(key)
        if head is None:
            if len(self._kept) >= KEPT_HEADS:
                self._kept.clear()
            head = self._kept[key] = _head(kind, len(encoded))
        return head + encoded


def _head(kind: int, size: int) -> bytes:
    head = b""
    for tag in (b"\x1a", b"\x1a", b"\x0a", _REPLY_TAGS[kind]):
        head = tag + _varint(size + len(head)) + head
    return head


def _only_later_fields(data: bytes, at: int) -> bool:
    """Whether fields that say nothing of the body, and no other, fill the message from `at` to its end."""
    while at < len(data):
        if data[at] not in _LATER_FIELDS:
            return False
        size, at = _length(data, at + 1)
        at += size
    return at == len(data)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _length(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at` and where it ends. Raises `IndexError` when it ends nowhere, or is none a length would be."""
    number = data[at]
    if number < 0x80:
        return number, at + 1
    number &= 0x7F
    shift = 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at + 1
        shift += 7
        if shift > _LONGEST_SHIFT:
            raise IndexError
