# SPDX-License-Identifier: Apache-2.0
"""Authorities that are none, let through: Istio's Envoy names a cluster `outbound|9002||epp.ns.svc.cluster.local`, and
sends that as `:authority` where nothing else is configured. libnghttp2 resets a stream whose authority holds a
character that RFC 3986 does not allow there, before anybody sees it, and this cannot be switched off.

So the first header block of a connection is looked at before the engine gets it. Where its authority is fine, nothing
is looked at any more: a client of Envoy's kind says the same authority in all streams of a connection. Where it is not,
characters that are not allowed become `STAND_IN`, in this block and in every later one that spells the authority out.
As long as the value keeps its length, the tables of HPACK (RFC 7541) on both sides stay in step; it is written without
Huffman coding. What cannot be read is passed on as it is: refusing is the engine's part.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman

from epp.transport.engine import FRAME_BYTES

STAND_IN = "!"
"""Allowed in an authority, and in no host's or cluster's name."""
_NOT_ALLOWED = re.compile(rb"[^A-Za-z0-9._~%!$&'()*+,;=:@\[\]-]")
_PREFACE_BYTES = 24
_HEADER_BYTES = 9
_HEADERS = 0x1
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20
_PRIORITY_BYTES = 5
_AUTHORITY_INDEX = 1
"""Of the name `:authority` in HPACK's static table."""
_LONGEST_INTEGER = 5

Receive = Callable[[bytes | memoryview], object]


class Authorities:
    """Stands before the engine's `receive` and is called in its place, with every read of one connection."""

    __slots__ = ("_held", "_mended", "_passing_bytes", "_plain", "_receive")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._plain = False
        self._mended = False
        self._held = b""
        self._passing_bytes = _PREFACE_BYTES

    def __call__(self, data: bytes | memoryview) -> None:
        """One read, or a slice of one."""
        if self._plain:
            self._receive(data)
            return
        fit = self._fit(self._held + bytes(data))
        if fit:
            self._receive(fit)

    def _fit(self, data: bytes) -> bytes:
        """What the engine may have of `data`; an incomplete header block is held back."""
        self._held = b""
        parts: list[bytes] = []
        start = at = 0
        while not self._plain:
            at += self._passing_bytes
            self._passing_bytes = max(at - len(data), 0)
            if self._passing_bytes:
                break
            length = int.from_bytes(data[at : at + 3], "big")
            end = at + _HEADER_BYTES + length
            if len(data) < at + _HEADER_BYTES:
                self._held = data[at:]
                return b"".join((*parts, data[start:at]))
            if data[at + 3] != _HEADERS or length > FRAME_BYTES:
                self._passing_bytes = _HEADER_BYTES + length
                continue
            if len(data) < end:
                self._held = data[at:]
                return b"".join((*parts, data[start:at]))
            mended = mend(data[at:end])
            if mended is not None:
                self._mended = True
                parts += (data[start:at], mended)
                start = end
            self._plain = not self._mended
            at = end
        return b"".join((*parts, data[start:]))


def spelt(authority: bytes) -> str:
    """The authority as the client meant it: cluster names of Istio's hold `|`, and nothing else that is mended."""
    return authority.decode("latin-1").replace(STAND_IN, "|")


def mend(frame: bytes) -> bytes | None:
    """The HEADERS frame with an authority that may be one; None when there is nothing to mend in it."""
    flags, begin, end = frame[4], _HEADER_BYTES, len(frame)
    if not flags & _END_HEADERS:
        return None
    if flags & _PADDED:
        end -= frame[begin] if begin < end else 0
        begin += 1
    if flags & _PRIORITY:
        begin += _PRIORITY_BYTES
    try:
        found = _authority(frame, begin, end)
    except (IndexError, ValueError):
        return None
    if found is None:
        return None
    value, at, after = found
    fit = _NOT_ALLOWED.sub(STAND_IN.encode(), value)
    if fit == value:
        return None
    written = frame[_HEADER_BYTES:at] + _integer(len(fit)) + fit + frame[after:]
    return len(written).to_bytes(3, "big") + frame[3:_HEADER_BYTES] + written


def _authority(block: bytes, at: int, end: int) -> tuple[bytes, int, int] | None:
    """The authority that is spelt out between `at` and `end`, where it begins (with its length) and where it ends."""
    while at < end:
        first = block[at]
        if first & 0x80:
            _, at = _read_integer(block, at, 7)
        elif first & 0xE0 == 0x20:
            _, at = _read_integer(block, at, 5)
        else:
            name, at = _read_integer(block, at, 6 if first & 0x40 else 4)
            if not name:
                length, at = _read_integer(block, at, 7)
                at += length
            begin = at
            huffman = block[at] & 0x80
            length, at = _read_integer(block, at, 7)
            value, at = block[at : at + length], at + length
            if name == _AUTHORITY_INDEX and at <= end:
                return _decoded(value) if huffman else value, begin, at
    return None


def _decoded(value: bytes) -> bytes:
    try:
        return bytes(decode_huffman(value))
    except HPACKDecodingError:
        raise ValueError("not Huffman coded") from None


def _read_integer(block: bytes, at: int, prefix_bits: int) -> tuple[int, int]:
    """HPACK's integer (RFC 7541, 5.1) and what follows it. Raises IndexError or ValueError."""
    most = (1 << prefix_bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for turn in range(_LONGEST_INTEGER):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << (7 * turn)
        if not byte & 0x80:
            return value, at
    raise ValueError("an integer too long")


def _integer(value: int) -> bytes:
    """A string's length, without the mark of Huffman coding."""
    if value < 127:
        return bytes([value])
    value -= 127
    out = bytearray([127])
    while value >= 128:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
