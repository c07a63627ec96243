# SPDX-License-Identifier: Apache-2.0
"""Reads one HTTP/1.1 answer out of a growing buffer. Sans-I/O: no socket, no clock.

Whoever owns the buffer appends what arrived and calls `advance`. The body is never copied out: a body with a length,
and one that came as a single chunk, stay where they are; further chunks are moved down to follow the first. When
`advance` returns true the body is `buffer[body_start:body_end]`.
"""

from __future__ import annotations

import enum
import re

from epp.contract.errors import ScrapeError

MAX_HEAD_BYTES = 65536
# Sixteen thousand pieces are half a kilobyte each in the largest page allowed; smaller ones are an attack on the loop.
MAX_CHUNKS = 16384
_MAX_CHUNK_LINE_BYTES = 1024
_TLS_ALERT = 0x15
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: .*)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?")


class PageError(ScrapeError):
    """A page could not be read. `reason` is one of `REASONS`, for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


REASONS = ("connect", "tls", "timeout", "closed", "protocol", "status", "too-large", "empty")


class _State(enum.Enum):
    HEAD = enum.auto()
    LENGTH = enum.auto()
    CHUNK_LINE = enum.auto()
    CHUNK_DATA = enum.auto()
    TRAILERS = enum.auto()
    UNTIL_CLOSE = enum.auto()
    DONE = enum.auto()


class ResponseParser:
    """One answer. `keep_alive` says whether the connection may be used again; `size_hint` how many bytes of buffer
    the answer needs as far as is known; `end` where the answer ends in the buffer once it is complete.
    """

    __slots__ = (
        "_at", "_chunk_bytes", "_chunks", "_max_bytes", "_state", "_trailers_at", "body_end", "body_start",
        "keep_alive",
    )  # fmt: skip

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._state = _State.HEAD
        self._at = 0
        self._chunk_bytes = 0
        self._chunks = 0
        self._trailers_at = 0
        self.body_start = 0
        self.body_end = 0
        self.keep_alive = True

    @property
    def size_hint(self) -> int:
        """Bytes the buffer must hold for the part of the answer that is announced."""
        if self._state is _State.LENGTH:
            return self.body_end
        if self._state is _State.CHUNK_DATA:
            return self._at + self._chunk_bytes + 2
        return 0

    @property
    def end(self) -> int:
        """Where the answer ends, once it is complete."""
        return self._at

    def advance(self, buffer: bytearray, filled: int) -> bool:
        """Look at `buffer[:filled]`; true when the answer is complete. Raises `PageError`."""
        while True:
            state = self._state
            if state is _State.LENGTH:
                if filled < self.body_end:
                    return False
                self._at = self.body_end
                self._state = _State.DONE
            elif state is _State.DONE:
                return True
            elif state is _State.UNTIL_CLOSE:
                self.body_end = self._at = filled
                return False
            elif not self._step(buffer, filled):
                return False

    def finish(self, filled: int) -> bool:
        """The peer closed. True when that completes the answer."""
        if self._state is _State.UNTIL_CLOSE:
            self.body_end = self._at = filled
            return True
        return False

    def _step(self, buffer: bytearray, filled: int) -> bool:
        """One step of the states that read lines and chunks; false when more bytes are needed."""
        if self._state is _State.HEAD:
            return self._read_head(buffer, filled)
        if self._state is _State.CHUNK_LINE:
            return self._read_chunk_line(buffer, filled)
        if self._state is _State.CHUNK_DATA:
            return self._read_chunk_data(buffer, filled)
        return self._read_trailer(buffer, filled)

    def _read_head(self, buffer: bytearray, filled: int) -> bool:
        start = self._at
        if filled > start and not b"HTTP/1.".startswith(buffer[start : min(filled, start + 7)]):
            raise _not_http(bytes(buffer[start : min(filled, start + 40)]))
        end = buffer.find(b"\r\n\r\n", start, filled)
        # As much of the line's end as may be there already does not count, so that no cut makes a difference.
        if (end if end >= 0 else filled - 3) > MAX_HEAD_BYTES:
            raise PageError("too-large", f"the answer's head is over {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        lines = bytes(buffer[start:end]).split(b"\r\n")
        self._at = end + 4
        status = _STATUS_LINE.fullmatch(lines[0])
        if status is None:
            raise _not_http(lines[0][:40])
        code = int(status[2])
        if 100 <= code < 200 and code != 101:
            return True
        headers = _fields(lines[1:])
        if code != 200:
            raise _bad_status(code, headers)
        self._choose_framing(headers, http_1_1=status[1] == b"1")
        return True

    def _choose_framing(self, headers: dict[bytes, bytes], http_1_1: bool) -> None:
        encoding = headers.get(b"content-encoding", b"identity").lower()
        if encoding not in (b"identity", b""):
            raise PageError("protocol", f"the answer is encoded as {_text(encoding)}, though identity was asked for")
        connection = {token.strip() for token in headers.get(b"connection", b"").lower().split(b",")}
        self.keep_alive = b"close" not in connection and (http_1_1 or b"keep-alive" in connection)
        transfer = headers.get(b"transfer-encoding")
        length = headers.get(b"content-length")
        self.body_start = self.body_end = self._at
        if transfer is not None:
            if transfer.lower() != b"chunked":
                raise PageError("protocol", f"the answer's transfer-encoding is {_text(transfer)}, not chunked")
            self._state = _State.CHUNK_LINE
        elif length is not None:
            # A repeated field is allowed when it says the same thing each time.
            lengths = {part.strip() for part in length.split(b",")}
            if len(lengths) != 1 or not _LENGTH.fullmatch(min(lengths)):
                raise PageError("protocol", f"the answer's content-length is {_text(length)}")
            size = int(min(lengths))
            self._grow(size)
            self.body_end = self._at + size
            self._state = _State.LENGTH
        else:
            self.keep_alive = False
            self._state = _State.UNTIL_CLOSE

    def _read_chunk_line(self, buffer: bytearray, filled: int) -> bool:
        end = buffer.find(b"\r\n", self._at, filled)
        if (end if end >= 0 else filled - 1) - self._at > _MAX_CHUNK_LINE_BYTES:
            raise PageError("protocol", "the answer's chunks have no sizes")
        if end < 0:
            return False
        size = _CHUNK_SIZE.fullmatch(buffer, self._at, end)
        if size is None:
            raise PageError("protocol", f"{_text(buffer[self._at : end][:40])} is no chunk size")
        self._at = end + 2
        self._chunk_bytes = int(size[1], 16)
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise PageError("too-large", f"the answer has over {MAX_CHUNKS} chunks")
        self._grow(self._chunk_bytes)
        self._state = _State.CHUNK_DATA if self._chunk_bytes else _State.TRAILERS
        self._trailers_at = self._at
        return True

    def _read_chunk_data(self, buffer: bytearray, filled: int) -> bool:
        at, size = self._at, self._chunk_bytes
        if filled < at + size + 2:
            return False
        if buffer[at + size : at + size + 2] != b"\r\n":
            raise PageError("protocol", "a chunk of the answer is longer than it says")
        if self.body_end == self.body_start:
            self.body_start = self.body_end = at
        else:
            view = memoryview(buffer)
            view[self.body_end : self.body_end + size] = view[at : at + size]
        self.body_end += size
        self._at = at + size + 2
        self._state = _State.CHUNK_LINE
        return True

    def _read_trailer(self, buffer: bytearray, filled: int) -> bool:
        end = buffer.find(b"\r\n", self._at, filled)
        if (end if end >= 0 else filled - 1) - self._trailers_at > MAX_HEAD_BYTES:
            raise PageError("too-large", f"the answer's trailers are over {MAX_HEAD_BYTES} bytes")
        if end < 0:
            return False
        if end == self._at:
            self._state = _State.DONE
        self._at = end + 2
        return True

    def _grow(self, more: int) -> None:
        if self.body_end - self.body_start + more > self._max_bytes:
            raise too_large(self._max_bytes)


def too_large(max_bytes: int) -> PageError:
    """The page is over the limit."""
    return PageError("too-large", f"the page is over {max_bytes} bytes")


def _fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """Header fields by lower-case name; values of equal names joined by commas."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            key = name.lower()
            value = value.strip()
            fields[key] = fields[key] + b"," + value if key in fields else value
    return fields


def _bad_status(code: int, headers: dict[bytes, bytes]) -> PageError:
    location = headers.get(b"location")
    if 300 <= code < 400 and location:
        where = f"{code} to {_text(location[:200])}; redirects are not followed, give the path that answers 200"
        return PageError("status", f"the answer is {where}")
    remedy = "; is the metrics path right?" if code == 404 else ""
    return PageError("status", f"the answer's status is {code}, not 200{remedy}")


def _not_http(start: bytes) -> PageError:
    if start and start[0] == _TLS_ALERT:
        return PageError("protocol", "the endpoint speaks TLS; set the metrics scheme to https")
    return PageError("protocol", f"the answer is not HTTP/1.1: it starts with {_text(start)}")


def _text(raw: bytes | bytearray) -> str:
    return ascii(bytes(raw).decode("latin-1"))
