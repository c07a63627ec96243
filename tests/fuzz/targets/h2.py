# SPDX-License-Identifier: Apache-2.0
"""HTTP/2 bytes into one connection of the gRPC server, without a socket.

* Nothing escapes, nothing is logged as an error, whatever the bytes and however they are cut.
* Every call that was opened hears in the end exactly one of: its own finish, or `cancelled`.
* Once the connection is lost nothing of it is left: no connection, no stream, no incomplete message, no timer.
* What is queued for the peer stays within the bound of the output queue and one read's worth of answers.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import ngh2

from epp.transport.call import Limits, Metadata, Reply
from epp.transport.connection import Connection
from epp.transport.shared import Shared
from tests.fuzz.harness import Input, Run, Target, no_error_logged, pieces, with_cuts

_PATH = b"/test.Echo/Echo"
LIMITS = Limits(message_bytes=4096, streams=50, control_frames=100, queued_output_bytes=65_536, incomplete_bytes=20_000)


class _Transport(asyncio.Transport):
    """Takes everything that is written and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.written_bytes = 0
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def write(self, data: Any) -> None:
        self.written_bytes += len(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Call:
    """Echoes; finishes at the half-close, or in the middle when a message says so."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.ends = 0

    def message(self, data: bytes) -> None:
        assert not self.ends
        if data[:1] == b"F":
            self.ends += 1
            self.reply.finish(13, "as \u2028 asked\n" + repr(data))
        else:
            self.reply.send(data * (40 if data[:1] == b"M" else 1))

    def half_closed(self) -> None:
        assert not self.ends
        self.ends += 1
        self.reply.finish()

    def cancelled(self, reason: str) -> None:
        assert reason
        assert not self.ends
        self.ends += 1


def _make() -> Run:
    loop = asyncio.new_event_loop()

    def run(data: bytes) -> None:
        source = Input(data)
        cuts = source.cuts()
        with no_error_logged():
            loop.run_until_complete(_talk(pieces(source.rest(), cuts)))

    return run


async def _talk(chunks: list[bytes]) -> None:
    calls: list[_Call] = []

    def service(metadata: Metadata, reply: Reply) -> _Call:
        assert all(isinstance(key, str) and isinstance(metadata.values[key], str) for key in metadata.values)
        calls.append(_Call(reply))
        return calls[-1]

    ticks = itertools.count()
    shared = Shared({_PATH: (_PATH.decode(), service)}, LIMITS, lambda: next(ticks) * 1e-4)
    connection = Connection(shared)
    transport = _Transport()
    connection.connection_made(transport)
    for chunk in chunks:
        if transport.closed:
            break
        connection.data_received(chunk)
        await asyncio.sleep(0)
        assert connection.over or connection.queued() <= LIMITS.queued_output_bytes + 41 * LIMITS.stream_window_bytes
    connection.connection_lost(None)
    await asyncio.sleep(0)
    assert all(call.ends == 1 for call in calls)
    assert not shared.connections
    assert not connection.streams
    assert not connection.ending
    assert connection.incomplete_bytes == 0


def _framed(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


def _headers(**more: str) -> list[tuple[bytes, bytes]]:
    pairs = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", _PATH), (b":authority", b"test")]
    pairs += [(b"content-type", b"application/grpc"), (b"te", b"trailers")]
    return pairs + [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]


def _seeds() -> list[bytes]:
    said = []
    for messages in ((b"hello",), (b"M" * 3000, b"F"), (b"a", b"", b"b" * 4000)):
        client = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration())
        client.initiate_connection({4: 1 << 20})
        out = client.data_to_send()
        for stream in range(3):
            stream_id = client.send_request(
                _headers(grpc_timeout=f"{stream}S") if stream else _headers(), end_stream=False
            )
            client.send_data(stream_id, b"".join(map(_framed, messages)), end_stream=stream == 1)
        out += client.data_to_send()
        client.send_request(_headers(path_="x", grpc_encoding="gzip"), end_stream=True)
        client.ping()
        client.reset_stream(1, ngh2.ErrorCode.CANCEL)
        out += client.data_to_send()
        said += [with_cuts(out, 24, 70, 200), with_cuts(out)]
    return said


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


_WORDS = (
    _frame(0, 0, 1, b""), _frame(0, 1, 1, _framed(b"x")), _frame(0, 0, 3, _framed(b"F")), _frame(1, 5, 9, b"\x83\x86\x84"),
    _frame(2, 0, 1, b"\0\0\0\0\1"), _frame(3, 0, 1, b"\0\0\0\2"), _frame(4, 0, 0, b""), _frame(4, 0, 0, b"\0\4\0\0\0\0"),
    _frame(4, 1, 0, b""), _frame(5, 4, 1, b"\0\0\0\2"), _frame(6, 0, 0, b"12345678"), _frame(7, 0, 0, bytes(8)),
    _frame(8, 0, 0, b"\x7f\xff\xff\xff"), _frame(8, 0, 1, b"\0\0\0\1"), _frame(9, 4, 1, b"\x82"), _frame(16, 0, 0, bytes(5)),
    b"\0\0\0\0\1", b"\1\0\0\0\1x", b"\x3f\xe1\x1f", b"\x20", b"\x40\x01a\x01b", b"\x00\x02:x\x01y", b"\xff" * 9, b"\0\0\0",
)  # fmt: skip
TARGET = Target("h2", _make, _seeds, _WORDS)
