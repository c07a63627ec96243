# SPDX-License-Identifier: Apache-2.0
"""Calls that write down what happens to them, and a raw HTTP/2 client that can misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ngh2

from epp.transport.call import Call, Listener, Metadata, Reply, Services

PATH = "/test.Echo/Echo"
HOST = "127.0.0.1"
UNLIMITED = (1 << 40, 1 << 40)


class Recorder:
    """Writes down its life; `on_message` and `on_half_close` decide what it does."""

    def __init__(self, metadata: Metadata, reply: Reply, calls: Calls) -> None:
        self.metadata = metadata
        self.reply = reply
        self.messages: list[bytes] = []
        self.half = 0
        self.reasons: list[str] = []
        self.over = asyncio.Event()
        self._calls = calls

    def message(self, data: bytes) -> None:
        assert not self.half
        assert not self.reasons
        self.messages.append(data)
        self._calls.heard.set()
        self._calls.on_message(self, data)

    def half_closed(self) -> None:
        assert not self.reasons
        self.half += 1
        self._calls.on_half_close(self)

    def cancelled(self, reason: str) -> None:
        self.reasons.append(reason)
        self.over.set()


def echo(call: Recorder, data: bytes) -> None:
    call.reply.send(data)


def finish(call: Recorder) -> None:
    call.reply.finish()


def nothing(call: Recorder, data: bytes = b"") -> None:
    pass


class Calls:
    """A service that keeps every call it made."""

    def __init__(
        self,
        on_message: Callable[[Recorder, bytes], None] = echo,
        on_half_close: Callable[[Recorder], None] = finish,
    ) -> None:
        self.on_message = on_message
        self.on_half_close = on_half_close
        self.made: list[Recorder] = []
        self.heard = asyncio.Event()

    def __call__(self, metadata: Metadata, reply: Reply) -> Call:
        call = Recorder(metadata, reply, self)
        self.made.append(call)
        return call


@contextlib.asynccontextmanager
async def serving(listen: Callable[..., Any], services: Services | Calls, **options: Any) -> AsyncIterator[Listener]:
    """A listener on a free port."""
    services = {PATH: services} if isinstance(services, Calls) else services
    listener: Listener = await listen(services, options.pop("host", HOST), options.pop("port", 0), **options)
    try:
        yield listener
    finally:
        await listener.close(0.0)


async def until(condition: Callable[[], object], wait_s: float = 10.0) -> None:
    """Wait for something other tasks of the loop bring about."""
    async with asyncio.timeout(wait_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def framed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


def messages(data: bytes) -> Iterator[bytes]:
    while data:
        (length,) = struct.unpack_from(">I", data, 1)
        yield data[5 : 5 + length]
        data = data[5 + length :]


def raw_frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def request_headers(path: str = PATH, **changed: str) -> list[tuple[bytes, bytes]]:
    values = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", "te": "trailers"}
    values["content-type"] = "application/grpc"
    values.update({key.replace("_", "-"): value for key, value in changed.items()})
    values.update({":method": values.pop("method")} if "method" in values else {})
    return [(key.encode(), value.encode()) for key, value in sorted(values.items(), key=lambda item: item[0][0] != ":")]


@dataclass
class Answer:
    """What a raw client has seen of one stream."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> bytes | None:
        return self.trailers.get(b"grpc-status") or self.headers.get(b"grpc-status")


