# SPDX-License-Identifier: Apache-2.0
"""An HTTP/1.1 answer, however it arrives.

* The outcome (complete or not, body, keep-alive, where it ends; or the reason of the error) is the same in one piece,
  in the pieces drawn, and byte by byte.
* Only `PageError` is raised, with a known reason and one line.
* A body is never longer than the limit, and lies within what arrived.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from epp.signals.poll.buffers import MIB, BufferPool
from epp.signals.poll.http1 import REASONS, PageError, ResponseParser
from epp.signals.poll.reader import _Connection
from tests.fuzz.harness import Input, Run, Target, one_line, with_cuts

LIMIT_BYTES = 2000
_MOST_SINGLE_BYTES = 4096
Outcome = tuple[str, bytes, bool, int]


def _make() -> Run:
    def run(data: bytes) -> None:
        source = Input(data)
        cuts = source.cuts()
        eof = bool(source.byte() & 1)
        raw = source.rest()
        expected = _read(raw, [], eof)
        assert _read(raw, cuts, eof) == expected
        if len(raw) <= _MOST_SINGLE_BYTES:
            assert _read(raw, range(1, len(raw)), eof) == expected

    return run


def _read(raw: bytes, cuts: Iterable[int], eof: bool) -> Outcome:
    parser = ResponseParser(LIMIT_BYTES)
    buffer = bytearray(len(raw))
    arrived, complete = 0, False
    try:
        for cut in [*(min(cut, len(raw)) for cut in cuts), len(raw)]:
            buffer[arrived:cut] = raw[arrived:cut]
            arrived = cut
            if parser.advance(buffer, arrived):
                complete = True
                break
        complete = complete or (eof and parser.finish(arrived))
    except PageError as error:
        one_line(error)
        assert error.reason in REASONS
        return error.reason, b"", False, 0
    assert parser.body_start <= parser.body_end <= arrived or not complete
    if not complete:
        return "more", b"", False, 0
    if parser.keep_alive:
        assert parser.body_end - parser.body_start <= LIMIT_BYTES
    return "complete", bytes(buffer[parser.body_start : parser.body_end]), parser.keep_alive, parser.end


class Endless:
    """The reader of one page and its connection, to which as much may be said as it takes; `error` ends it."""

    def __init__(self) -> None:
        self.error: PageError | None = None
        self.buffers = BufferPool()
        self.max_bytes = 8 * MIB
        self.meter = None
        self._connection = _Connection(cast(Any, self))
        self._connection.ask(b"")
        self.error = None
        self._connection._parser = ResponseParser(self.max_bytes)

    def say(self, data: bytes) -> None:
        """Bytes from the endpoint."""
        view = memoryview(data)
        while view and self.error is None:
            buffer = self._connection.get_buffer(-1)
            count = min(len(buffer), len(view))
            buffer[:count] = view[:count]
            self._connection.buffer_updated(count)
            view = view[count:]

    def answered(self, connection: object, buffer: bytearray, start: int, end: int) -> None:
        raise AssertionError("the answer has no end")

    def broke(self, connection: object, error: PageError, *, untouched: bool = False) -> None:
        self.error = error


_OK = b"HTTP/1.1 200 OK\r\n"
_SEEDS = (
    _OK + b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    _OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n003;x=y\r\nell\r\n1\r\no\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + _OK + b"Content-Length: 1, 1\r\n\r\nx",
    b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
    b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
)
_WORDS = (
    b"\r\n", b"\r\n\r\n", b"HTTP/1.1 ", b"HTTP/1.1 100 \r\n\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked",
    b"Connection: close", b"Content-Encoding: gzip", b"0\r\n", b"0\r\n\r\n", b"7d1\r\n", b"fffffffffffffff\r\n", b";", b":",
    b"a" * 1025, b"0" * 700, b"\x15\x03\x01",
)  # fmt: skip


def _seeds() -> list[bytes]:
    return [with_cuts(bytes([eof]) + seed, 5, 17, 40) for seed in _SEEDS for eof in (0, 1)]


TARGET = Target("http1", _make, _seeds, _WORDS)
