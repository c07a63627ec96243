# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 by hand: frames, literal header blocks and a peer on a blocking socket that says whatever a test wants.

Nothing of the server's own engine is used here. Header blocks that come back are read with the package `hpack`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import hpack

HOST = "127.0.0.1"
PATH = "/test.Echo/Echo"
WAIT_S = 20.0

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PRIORITY_UPDATE = 16
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 5, 6, 7, 8, 9
ENHANCE_YOUR_CALM = 11


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """One frame; `length` lies about the payload's when given."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, payload=b"".join(struct.pack(">HI", *item) for item in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def rst_stream(stream_id: int, code: int = CANCEL) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """HPACK's integer (RFC 7541, 5.1)."""
    top = (1 << prefix_bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = [first | top], value - top
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def literal(name: bytes, value: bytes, *, indexed: bool = False) -> bytes:
    """A literal header field, without Huffman; `indexed` puts it into the dynamic table."""
    kind = b"\x40" if indexed else b"\x00"
    return kind + integer(len(name), 7) + name + integer(len(value), 7) + value


def block(fields: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals."""
    return b"".join(literal(name.encode(), value.encode()) for name, value in fields)


REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", PATH),
    (":authority", "test"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)


def request(*more: tuple[str, str], without: str = "") -> bytes:
    """The header block of a gRPC request; a field of `more` takes the place of one with its name."""
    given = dict(more)
    kept = [(name, given.pop(name, value)) for name, value in REQUEST if name != without]
    return block([*kept, *given.items()])


def headers(stream_id: int, fragment: bytes | None = None, *, end: bool = False, flags: int = END_HEADERS) -> bytes:
    """A HEADERS frame."""
    return frame(HEADERS, flags | (END_STREAM if end else 0), stream_id, request() if fragment is None else fragment)


def data(stream_id: int, payload: bytes = b"", *, end: bool = False) -> bytes:
    """A DATA frame."""
    return frame(DATA, END_STREAM if end else 0, stream_id, payload)


def message(payload: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message."""
    return struct.pack(">BI", flag, len(payload) if length is None else length) + payload


@dataclass(repr=False)
class Seen:
    """What came back on one stream."""

    fields: dict[str, str] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    def __repr__(self) -> str:
        return f"Seen({self.fields}, {len(self.data)} bytes, ended={self.ended}, reset={self.reset})"

    @property
    def status(self) -> str | None:
        """The gRPC status, when it came."""
        return self.fields.get("grpc-status")


class Peer:
    """A peer that reads only when it is told to. `goaway`: the error code that came; `gone`: the server hung up."""

    def __init__(
        self, port: int, *, tls: ssl.SSLContext | None = None, greet: bool = True, buffer_bytes: int = 0
    ) -> None:
        self.sock = socket.socket()
        if buffer_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.sock.settimeout(WAIT_S)
        self.sock.connect((HOST, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock)
        self.streams: dict[int, Seen] = {}
        self.settings: dict[int, int] = {}
        self.goaway: int | None = None
        self.last_stream_id: int | None = None
        self.gone = False
        self.pongs: set[bytes] = set()
        self.count: dict[int, int] = {}
        self._held = bytearray()
        self._decoder = hpack.Decoder(max_header_list_size=1 << 20)
        self._pings = 0
        if greet:
            self.say(PREFACE, settings({}))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def say(self, *parts: bytes) -> bool:
        """Send; false when the server has hung up."""
        try:
            self.sock.sendall(b"".join(parts))
        except TimeoutError:
            raise
        except OSError:
            return False
        return True

    def seen(self, stream_id: int) -> Seen:
        """What came back on a stream so far."""
        return self.streams.setdefault(stream_id, Seen())

    def until(self, condition: Callable[[], object], wait_s: float = WAIT_S) -> bool:
        """Read until `condition`, or until the server hangs up; whether the condition holds."""
        deadline_s = time.monotonic() + wait_s
        while not condition():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise AssertionError(f"nothing within {wait_s:g} s; goaway {self.goaway}, {self.streams}")
            if self.gone:
                return bool(condition())
            self._read(left_s)
        return True

    def until_gone(self, wait_s: float = WAIT_S) -> int | None:
        """Read until the server hangs up; its GOAWAY's error code."""
        self.until(lambda: self.gone, wait_s)
        return self.goaway

    def sync(self) -> bool:
        """Wait until everything sent so far was handled; false when the server hung up instead."""
        self._pings += 1
        token = self._pings.to_bytes(8, "big")
        self.say(frame(PING, payload=token))
        return self.until(lambda: token in self.pongs)

    def settings_known(self) -> int:
        """The header list the server takes, once it has said so."""
        assert self.until(lambda: 6 in self.settings)
        return self.settings[6]

    def call(self, stream_id: int, said: bytes = b"x") -> Seen:
        """A whole, well-behaved call; what came back."""
        self.say(headers(stream_id), data(stream_id, message(said), end=True))
        seen = self.seen(stream_id)
        self.until(lambda: seen.ended)
        return seen

    def _read(self, wait_s: float) -> None:
        self.sock.settimeout(wait_s)
        try:
            got = self.sock.recv(1 << 18)
        except TimeoutError:
            return
        except OSError:
            got = b""
        if not got:
            self.gone = True
            return
        self._held += got
        for kind, flags, stream_id, payload in self._frames():
            self._note(kind, flags, stream_id, payload)

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        held = self._held
        start = 0
        while len(held) - start >= 9:
            size = int.from_bytes(held[start : start + 3], "big")
            if len(held) - start < 9 + size:
                break
            stream_id = int.from_bytes(held[start + 5 : start + 9], "big")
            yield held[start + 3], held[start + 4], stream_id, bytes(held[start + 9 : start + 9 + size])
            start += 9 + size
        del held[:start]

    def _note(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        self.count[kind] = self.count.get(kind, 0) + 1
        if kind == SETTINGS and not flags & ACK:
            for at in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HI", payload, at)
                self.settings[name] = value
            self.say(frame(SETTINGS, ACK))
        elif kind == PING and flags & ACK:
            self.pongs.add(payload)
        elif kind == GOAWAY:
            self.last_stream_id, self.goaway = struct.unpack_from(">II", payload)
        elif kind == RST_STREAM:
            self.seen(stream_id).reset = int.from_bytes(payload, "big")
            self.seen(stream_id).ended = True
        elif kind == HEADERS:
            assert flags & END_HEADERS, "answers here fit one frame"
            self.seen(stream_id).fields.update(self._decoder.decode(payload))
        elif kind == DATA:
            self.seen(stream_id).data += payload
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.seen(stream_id).ended = True


@contextlib.contextmanager
def silent(port: int, said: bytes = b"") -> Iterator[socket.socket]:
    """A plain socket that said something once, or nothing."""
    with socket.create_connection((HOST, port), WAIT_S) as sock:
        if said:
            sock.sendall(said)
        yield sock


def hung_up(sock: socket.socket, wait_s: float = WAIT_S) -> bytes:
    """Read until the server closes; what it said. A timeout is an error."""
    sock.settimeout(wait_s)
    got = b""
    with contextlib.suppress(ConnectionError):
        while part := sock.recv(1 << 16):
            got += part
    return got
