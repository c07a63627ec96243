# SPDX-License-Identifier: Apache-2.0
"""gRPC frames put together from bytes however cut.

* The messages, and the status of the error that ends them, are the same in one piece, in the pieces drawn, byte by
  byte, and for a plain reading of the whole.
* What is held is never more than one message of the limit with its prefix, and the piece just fed.
"""

from __future__ import annotations

from collections.abc import Sequence

from epp.transport.call import INTERNAL, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from epp.transport.frames import PREFIX_BYTES, Deframer, FrameError
from tests.fuzz.harness import Input, Run, Target, one_line, pieces, with_cuts

LIMIT_BYTES = 300
_ENCODINGS = ("", "identity", "gzip", "\xff")
_MOST_SINGLE_BYTES = 4096
Read = tuple[list[bytes], int, int]


def _make() -> Run:
    def run(data: bytes) -> None:
        source = Input(data)
        cuts = source.cuts()
        encoding = _ENCODINGS[source.byte() % len(_ENCODINGS)]
        raw = source.rest()
        expected = _plainly(raw, encoding)
        assert _read([raw], encoding) == expected
        assert _read(pieces(raw, cuts), encoding) == expected
        if len(raw) <= _MOST_SINGLE_BYTES:
            assert _read([raw[i : i + 1] for i in range(len(raw))], encoding) == expected

    return run


def _read(chunks: Sequence[bytes], encoding: str) -> Read:
    """The messages, the status (0: none), and how many bytes wait for more."""
    frames = Deframer(LIMIT_BYTES, encoding)
    got: list[bytes] = []
    for chunk in chunks:
        try:
            got.extend(frames.feed(chunk))
        except FrameError as error:
            one_line(error)
            return got, error.status, 0
        assert frames.held_bytes <= LIMIT_BYTES + PREFIX_BYTES
    return got, 0, frames.held_bytes


def _plainly(raw: bytes, encoding: str) -> Read:
    got: list[bytes] = []
    while len(raw) >= PREFIX_BYTES:
        flag, length = raw[0], int.from_bytes(raw[1:PREFIX_BYTES], "big")
        if flag:
            refused = flag > 1 or encoding in ("", "identity")
            return got, INTERNAL if refused else UNIMPLEMENTED, 0
        if length > LIMIT_BYTES:
            return got, RESOURCE_EXHAUSTED, 0
        if len(raw) < PREFIX_BYTES + length:
            break
        got.append(raw[PREFIX_BYTES : PREFIX_BYTES + length])
        raw = raw[PREFIX_BYTES + length :]
    return got, 0, len(raw)


def _framed(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)


def _seeds() -> list[bytes]:
    bodies = (_framed(b"", b"a", b"hello" * 20), _framed(b"x" * 300) * 3, _framed(b"abc") + b"\1\0\0\0\1x", b"\0\0\1")
    return [with_cuts(bytes([encoding]) + body, 3, 9, 200) for body in bodies for encoding in range(3)]


_WORDS = (b"\0\0\0\0\0", b"\0\0\0\0\1", b"\1\0\0\0\0", b"\0\0\0\1\x2c", b"\0\0\0\1\x2d", b"\0\xff\xff\xff\xff", b"\2")
TARGET = Target("frames", _make, _seeds, _WORDS)
