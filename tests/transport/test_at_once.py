# SPDX-License-Identifier: Apache-2.0
"""`Reply.at_once_bytes`: what leaves together with the end of its stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from epp.transport import grpcio, h2
from epp.transport.call import Listener, Metadata, Reply

PATH = "/test.Room/Room"
WINDOW = 65_535


class Room:
    """Answers every message with what it could send at once."""

    def __init__(self, _metadata: Metadata, reply: Reply) -> None:
        self._reply = reply

    def message(self, data: bytes) -> None:
        before = self._reply.at_once_bytes()
        self._reply.send(b"x" * int(data))
        self._reply.send(b"%d %d" % (before, self._reply.at_once_bytes()))

    def half_closed(self) -> None:
        self._reply.finish()

    def cancelled(self, _reason: str) -> None:
        """Nothing to do."""


@contextlib.asynccontextmanager
async def asking(listen: Callable[..., Awaitable[Listener]]) -> AsyncIterator[Any]:
    listener = await listen({PATH: Room}, "127.0.0.1", 0)
    try:
        # A window of 64 KiB, as some proxies have.
        options = [("grpc.http2.lookahead_bytes", WINDOW), ("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}", options=options) as channel:
            yield channel.stream_stream(PATH)
    finally:
        await listener.close(0.0)


async def ask(method: Any, size: int) -> tuple[int, int]:
    async with asyncio.timeout(10):
        call = method()
        await call.write(b"%d" % size)
        await call.read()
        before, after = (await call.read()).split()
        call.cancel()
        return int(before), int(after)


@pytest.mark.parametrize("size", [0, 1000, 30_000])
async def test_what_is_queued_is_taken_off(size: int) -> None:
    async with asking(h2.listen) as method:
        before, after = await ask(method, size)
    assert before > 0
    assert after <= before - size


async def test_grpcio_promises_nothing() -> None:
    async with asking(grpcio.listen) as method:
        assert await ask(method, 10) == (0, 0)
