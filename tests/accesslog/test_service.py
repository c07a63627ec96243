# SPDX-License-Identifier: Apache-2.0
"""The streams of the access log: on both transports, with broken messages, and when the process stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from epp.accesslog import PATH, AccessLogs, Ended
from epp.protos.access_log_pb2 import StreamAccessLogsMessage
from epp.transport import grpcio, h2
from epp.transport.call import INVALID_ARGUMENT, OK, UNAVAILABLE, Listener

Listen = Callable[..., Awaitable[Listener]]


def message(*ids: str) -> bytes:
    made = StreamAccessLogsMessage()
    for name in ids:
        made.http_logs.log_entry.add().request.request_id = name.encode()
    return made.SerializeToString()


class Sink:
    def __init__(self, known: str = "") -> None:
        self.known = known
        self.ids: list[str] = []
        self.streams: list[int] = []
        self.news = asyncio.Event()

    def ended(self, end: Ended) -> bool:
        self.ids.append(end.request_id)
        if end.request_id == "d":
            self.news.set()
        return end.request_id in self.known.split()

    def log_streams(self, count: int) -> None:
        self.streams.append(count)


class Outlet:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.status: int | None = None

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def finish(self, status: int = OK, _message: str = "") -> None:
        assert self.status is None
        self.status = status


def test_entries_are_counted_by_what_became_of_them() -> None:
    sink = Sink("a c")
    logs, outlet = AccessLogs(sink), Outlet()
    stream = logs.open(None, outlet)
    running = StreamAccessLogsMessage()
    running.http_logs.log_entry.add().common_properties.intermediate_log_entry = True
    stream.message(message("a", "b", "c"))
    stream.message(running.SerializeToString())
    assert (logs.counts.matched, logs.counts.unknown, logs.counts.skipped) == (2, 1, 1)
    assert (sink.ids, sink.streams) == (["a", "b", "c"], [1])
    stream.half_closed()
    assert (outlet.sent, outlet.status, sink.streams) == ([b""], OK, [1, 0])


def test_a_broken_message_costs_its_own_stream_alone() -> None:
    logs = AccessLogs(Sink())
    outlets = Outlet(), Outlet()
    broken, good = (logs.open(None, outlet) for outlet in outlets)
    broken.message(b"\xff\xff")
    broken.cancelled("reset")
    good.message(message("x"))
    assert (outlets[0].status, outlets[1].status) == (INVALID_ARGUMENT, None)
    assert (logs.counts.malformed, logs.counts.unknown, logs.counts.streams) == (1, 1, 1)


def test_a_stop_ends_streams_and_refuses_new_ones() -> None:
    logs, first, late = AccessLogs(Sink()), Outlet(), Outlet()
    logs.open(None, first)
    logs.stop()
    logs.open(None, late)
    assert (first.status, late.status, logs.counts.streams) == (OK, UNAVAILABLE, 0)


@pytest.mark.parametrize("listen", [h2.listen, grpcio.listen])
async def test_over_a_real_connection(listen: Listen) -> None:
    sink = Sink()
    logs = AccessLogs(sink)
    listener = await listen({PATH: logs.open}, "127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{listener.port}") as channel:
            method: Any = channel.stream_unary(PATH)
            call = method()
            await call.write(message("a", "b"))
            await call.write(message("c"))
            await call.done_writing()
            assert await asyncio.wait_for(call, 5) == b""
            broken = method()
            await broken.write(b"\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await asyncio.wait_for(broken, 5)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            open_ = method()
            await open_.write(message("d"))
            await asyncio.wait_for(sink.news.wait(), 5)
            logs.stop()
            assert await asyncio.wait_for(open_, 5) == b""
    finally:
        await listener.close(0.0)
    assert sink.ids == ["a", "b", "c", "d"]
    assert sink.streams[-1] == 0