class RawClient:
    """libnghttp2 as a client on a socket, one method a frame. Reads only in `until` and `read_some`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **settings: Any) -> None:
        self.reader = reader
        self.writer = writer
        windows = settings.pop("windows", {4: 1 << 24})
        self.h2 = ngh2.Connection(ngh2.Role.CLIENT, ngh2.Configuration(stream_reset_rate_limit=UNLIMITED, **settings))
        self.h2.initiate_connection(windows)
        if windows.get(4, 0) > 65_535:
            self.h2.set_local_window_size(1 << 30)
        self.answers: dict[int, Answer] = {}
        self.goaways: list[ngh2.GoAwayReceived] = []
        self.settings: dict[int, int] = {}
        self.gone = False
        self.quiet = False
        """Whether what answers the server (acknowledgements) waits for the next `flush`."""

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None, **settings: Any) -> RawClient:
        # Without a name, asyncio gives the address, for which no server name is sent.
        name = settings.pop("server_name", None)
        reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname=name)
        return cls(reader, writer, **settings)

    def open(self, path: str = PATH, *, end: bool = False, **changed: str) -> int:
        stream_id = self.h2.send_request(request_headers(path, **changed), end_stream=end)
        self.answers[stream_id] = Answer()
        return stream_id

    def say(self, stream_id: int, *said: bytes, end: bool = False) -> None:
        self.h2.send_data(stream_id, b"".join(framed(message) for message in said), end_stream=end)

    async def flush(self, extra: bytes = b"") -> None:
        """Send what is queued, and `extra` after it."""
        self.writer.write(self.h2.data_to_send() + extra)
        await self.writer.drain()

    async def read_some(self) -> None:
        try:
            data = await self.reader.read(1 << 18)
        except OSError:
            data = b""
        if not data:
            self.gone = True
            return
        with contextlib.suppress(ngh2.ConnectionStateError):  # After what was said by hand, its own state may be over.
            self.h2.receive_data(data)
        self._note(self.h2.events())
        if self.quiet:
            return
        with contextlib.suppress(ngh2.NGH2Error):
            out = self.h2.data_to_send()
            if out and not self.writer.is_closing():
                self.writer.write(out)

    async def until(self, condition: Callable[[], object], wait_s: float = 20.0) -> None:
        """Send and receive until `condition`; it is an error when the server closes before."""
        await self.flush()
        async with asyncio.timeout(wait_s):
            while not condition():
                assert not self.gone, "the server closed the connection"
                await self.read_some()

    async def until_gone(self, wait_s: float = 20.0) -> None:
        """Read until the server has closed the connection."""
        async with asyncio.timeout(wait_s):
            while not self.gone:
                await self.read_some()

    async def ended(self, stream_id: int) -> Answer:
        """The answer of a stream that has come to its end."""
        answer = self.answers[stream_id]
        await self.until(lambda: answer.ended)
        return answer

    async def call(self, *said: bytes, path: str = PATH) -> Answer:
        """One whole call: open, say, half-close, read the answer."""
        stream_id = self.open(path)
        self.say(stream_id, *said, end=True)
        return await self.ended(stream_id)

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def _note(self, events: list[ngh2.Event]) -> None:
        for event in events:
            answer = self.answers.get(getattr(event, "stream_id", 0), Answer())
            if isinstance(event, ngh2.ResponseReceived):
                answer.headers = dict(event.headers)
                answer.ended |= event.end_stream
            elif isinstance(event, ngh2.DataReceived):
                answer.data += event.data
                answer.ended |= event.end_stream
            elif isinstance(event, ngh2.TrailersReceived):
                answer.trailers = dict(event.headers)
                answer.ended = True
            elif isinstance(event, ngh2.StreamReset):
                answer.reset = event.error_code
                answer.ended = True
            elif isinstance(event, ngh2.GoAwayReceived):
                self.goaways.append(event)
            elif isinstance(event, ngh2.SettingsReceived):
                self.settings.update(event.settings)


@contextlib.asynccontextmanager
async def raw(port: int, context: ssl.SSLContext | None = None, **settings: Any) -> AsyncIterator[RawClient]:
    """A raw client, closed at the end."""
    client = await RawClient.connect(port, context, **settings)
    try:
        yield client
    finally:
        await client.close()


def unverified(version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client context that trusts everyone, of one TLS version."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def write_pair(directory: Path, pem: tuple[bytes, bytes]) -> None:
    """A certificate directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tls.crt").write_bytes(pem[0])
    (directory / "tls.key").write_bytes(pem[1])
