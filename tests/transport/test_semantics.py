# SPDX-License-Identifier: Apache-2.0
"""What a call and its client can rely on, with both transports."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from epp.contract.errors import StartError
from epp.transport import h2
from epp.transport.call import Limits, Metadata, Reply
from tests.ipv6 import needs_ipv6
from tests.transport.support import HOST, PATH, Calls, Recorder, echo, finish, nothing, raw, raw_frame, serving, until

Factory = Callable[[], asyncio.AbstractEventLoop]
Listen = Callable[..., Any]


async def status_of(call: Any) -> tuple[grpc.StatusCode, str]:
    return await call.code(), await call.details()


async def test_half_close_is_told_once_and_after_the_messages(listen: Listen) -> None:
    heard: list[int] = []

    def half_close(call: Recorder) -> None:
        heard.append(len(call.messages))
        call.reply.send(b"bye")
        call.reply.finish()

    async with serving(listen, Calls(nothing, half_close)) as listener, raw(listener.port) as client:
        answer = await client.call(b"1", b"2")
        assert answer.data == b"\x00\x00\x00\x00\x03bye"
        assert answer.status == b"0"
        empty = client.open(end=True)
        assert (await client.ended(empty)).status == b"0"
    assert heard == [2, 0]


async def test_cancellation_reaches_the_call(listen: Listen, loop_factory: Factory) -> None:
    calls = Calls(echo, nothing)
    async with serving(listen, calls) as listener, grpc.aio.insecure_channel(f"{HOST}:{listener.port}") as channel:
        call = channel.stream_stream(PATH)()
        await call.write(b"x")
        assert await call.read() == b"x"
        call.cancel()
        await asyncio.wait_for(calls.made[0].over.wait(), 10)
        assert len(calls.made[0].reasons) == 1
        assert calls.made[0].half == 0 or listen is not h2.listen  # grpcio may show a half-close first.


async def test_deadline(listen: Listen, loop_factory: Factory) -> None:
    calls = Calls(echo, nothing)
    async with serving(listen, calls) as listener, raw(listener.port) as client:
        stream_id = client.open(grpc_timeout="50m")
        client.say(stream_id, b"x")
        answer = await client.ended(stream_id)
        await asyncio.wait_for(calls.made[0].over.wait(), 10)
        assert calls.made[0].reasons == ["deadline"]
        assert answer.status in (b"4", None)  # grpcio may reset the stream instead, its client knows the deadline.
        calls.on_half_close = finish
        in_time = client.open(grpc_timeout="5S")
        client.say(in_time, b"x", end=True)
        assert (await client.ended(in_time)).status == b"0"


async def test_message_over_the_limit(listen: Listen) -> None:
    calls = Calls(echo, finish)
    async with (
        serving(listen, calls, limits=Limits(message_bytes=1_000)) as listener,
        grpc.aio.insecure_channel(f"{HOST}:{listener.port}") as channel,
    ):
        assert [data async for data in channel.stream_stream(PATH)(iter([b"x" * 1_000]), timeout=20)] == [b"x" * 1_000]
        call = channel.stream_stream(PATH)(iter([b"x" * 1_001]), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError):
            [data async for data in call]
        assert await call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await asyncio.wait_for(calls.made[1].over.wait(), 10)
        assert len(calls.made[1].reasons) == 1
        assert calls.made[1].messages == []


async def test_unknown_path_is_named(listen: Listen) -> None:
    async with serving(listen, Calls()) as listener, grpc.aio.insecure_channel(f"{HOST}:{listener.port}") as channel:
        call = channel.stream_stream("/other.Service/Method")(timeout=20)
        assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "/other.Service/Method" in await call.details()


async def test_an_end_before_any_message_is_one_header_block(listen: Listen) -> None:
    def refuse(call: Recorder, data: bytes) -> None:
        call.reply.finish(14, "not now, 100%")
        call.reply.send(b"too late")
        call.reply.finish(0)

    async with serving(listen, Calls(refuse)) as listener, raw(listener.port) as client:
        answer = await client.call(b"x")
        assert answer.trailers == {}
        assert answer.headers[b":status"] == b"200"
        assert answer.headers[b"grpc-status"] == b"14"
        assert answer.headers[b"grpc-message"] == b"not now, 100%25"
        assert answer.data == b""


async def test_an_end_before_the_client_half_closes_delivers_what_is_queued(
    listen: Listen, loop_factory: Factory
) -> None:
    def answer_and_go(call: Recorder, data: bytes) -> None:
        for _ in range(100):
            call.reply.send(b"x" * 10_000)
        call.reply.finish(0)

    calls = Calls(answer_and_go)
    async with serving(listen, calls) as listener, grpc.aio.insecure_channel(f"{HOST}:{listener.port}") as channel:
        for _ in range(3):
            call = channel.stream_stream(PATH)(timeout=20)
            await call.write(b"go")
            assert len([data async for data in call]) == 100
            assert await call.code() == grpc.StatusCode.OK
    assert all(call.reasons == [] and call.half == 0 for call in calls.made)


@pytest.mark.parametrize("where", ["service", "message", "half_closed", "cancelled"])
async def test_a_broken_call_costs_its_own_stream(listen: Listen, where: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "epp.transport")

    def fail(call: Recorder, data: bytes = b"") -> None:
        if where == "cancelled":
            call.cancelled = lambda reason: 1 / 0  # type: ignore[method-assign, return-value]
            call.reply.send(b"here")
        else:
            raise ValueError("broken")

    def no_service(metadata: Metadata, reply: Reply) -> Any:
        raise ValueError("broken")

    broken = {"service": no_service, "half_closed": Calls(nothing, fail)}.get(where, Calls(fail, nothing))
    services = {PATH: Calls(), "/broken": broken}
    async with serving(listen, services) as listener, raw(listener.port) as client:
        healthy = client.open()
        client.say(healthy, b"before")
        stream_id = client.open("/broken")
        client.say(stream_id, b"x", end=where == "half_closed")
        if where == "cancelled":
            await client.until(lambda: client.answers[stream_id].data)
            client.h2.reset_stream(stream_id, 8)
            await client.flush()
            await until(lambda: caplog.records)
        else:
            assert (await client.ended(stream_id)).status == b"13"
        client.say(healthy, b"after", end=True)
        assert (await client.ended(healthy)).status == b"0"
        if isinstance(broken, Calls) and where != "cancelled":
            assert broken.made[0].reasons == ["the call failed"]
    assert len([record for record in caplog.records if record.name == "epp.transport"]) == 1


async def test_answers_that_come_later(listen: Listen, loop_factory: Factory) -> None:
    def later(call: Recorder, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, call.reply.send, b"first")
        loop.call_later(0.02, call.reply.send, b"second")
        loop.call_later(0.02, call.reply.finish)

    async with serving(listen, Calls(later)) as listener, raw(listener.port) as client:
        streams = [client.open() for _ in range(5)]
        for stream_id in streams:
            client.say(stream_id, b"x")
        for stream_id in streams:
            answer = await client.ended(stream_id)
            assert answer.data == b"\x00\x00\x00\x00\x05first\x00\x00\x00\x00\x06second"
            assert answer.status == b"0"


async def test_a_lost_connection_cancels_every_open_call_once(listen: Listen, loop_factory: Factory) -> None:
    calls = Calls(echo, nothing)
    async with serving(listen, calls) as listener:
        async with raw(listener.port) as client:
            streams = [client.open() for _ in range(20)]
            for stream_id in streams:
                client.say(stream_id, b"x")
            await client.until(lambda: all(client.answers[stream_id].data for stream_id in streams))
            calls.on_half_close = finish
            finished = client.open()
            client.say(finished, b"x", end=True)
            await client.ended(finished)
            calls.on_half_close = nothing
        await until(lambda: all(call.reasons for call in calls.made[:20]))
        for call in calls.made[:20]:
            call.reply.send(b"nobody hears this")
            call.reply.finish()
        await asyncio.sleep(0)
    assert all(len(call.reasons) == 1 for call in calls.made[:20])
    assert calls.made[20].reasons == []


@pytest.mark.parametrize(
    ("changed", "status", "names"),
    [
        ({"method": "GET"}, b"405", b"'GET'"),
        ({"content_type": "application/json"}, b"415", b"application/json"),
        ({"content_type": "application/grpc-web"}, b"415", b"grpc-web"),
        ({"grpc_timeout": "soon"}, b"200", b"'soon'"),
    ],
)
async def test_requests_that_are_not_grpc(changed: dict[str, str], status: bytes, names: bytes) -> None:
    calls = Calls()
    async with serving(h2.listen, calls) as listener, raw(listener.port) as client:
        answer = await client.ended(client.open(end=True, **changed))
        assert answer.headers[b":status"] == status
        assert names in answer.headers[b"grpc-message"]
        assert (await client.call(b"x")).status == b"0"
    assert len(calls.made) == 1


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;x=y"])
async def test_kinds_of_grpc(content_type: str) -> None:
    async with serving(h2.listen, Calls()) as listener, raw(listener.port) as client:
        stream_id = client.open(content_type=content_type)
        client.say(stream_id, b"x", end=True)
        assert (await client.ended(stream_id)).status == b"0"


@pytest.mark.parametrize(
    ("said", "encoding", "status"),
    [
        (b"\x01\x00\x00\x00\x01x", "gzip", b"12"),
        (b"\x01\x00\x00\x00\x01x", "identity", b"13"),
        (b"\x07\x00\x00\x00\x01x", "identity", b"13"),
        (b"\x00\x00\x00\x00\x09x", "identity", b"13"),
        (b"\x00\x00", "identity", b"13"),
    ],
)
async def test_bad_messages(said: bytes, encoding: str, status: bytes) -> None:
    calls = Calls()
    async with serving(h2.listen, calls) as listener, raw(listener.port) as client:
        stream_id = client.open(grpc_encoding=encoding)
        client.h2.send_data(stream_id, said, end_stream=True)
        answer = await client.ended(stream_id)
        assert answer.status == status
        assert len(calls.made[0].reasons) == 1
        assert calls.made[0].half == 0
        if status == b"12":
            assert answer.headers[b"grpc-accept-encoding"] == b"identity"


async def test_request_trailers_are_a_half_close() -> None:
    calls = Calls()
    async with serving(h2.listen, calls) as listener, raw(listener.port) as client:
        stream_id = client.open()
        client.say(stream_id, b"x")
        client.h2.send_trailers(stream_id, [(b"x-sum", b"1")])
        assert (await client.ended(stream_id)).status == b"0"
    assert calls.made[0].half == 1


async def test_events_for_streams_gone_within_one_batch() -> None:
    calls = Calls()
    async with serving(h2.listen, calls) as listener, raw(listener.port) as client:
        gone = client.open()
        stays = client.open()
        client.say(gone, b"x")
        client.say(stays, b"y")
        reset = raw_frame(3, 0, gone, (8).to_bytes(4, "big"))
        await client.flush(reset)
        client.say(stays, b"z", end=True)
        assert (await client.ended(stays)).status == b"0"
        assert [call.messages for call in calls.made] == [[b"x"], [b"y", b"z"]]
        assert [len(call.reasons) for call in calls.made] == [1, 0]


async def test_port_taken(listen: Listen) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=rf"{HOST}:{port}: the port is taken; .* choose another port") as caught:
            await listen({}, HOST, port)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [
        ("no-such-host.invalid", 0, "no known address"),
        ("192.0.2.1", 0, "no such address"),
        (HOST, 70_000, "0 to 65535"),
    ],
)
async def test_bad_addresses(listen: Listen, host: str, port: int, says: str) -> None:
    with pytest.raises(StartError, match=says):
        await listen({}, host, port)


@pytest.mark.parametrize(
    ("host", "reached"),
    [pytest.param("::1", "::1", marks=needs_ipv6), ("::", HOST), ("", HOST), ("localhost", "localhost")],
)
async def test_hosts(listen: Listen, host: str, reached: str) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    async with serving(listen, Calls(), host=host) as listener:
        address = f"[{reached}]" if ":" in reached else reached
        async with grpc.aio.insecure_channel(f"{address}:{listener.port}") as channel:
            assert [data async for data in channel.stream_stream(PATH)(iter([b"x"]), timeout=20)] == [b"x"]
