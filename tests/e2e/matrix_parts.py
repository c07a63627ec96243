# SPDX-License-Identifier: Apache-2.0
"""The ends of the mode matrix: two pods and two clients, over HTTP/1.1 by aiohttp and over HTTP/2 by h2.

A pod does what `x-do` says and names itself in `x-pod`. `Answer` is what a client got; `complete` says that the end of
the answer was seen as such, not as the end of a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import aiohttp
import h2.config
import h2.connection
import h2.events
from aiohttp import web

PLAIN = b"x" * 500
EVENTS = [b'data: {"n": %d, "word": "w%d"}\n\n' % (n, n * n) for n in range(200)]
BIG = b"y" * 5_000_000
Headers = list[tuple[str, str]]


@dataclass
class Answer:
    """What a client got."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict)
    complete: bool = False


async def upstream(name: str, request: web.Request) -> web.StreamResponse:
    """The pod `name` over HTTP/1.1."""
    what = request.headers.get("x-do", "")
    if what == "early":
        # Answered before the request was read, as a server does that refuses it by its headers.
        return web.Response(status=401, body=PLAIN, headers={"x-pod": name})
    if "upgrade" in request.headers:
        return await _talk(name, request)
    digest, size = hashlib.sha256(), 0
    async for piece in request.content.iter_any():
        digest.update(piece)
        size += len(piece)
    headers = {"x-pod": name, "x-sha": digest.hexdigest(), "x-size": str(size)}
    if what in ("", "204", "500"):
        body = b"" if what == "204" else PLAIN
        return web.Response(status=int(what or 200), body=body, headers=headers)
    response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream"})
    if what == "big":
        await response.prepare(request)
        for _ in range(100):
            await response.write(BIG[:50_000])
        return response
    if what == "huge":
        await response.prepare(request)
        for _ in range(200):
            await response.write(BIG[:50_000])
        return response
    if what == "hang":
        await asyncio.Event().wait()
    await response.prepare(request)
    if what == "reset":
        await response.write(EVENTS[0])
        await asyncio.sleep(0.02)
        assert request.transport is not None
        request.transport.abort()
        return response
    for number, event in enumerate(EVENTS):
        await response.write(event)
        # Some come together and some alone.
        if number % 16 == 0:
            await asyncio.sleep(0.001)
        if what == "endless" and number == 20:
            await asyncio.Event().wait()
    return response


async def _talk(name: str, request: web.Request) -> web.StreamResponse:
    """Say back what is said, over a WebSocket."""
    socket = web.WebSocketResponse()
    socket.headers["x-pod"] = name
    await socket.prepare(request)
    async for said in socket:
        await socket.send_bytes(said.data)
    return socket


@contextlib.asynccontextmanager
async def pod(name: str) -> AsyncIterator[str]:
    """Serve the pod; its address."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return await upstream(name, request)

    server = web.Server(handle, handler_cancellation=True)  # type: ignore[arg-type]
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


class H2Pod(asyncio.Protocol):
    """The pod over HTTP/2: answers with what came, and with trailers, as a gRPC server does."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._streams: dict[int, dict[str, Any]] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._h2.initiate_connection()
        self._transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self._streams[event.stream_id] = {"data": b"", "trailers": {}, "headers": dict(event.headers)}
            elif isinstance(event, h2.events.DataReceived):
                self._streams[event.stream_id]["data"] += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.TrailersReceived):
                self._streams[event.stream_id]["trailers"] = dict(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                self._answer(event.stream_id, self._streams.pop(event.stream_id))
            elif isinstance(event, h2.events.StreamReset):
                self._streams.pop(event.stream_id, None)
        self._transport.write(self._h2.data_to_send())

    def _answer(self, stream: int, got: dict[str, Any]) -> None:
        digest = hashlib.sha256(got["data"]).hexdigest()
        fields = [(":status", "200"), ("x-pod", self._name), ("x-sha", digest), ("content-type", "application/grpc")]
        self._h2.send_headers(stream, fields)
        self._h2.send_data(stream, json.dumps({"trailers": got["trailers"]}).encode())
        if got["headers"].get("x-do") == "endless":
            return
        self._h2.send_headers(stream, [("grpc-status", "0"), ("x-sum", "6")], end_stream=True)


@contextlib.asynccontextmanager
async def h2_pod(name: str) -> AsyncIterator[str]:
    """Serve the pod over HTTP/2; its address."""
    server = await asyncio.get_running_loop().create_server(lambda: H2Pod(name), "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def h1(url: str, method: str, headers: dict[str, str], body: Any = None) -> Answer:
    """One request by aiohttp on a fresh connection."""
    answer = Answer()
    body = io.BytesIO(body) if isinstance(body, bytes) else body
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        with contextlib.suppress(aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, ConnectionError):
            async with session.request(method, url, headers=headers, data=body) as response:
                answer.status, answer.headers = response.status, {k.lower(): v for k, v in response.headers.items()}
                async for piece in response.content.iter_any():
                    answer.body += piece
                answer.complete = True
    return answer


def in_pieces(body: bytes, size: int = 100_000) -> Any:
    """A body sent chunked, without a length."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    return pieces()


def half(body: bytes, halfway: asyncio.Event) -> Any:
    """A body of which half is sent, and then nothing."""

    async def pieces() -> AsyncIterator[bytes]:
        yield body[: len(body) // 2]
        halfway.set()
        await asyncio.Event().wait()

    return pieces()


async def h2_ask(
    port: int, path: str, headers: dict[str, str], body: bytes | None, trailers: Headers, method: str = "POST"
) -> Answer:
    """One request over HTTP/2. `body`: None sends no DATA frame at all, b"" an empty one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            return await _h2_exchange(reader, writer, {":method": method, ":path": path, **headers}, body, trailers)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _h2_exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], body: bytes | None,
    trailers: Headers,
) -> Answer:  # fmt: skip
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    connection.send_headers(1, [(":scheme", "http"), (":authority", "gateway"), *headers.items(), ("te", "trailers")])
    writer.write(connection.data_to_send())
    if body is not None:
        for piece in _cut(body):
            connection.send_data(1, piece, end_stream=not trailers and piece is body)
            writer.write(connection.data_to_send())
            # The body comes in its own reads.
            await asyncio.sleep(0)
    if trailers:
        connection.send_headers(1, trailers, end_stream=True)
    elif body != b"":
        connection.end_stream(1)
    writer.write(connection.data_to_send())
    answer = Answer()
    while not answer.complete and (data := await reader.read(65536)):
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                answer.headers = dict(event.headers)
                answer.status = int(answer.headers[":status"])
            elif isinstance(event, h2.events.DataReceived):
                answer.body += event.data
                connection.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.TrailersReceived):
                answer.trailers = dict(event.headers)
            elif isinstance(event, h2.events.StreamEnded):
                answer.complete = True
            elif isinstance(event, h2.events.StreamReset):
                return answer
        writer.write(connection.data_to_send())
    return answer


def _cut(body: bytes) -> Iterator[bytes]:
    if not body:
        yield body
    for at in range(0, len(body), 400):
        yield body[at : at + 400]
