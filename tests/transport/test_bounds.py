# SPDX-License-Identifier: Apache-2.0
"""What a peer of the libnghttp2 transport can make us hold or do: all of it is bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from epp.transport import h2
from epp.transport.call import Limits
from epp.transport.connection import Connection
from epp.transport.stream import Stream
from epp.transport.tls import TlsSource
from tests.transport.support import (
    HOST,
    PATH,
    Calls,
    RawClient,
    echo,
    framed,
    nothing,
    raw,
    raw_frame,
    serving,
    until,
    unverified,
)

Factory = Callable[[], asyncio.AbstractEventLoop]
CALM = 11


def only(listener: Any) -> Connection:
    (connection,) = listener._shared.connections
    assert isinstance(connection, Connection)
    return connection


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "tls"])
async def test_a_client_that_does_not_read_its_socket_is_bounded(loop_factory: Factory, secure: bool) -> None:
    limits = Limits(stalled_output_s=0.6)
    calls = Calls()
    tls = TlsSource() if secure else None
    async with (
        serving(h2.listen, calls, limits=limits, tls=tls) as listener,
        raw(listener.port, unverified() if secure else None) as client,
    ):
        stream_id = client.open()
        # Large windows: only the socket can stop the server. The client goes over its own.
        await client.until(lambda: client.settings)
        writer = client.writer
        writer.transport.pause_reading()
        connection = only(listener)
        held = 0
        await client.flush()
        payload = raw_frame(0, 0, stream_id, framed(b"x" * 16_000))
        with contextlib.suppress(OSError, TimeoutError):
            while not connection.over:
                writer.write(payload)
                await asyncio.wait_for(writer.drain(), 2)
                await asyncio.sleep(0)
                held = max(held, connection.transport.get_write_buffer_size() + connection.queued())
        assert limits.queued_output_bytes / 2 < held < limits.queued_output_bytes + 1_000_000
        await asyncio.wait_for(calls.made[0].over.wait(), 10)
        await until(lambda: connection.over)


async def test_a_client_that_gives_no_window_is_bounded_and_its_stream_reset(loop_factory: Factory) -> None:
    limits = Limits(queued_output_bytes=100_000, stream_window_bytes=65_535, stalled_output_s=0.5)
    calls = Calls()
    async with (
        serving(h2.listen, calls, limits=limits) as listener,
        raw(listener.port, windows={4: 10_000}, auto_window_update=False) as client,
    ):
        await client.until(lambda: client.settings)
        idle = client.open()
        stream_id = client.open()
        client.say(idle, b"x")
        for _ in range(40):
            client.say(stream_id, b"x" * 10_000)
        connection = only(listener)
        peak = 0

        def stalled() -> bool:
            nonlocal peak
            peak = max(peak, connection.queued())
            return client.answers[stream_id].reset is not None

        await client.until(stalled)
        assert client.answers[stream_id].reset == 8
        assert 100_000 < peak < 100_000 + 65_535 + 20_000
        assert client.h2.queued_body_size(stream_id) == 0
        assert calls.made[1].reasons == ["the client takes no output"]
        assert calls.made[0].reasons == []
        client.say(idle, b"y", end=True)
        assert (await client.ended(idle)).status == b"0"


async def test_acknowledging_goes_on_when_output_drains() -> None:
    limits = Limits(queued_output_bytes=20_000, stream_window_bytes=65_535)
    async with (
        serving(h2.listen, Calls(), limits=limits) as listener,
        raw(listener.port, windows={4: 10_000}, auto_window_update=False) as client,
    ):
        stream_id = client.open()
        for _ in range(60):
            client.say(stream_id, b"x" * 10_000)
        client.h2.end_stream(stream_id)
        answer = client.answers[stream_id]
        taken = 0
        while not answer.ended:
            await client.until(lambda taken=taken: len(answer.data) > taken or answer.ended)
            client.h2.acknowledge_received_data(len(answer.data) - taken, stream_id)
            taken = len(answer.data)
        assert taken == 60 * 10_005
        assert answer.status == b"0"


@pytest.mark.parametrize("early", [True, False])
async def test_the_connection_window_is_never_lost(early: bool) -> None:
    """Streams end or are reset with bytes on their way; thousands of times the window still gets through."""

    def go(call: Any, data: bytes) -> None:
        if early:
            call.reply.finish()

    limits = Limits(connection_window_bytes=100_000, stalled_output_s=0.4)
    services = {PATH: Calls(), "/go": Calls(go, nothing)}
    async with serving(h2.listen, services, limits=limits) as listener, raw(listener.port) as client:
        for _ in range(50):
            stream_id = client.open("/go")
            for _ in range(4):
                client.say(stream_id, b"x" * 3_000)
            await client.until(lambda stream_id=stream_id: client.h2.queued_body_size(stream_id) == 0)
            client.h2.reset_stream(stream_id, 2)
        assert (await client.call(b"x" * 200_000)).status == b"0"


async def test_a_refused_upload_does_not_hold_up_others() -> None:
    limits = Limits(message_bytes=100_000, connection_window_bytes=200_000)
    async with serving(h2.listen, Calls(), limits=limits) as listener, raw(listener.port) as client:
        upload = client.open()
        client.say(upload, b"x" * 5_000_000)
        answer = await client.ended(upload)
        assert answer.status == b"8"
        assert (await client.call(b"small")).status == b"0"
        await client.until(lambda: not client.h2.queued_body_size(upload) or answer.reset == 0)
        assert (await client.call(b"x" * 90_000)).status == b"0"


async def test_a_fault_of_ours_costs_one_stream(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    receive = Stream.receive

    def faulty(stream: Stream, data: bytes) -> None:
        if b"poison" in data:
            raise RuntimeError("a fault")
        receive(stream, data)

    monkeypatch.setattr(Stream, "receive", faulty)
    async with serving(h2.listen, Calls()) as listener, raw(listener.port) as client:
        stream_id = client.open()
        client.say(stream_id, b"poison")
        other = client.open()
        client.say(other, b"y", end=True)
        assert (await client.ended(other)).status == b"0"
        assert (await client.ended(stream_id)).status == b"13"
        assert len([record for record in caplog.records if "could not be handled" in record.message]) == 1


async def test_a_finished_stream_left_open_is_reset_without_error(loop_factory: Factory) -> None:
    def go(call: Any, data: bytes) -> None:
        call.reply.send(b"that is all")
        call.reply.finish()

    limits = Limits(stalled_output_s=0.4)
    async with serving(h2.listen, Calls(go), limits=limits) as listener, raw(listener.port) as client:
        stream_id = client.open()
        client.say(stream_id, b"x")
        answer = client.answers[stream_id]
        await client.until(lambda: answer.trailers)
        assert answer.reset is None
        await client.until(lambda: answer.reset is not None)
        assert answer.reset == 0
        assert answer.status == b"0"
        assert answer.data == framed(b"that is all")
        await until(lambda: not only(listener).ending)


async def test_a_finished_stream_keeps_its_output_until_it_is_taken() -> None:
    def go(call: Any, data: bytes) -> None:
        call.reply.send(b"x" * 30_000)
        call.reply.finish()

    limits = Limits(stalled_output_s=0.8)
    async with (
        serving(h2.listen, Calls(go), limits=limits) as listener,
        raw(listener.port, windows={4: 10_000}, auto_window_update=False) as client,
    ):
        stream_id = client.open()
        client.say(stream_id, b"x")
        answer = client.answers[stream_id]
        taken = 0
        while not answer.ended:
            await client.until(lambda taken=taken: len(answer.data) > taken or answer.ended)
            await asyncio.sleep(0.25)  # Sweeps pass while nothing is taken.
            client.h2.acknowledge_received_data(len(answer.data) - taken, stream_id)
            taken = len(answer.data)
        assert taken == 30_005
        assert answer.status == b"0"


def pings(client: RawClient) -> bytes:
    return raw_frame(6, 0, 0, b"12345678")


def settings(client: RawClient) -> bytes:
    return raw_frame(4, 0, 0, b"")


def empty_data(client: RawClient) -> bytes:
    return raw_frame(0, 0, 1, b"")


def window_updates(client: RawClient) -> bytes:
    return raw_frame(8, 0, 0, b"\x00\x00\x00\x01")


def priorities(client: RawClient) -> bytes:
    return raw_frame(2, 0, 1, b"\x00\x00\x00\x00\x10")


def unknown_frames(client: RawClient) -> bytes:
    return raw_frame(0x55, 0, 0, b"x")


def resets(client: RawClient) -> bytes:
    stream_id = client.open()
    client.h2.reset_stream(stream_id, 8)
    client.h2.data_to_send()
    # HEADERS are cancelled by libnghttp2 when the stream is reset before they go; written by hand: all indexed.
    return raw_frame(1, 4, stream_id, b"\x83\x86\x84") + raw_frame(3, 0, stream_id, b"\x00\x00\x00\x08")


FLOODS = [pings, settings, empty_data, window_updates, priorities, unknown_frames, resets]


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
async def test_floods_end_their_connection_alone(flood: Callable[[RawClient], bytes]) -> None:
    limits = Limits(control_frames=1_000)
    calls = Calls()
    async with (
        serving(h2.listen, calls, limits=limits) as listener,
        raw(listener.port) as bystander,
        raw(listener.port) as client,
    ):
        open_call = bystander.open()
        bystander.say(open_call, b"x")
        await bystander.until(lambda: bystander.answers[open_call].data)
        stream_id = client.open()
        client.say(stream_id, b"x")
        await client.until(lambda: client.answers[stream_id].data)
        frames = 20_000 if flood is window_updates else 5_000
        for _ in range(0, frames, 100):
            client.writer.write(b"".join(flood(client) for _ in range(100)))
            if client.writer.is_closing():
                break
        await client.until_gone()
        assert {goaway.error_code for goaway in client.goaways} <= {CALM}  # A reset socket may lose it.
        await asyncio.wait_for(calls.made[1].over.wait(), 10)
        assert calls.made[1].reasons == ["connection lost"]
        bystander.say(open_call, b"y", end=True)
        assert (await bystander.ended(open_call)).status == b"0"


async def test_control_frames_within_their_budget_are_fine() -> None:
    now = 0.0
    limits = Limits(control_frames=100)
    async with (
        serving(h2.listen, Calls(), limits=limits, clock=lambda: now) as listener,
        raw(listener.port) as client,
    ):
        assert (await client.call(b"x")).status == b"0"
        for _ in range(10):
            now += 1.1
            await client.flush(pings(client) * 90)
            assert (await client.call(b"x")).status == b"0"
        assert client.goaways == []


async def test_twenty_thousand_streams_reset_by_the_client_lose_none(loop_factory: Factory) -> None:
    calls = Calls(echo, nothing)
    async with serving(h2.listen, calls) as listener, raw(listener.port) as client:
        answered = 0
        for _ in range(100):
            streams = [client.open() for _ in range(200)]
            for stream_id in streams:
                client.say(stream_id, b"x")
            await client.until(lambda streams=streams: all(client.answers[stream_id].data for stream_id in streams))
            for stream_id in streams:
                answered += client.answers.pop(stream_id).data == framed(b"x")
                client.h2.reset_stream(stream_id, 2)
        assert answered == 20_000
        last = client.open()
        client.say(last, b"still here")
        await client.until(lambda: client.answers[last].data)
        assert client.goaways == []
        assert len(only(listener).streams) == 1
        assert len(calls.made) == 20_001
        assert all(call.reasons == ["reset by the client (code 2)"] for call in calls.made[:-1])


MALFORMED = {
    "http1": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "noise": bytes(range(256)),
    "no settings": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + raw_frame(6, 0, 0, b"12345678"),
}


@pytest.mark.parametrize("said", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_http2_is_hung_up_on(said: bytes) -> None:
    async with serving(h2.listen, Calls()) as listener:
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        writer.write(said)
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionError):
                while await reader.read(1_000):
                    pass
        writer.transport.abort()
        async with raw(listener.port) as client:
            assert (await client.call(b"x")).status == b"0"


BROKEN_FRAMES = {
    "data on an idle stream": (raw_frame(0, 0, 99, b"x"), 1),
    "data on stream 0": (raw_frame(0, 0, 0, b"x"), 1),
    "headers that cannot be decoded": (raw_frame(1, 4, 99, b"\xff\xff\xff\xff\xff\xff\xff\xff"), 9),
    "an even stream": (raw_frame(1, 4, 98, b"\x83\x86\x84"), 1),
    "a frame too long": (raw_frame(0, 0, 1, bytes(20_000)), 6),
    "a window beyond 2^31": (raw_frame(8, 0, 0, b"\x7f\xff\xff\xff"), 3),
    "a short ping": (raw_frame(6, 0, 0, b"1"), 6),
    "a lone continuation": (raw_frame(9, 4, 1, b"\x83"), 1),
}


@pytest.mark.parametrize(("said", "error"), BROKEN_FRAMES.values(), ids=BROKEN_FRAMES.keys())
async def test_broken_frames_end_their_connection_alone(said: bytes, error: int) -> None:
    calls = Calls()
    async with serving(h2.listen, calls) as listener, raw(listener.port) as bystander, raw(listener.port) as client:
        stream_id = client.open()
        client.say(stream_id, b"x")
        await client.until(lambda: client.answers[stream_id].data)
        await client.flush(said)
        await client.until_gone()
        assert [goaway.error_code for goaway in client.goaways] == [error]
        await asyncio.wait_for(calls.made[0].over.wait(), 10)
        assert calls.made[0].reasons == ["connection lost"]
        assert (await bystander.call(b"x")).status == b"0"


async def test_a_header_list_over_the_bound_ends_the_connection() -> None:
    async with (
        serving(h2.listen, Calls()) as listener,
        raw(listener.port, max_send_header_block_length=1 << 20) as client,
    ):
        await client.until(lambda: client.settings)
        assert client.settings[6] == 16_384
        large = client.open(x_large="x" * 15_000, end=True)
        assert (await client.ended(large)).status == b"0"
        client.open(x_large="x" * 10_000, x_more="y" * 7_000)
        await client.flush()
        await client.until_gone()


async def test_a_malformed_request_costs_its_stream() -> None:
    calls = Calls()
    async with serving(h2.listen, calls) as listener, raw(listener.port) as client:
        stream_id = client.open(content_length="3")
        client.say(stream_id, b"longer than three")
        assert (await client.ended(stream_id)).reset == 1
        await asyncio.wait_for(calls.made[0].over.wait(), 10)
        assert calls.made[0].reasons == ["stream error (code 1)"]
        assert (await client.call(b"x")).status == b"0"


async def test_streams_over_the_limit_are_refused() -> None:
    async with serving(h2.listen, Calls(), limits=Limits(streams=3)) as listener, raw(listener.port) as client:
        await client.until(lambda: client.settings)
        assert client.settings[3] == 3
        streams = [client.open() for _ in range(9)]  # The client waits with those over the limit.
        for stream_id in streams:
            client.say(stream_id, b"x", end=True)
        for stream_id in streams:
            assert (await client.ended(stream_id)).status == b"0"


async def test_connections_over_the_limit_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        serving(h2.listen, Calls(), limits=Limits(connections=2)) as listener,
        raw(listener.port) as first,
        raw(listener.port) as second,
    ):
        for client in (first, second):
            assert (await client.call(b"x")).status == b"0"
        async with raw(listener.port) as third, raw(listener.port) as fourth:
            await third.until_gone()
            await fourth.until_gone()
        assert len([record for record in caplog.records if "as many as allowed" in record.message]) == 1
        await second.close()
        await until(lambda: len(listener._shared.connections) == 1)
        async with raw(listener.port) as again:
            assert (await again.call(b"x")).status == b"0"
        assert (await first.call(b"x")).status == b"0"


async def test_a_silent_connection_is_closed_and_a_quiet_one_is_not(loop_factory: Factory) -> None:
    async with serving(h2.listen, Calls(), limits=Limits(handshake_s=0.5)) as listener:
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        async with raw(listener.port) as quiet:
            await quiet.until(lambda: quiet.settings)
            with contextlib.suppress(ConnectionError):
                while await asyncio.wait_for(reader.read(1_000), 10):
                    pass
            writer.transport.abort()
            assert (await quiet.call(b"x")).status == b"0"


async def test_incomplete_messages_of_a_connection_are_bounded_together() -> None:
    calls = Calls()
    limits = Limits(incomplete_bytes=100_000)
    async with serving(h2.listen, calls, limits=limits) as listener, raw(listener.port) as client:
        streams = [client.open() for _ in range(12)]
        for stream_id in streams:
            client.h2.send_data(stream_id, framed(b"x" * 20_000)[:10_000])
        await client.until(lambda: sum(client.answers[stream_id].ended for stream_id in streams) >= 2)
        refused = [stream_id for stream_id in streams if client.answers[stream_id].ended]
        assert {client.answers[stream_id].status for stream_id in refused} == {b"8"}
        for stream_id in set(streams) - set(refused):
            client.h2.send_data(stream_id, framed(b"x" * 20_000)[10_000:], end_stream=True)
            assert (await client.ended(stream_id)).status == b"0"
        assert only(listener).incomplete_bytes == 0


async def test_streams_cut_within_a_frame_bring_a_new_connection_in_time() -> None:
    """libnghttp2 loses count of the frame; the peer is sent elsewhere before its window is gone."""
    limits = Limits(connection_window_bytes=65_535, stalled_output_s=0.2)

    def go(call: Any, data: bytes) -> None:
        call.reply.finish()

    services = {PATH: Calls(), "/go": Calls(go)}
    async with serving(h2.listen, services, limits=limits) as listener, raw(listener.port) as client:
        open_call = client.open()
        client.say(open_call, b"x")
        await client.until(lambda: client.answers[open_call].data)
        for _ in range(2):
            assert client.goaways == []
            stream_id = client.open("/go")
            client.say(stream_id, b"x")
            frame = raw_frame(0, 0, stream_id, bytes(1_000))
            client.quiet = True  # Nothing may come between the halves of a frame.
            await client.flush(frame[:500])
            while client.answers[stream_id].reset is None:
                await client.read_some()
            client.quiet = False
            client.writer.write(frame[500:])
        await client.until(lambda: len(client.goaways) == 2)
        assert client.goaways[-1].last_stream_id == stream_id
        client.say(open_call, b"y", end=True)
        assert (await client.ended(open_call)).status == b"0"
