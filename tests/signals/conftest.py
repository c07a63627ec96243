# SPDX-License-Identifier: Apache-2.0
"""Real servers on loopback that answer as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class PageServer:
    """A server under way. `requests` are the heads it was sent; `connections` how many were opened."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    close: Callable[[], Awaitable[None]] | None = None


Serve = Callable[..., contextlib.AbstractAsyncContextManager[PageServer]]


@contextlib.asynccontextmanager
async def _serve(
    script: Script | bytes, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[PageServer]:
    """`script` bytes answer every request of a connection; a function handles the whole connection itself."""
    state = PageServer()
    open_writers: set[asyncio.StreamWriter] = set()
    tasks: set[asyncio.Task[Any]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        state.connections += 1
        open_writers.add(writer)
        try:
            if not isinstance(script, bytes):
                await script(reader, writer)
                return
            while True:
                state.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(script)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            open_writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(connected, host, port, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]

    async def close() -> None:
        server.close()
        for task in tasks:
            task.cancel()
        for writer in open_writers:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)

    state.close = close
    try:
        yield state
    finally:
        await close()


@pytest.fixture
def serve() -> Serve:
    return _serve
