# SPDX-License-Identifier: Apache-2.0
"""Stopping: GOAWAY loses no call, grace is kept, what is left ends with UNAVAILABLE."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from epp.transport import h2
from epp.transport.call import Limits
from tests.transport.support import HOST, PATH, Calls, Recorder, echo, finish, nothing, raw, serving, until

Factory = Callable[[], asyncio.AbstractEventLoop]
Listen = Callable[..., Any]


def soon(call: Recorder, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(0.005, call.reply.send, data)
    loop.call_later(0.010, call.reply.finish)


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.transport.abort()
    await asyncio.sleep(0.01)
    return True


async def test_draining_under_load_loses_no_call(loop_factory: Factory) -> None:
    """Clients that obey GOAWAY move to another listener; every call they make is answered."""
    calls = Calls(soon, nothing)
    stopping = False
    done = 0

    async def work(first: int, second: int) -> None:
        nonlocal done
        while done < 400 or not stopping:
            async with raw(second if stopping else first) as client:
                while not client.goaways and (done < 400 or not stopping):
                    batch = [client.open() for _ in range(4)]
                    for stream_id in batch:
                        client.say(stream_id, b"x")
                    for stream_id in batch:
                        answer = await client.ended(stream_id)
                        assert answer.status == b"0"
                        assert answer.reset in (None, 0)
                        done += 1

    second_calls = Calls(soon, nothing)
    async with (
        serving(h2.listen, calls) as first,
        serving(h2.listen, second_calls) as second,
        asyncio.timeout(30),
        asyncio.TaskGroup() as group,
    ):
        for _ in range(5):
            group.create_task(work(first.port, second.port))
        await until(lambda: done > 100)
        stopping = True
        await first.drain()
        await first.close(5.0)
    assert done >= 400
    assert second_calls.made
    assert not any(call.reasons for call in calls.made)


async def test_a_drained_listener_serves_open_streams_and_accepts_nothing(listen: Listen) -> None:
    calls = Calls()
    async with serving(listen, calls) as listener, raw(listener.port) as client:
        stream_id = client.open()
        client.say(stream_id, b"before")
        await client.until(lambda: client.answers[stream_id].data)
        draining = asyncio.ensure_future(listener.drain())
        await client.until(lambda: client.goaways)
        await asyncio.wait_for(draining, 10)
        async with asyncio.timeout(10):
            while await accepts(listener.port):
                assert listen is not h2.listen  # grpcio takes a moment.
        client.say(stream_id, b"after", end=True)
        assert (await client.ended(stream_id)).status == b"0"
        await listener.drain()
    assert calls.made[0].messages == [b"before", b"after"]


async def test_a_stream_opened_before_the_client_saw_the_goaway_is_served(loop_factory: Factory) -> None:
    async with serving(h2.listen, Calls()) as listener, raw(listener.port) as client:
        keep = client.open()
        client.say(keep, b"x")
        await client.until(lambda: client.answers[keep].data)
        draining = asyncio.ensure_future(listener.drain())
        await asyncio.sleep(0.05)
        late = client.open()
        client.say(late, b"x", end=True)
        assert (await client.ended(late)).status == b"0"
        await draining
        await client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[0].last_stream_id == 2**31 - 1
        assert client.goaways[1].last_stream_id == late
        client.h2.end_stream(keep)
        assert (await client.ended(keep)).status == b"0"


async def test_closing_waits_for_open_calls(listen: Listen, loop_factory: Factory) -> None:
    calls = Calls(echo, finish)
    listener = await listen({PATH: calls}, HOST, 0)
    async with raw(listener.port) as client:
        stream_id = client.open()
        client.say(stream_id, b"x")
        await client.until(lambda: client.answers[stream_id].data)
        closing = asyncio.ensure_future(listener.close(20.0))
        await client.until(lambda: client.goaways)
        client.say(stream_id, b"y", end=True)
        assert (await client.ended(stream_id)).status == b"0"
        await asyncio.wait_for(closing, 10)
    assert calls.made[0].reasons == []


async def test_closing_ends_what_is_left_with_unavailable(listen: Listen, loop_factory: Factory) -> None:
    calls = Calls(echo, nothing)
    listener = await listen({PATH: calls}, HOST, 0)
    async with raw(listener.port) as client:
        stream_id = client.open()
        client.say(stream_id, b"x")
        await client.until(lambda: client.answers[stream_id].data)
        closing = asyncio.ensure_future(listener.close(0.05))
        answer = await client.ended(stream_id)
        assert answer.status == b"14"
        await client.until_gone()
        await asyncio.wait_for(closing, 10)
    assert calls.made[0].reasons == ["server stopping"]
    await listener.close(0.0)


async def test_closing_does_not_wait_for_a_client_that_reads_nothing(loop_factory: Factory) -> None:
    calls = Calls()
    listener = await h2.listen({PATH: calls}, HOST, 0, limits=Limits(queued_output_bytes=10_000))
    async with raw(listener.port) as client:
        stream_id = client.open()
        for _ in range(100):
            client.say(stream_id, b"x" * 60_000)
        client.writer.transport.pause_reading()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.flush(), 0.3)
        await until(lambda: calls.made)
        await asyncio.wait_for(listener.close(0.1), 10)
    assert calls.made[0].reasons == ["server stopping"]
