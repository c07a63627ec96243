# SPDX-License-Identifier: Apache-2.0
"""Independent clients talk to both transports: grpcio's and grpclib's, plaintext and TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality

from epp.transport.tls import TlsSource
from tests.transport.support import HOST, PATH, Calls, raw, serving, unverified

Factory = Callable[[], asyncio.AbstractEventLoop]
SAID = [b"", b"one", b"x" * 70_000, b"three"]


class BytesCodec:
    """grpclib's codec for messages that are bytes already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


async def by_grpcio(port: int, tls: TlsSource | None) -> list[bytes]:
    if tls is None:
        channel = grpc.aio.insecure_channel(f"{HOST}:{port}")
    else:
        channel = grpc.aio.secure_channel(
            f"{HOST}:{port}",
            grpc.ssl_channel_credentials(tls.pem()[0]),
            options=[("grpc.ssl_target_name_override", "localhost")],
        )
    async with channel:
        return [data async for data in channel.stream_stream(PATH)(iter(SAID), timeout=20)]


async def by_grpclib(port: int, context: ssl.SSLContext | None) -> list[bytes]:
    channel = Channel(HOST, port, codec=BytesCodec(), ssl=context)
    try:
        got = []
        async with channel.request(PATH, Cardinality.STREAM_STREAM, bytes, bytes, timeout=20) as stream:
            for message in SAID:
                await stream.send_message(message)
                got.append(await stream.recv_message())
            await stream.end()
            assert await stream.recv_message() is None
        return got
    finally:
        channel.close()
        await asyncio.sleep(0)


@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "tls"])
async def test_grpcio_client(listen: Callable[..., Any], loop_factory: Factory, secure: bool) -> None:
    calls = Calls()
    tls = TlsSource() if secure else None
    async with serving(listen, calls, tls=tls) as listener:
        assert await by_grpcio(listener.port, tls) == SAID
    assert calls.made[0].messages == SAID
    assert calls.made[0].half == 1
    assert calls.made[0].reasons == []


@pytest.mark.parametrize("version", [None, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_grpclib_client(listen: Callable[..., Any], version: ssl.TLSVersion | None) -> None:
    calls = Calls()
    tls = None if version is None else TlsSource()
    context = None if version is None else unverified(version)
    async with serving(listen, calls, tls=tls) as listener:
        assert await by_grpclib(listener.port, context) == SAID
    assert calls.made[0].messages == SAID
    assert calls.made[0].half == 1
    assert calls.made[0].reasons == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_alpn_is_h2(listen: Callable[..., Any], version: ssl.TLSVersion) -> None:
    async with (
        serving(listen, Calls(), tls=TlsSource()) as listener,
        raw(listener.port, unverified(version)) as client,
    ):
        tls = client.writer.get_extra_info("ssl_object")
        assert (tls.selected_alpn_protocol(), tls.version()) == ("h2", version.name.replace("_", "."))
        assert (await client.call(b"hello")).status == b"0"


async def test_metadata(listen: Callable[..., Any]) -> None:
    calls = Calls()
    async with serving(listen, calls) as listener, grpc.aio.insecure_channel(f"{HOST}:{listener.port}") as channel:
        call = channel.stream_stream(PATH)(iter([b"x"]), metadata=(("x-one", "1"), ("x-bin", b"\x00\xff")), timeout=20)
        assert [data async for data in call] == [b"x"]
        metadata = calls.made[0].metadata
        assert metadata.path == PATH
        assert metadata.authority in (f"{HOST}:{listener.port}", "")  # grpcio does not tell.
        assert metadata.values["x-one"] == "1"
        assert metadata.values["x-bin"] == "AP8"
        assert not any(key.startswith(":") for key in metadata.values)


async def test_many_streams_at_once(listen: Callable[..., Any], loop_factory: Factory) -> None:
    async with serving(listen, Calls()) as listener, raw(listener.port) as client:
        streams = [client.open() for _ in range(200)]
        for stream_id in streams:
            client.say(stream_id, b"%d" % stream_id, end=True)
        for stream_id in streams:
            answer = await client.ended(stream_id)
            assert bytes(answer.data[5:]) == b"%d" % stream_id
            assert answer.status == b"0"


async def test_large_messages_both_ways(listen: Callable[..., Any], loop_factory: Factory) -> None:
    large = bytes(range(256)) * (20 * 1024 * 4)
    calls = Calls()
    async with (
        serving(listen, calls) as listener,
        grpc.aio.insecure_channel(
            f"{HOST}:{listener.port}", options=[("grpc.max_receive_message_length", -1)]
        ) as channel,
    ):
        got = [data async for data in channel.stream_stream(PATH)(iter([large, b"end"]), timeout=30)]
        assert got == [large, b"end"]
