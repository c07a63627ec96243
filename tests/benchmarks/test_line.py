# SPDX-License-Identifier: Apache-2.0
"""Both ends of the line against each other: the bundled clients and the light pods, without anything in between."""

from __future__ import annotations

import asyncio
import socket

import pytest

from benchmarks import load, upstream


async def _pods(port: int) -> asyncio.AbstractServer:
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: upstream.Pod(loop, b""), "127.0.0.1", port)


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("chunks", [0, 3])
async def test_every_request_is_answered_and_counted(chunks: int) -> None:
    port = _port()
    server = await _pods(port)
    try:
        told = await load.bundled(port, 4, 0.05, chunks, 1)
    finally:
        server.close()
    assert told["requests"] >= 4
    assert told["failures"] == 0


async def test_a_connection_that_is_cut_is_a_failure() -> None:
    class Rude(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self._transport = transport

        def data_received(self, data: bytes) -> None:
            self._transport.close()

    port = _port()
    server = await asyncio.get_running_loop().create_server(Rude, "127.0.0.1", port)
    try:
        told = await load.bundled(port, 2, 0.05, 0, 0)
    finally:
        server.close()
    assert (told["requests"], told["failures"]) == (0, 2)


async def test_events_come_one_by_one_and_the_last_tells_the_usage() -> None:
    port = _port()
    server = await _pods(port)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 2\r\nX-Chunks: 3\r\n\r\n{}")
        raw = await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
    finally:
        server.close()
    assert raw.count(b'"content":" cloud"') == 2
    assert raw.count(b"[DONE]") == 1
    assert b'"cached_tokens":1376' in raw
