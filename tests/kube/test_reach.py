# SPDX-License-Identifier: Apache-2.0
"""One matter for the whole connection: told once, in our words, and taken back by the first answer."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from unittest.mock import Mock

import aiohttp
import pytest

from epp.kube.access import Access, find_access
from epp.kube.answers import Request
from epp.kube.api import Api
from epp.kube.errors import ApiError, Unreachable
from epp.kube.objects import Pod
from epp.kube.reach import Reach, Silence, silence_of
from epp.kube.resource import PODS
from epp.kube.sending import Sender
from tests.apiserver.objects import pod
from tests.apiserver.server import ApiServer

AWAY, REFUSED = Silence("the connection broke"), Silence("connection refused")
UNTRUSTED = Silence("its certificate is not trusted: no", "mend it", away=False)
S = "https://s"


def test_an_outage_is_told_once_and_its_end_once() -> None:
    told: list[str | None] = []
    reach = Reach(told.append)
    reach.answered()
    for silence in (AWAY, REFUSED, AWAY):
        reach.silent(silence, S)
    for _ in range(3):
        reach.answered()
    reach.silent(REFUSED, S)
    assert told == [AWAY.line(S), None, REFUSED.line(S)]


def test_what_somebody_must_mend_is_told_though_an_outage_was() -> None:
    told: list[str | None] = []
    reach = Reach(told.append)
    for silence in (REFUSED, UNTRUSTED, UNTRUSTED, REFUSED):
        reach.silent(silence, S)
    assert told == [REFUSED.line(S), UNTRUSTED.line(S)]


def connector(error: OSError) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(Mock(), error)


def of_tls() -> aiohttp.ClientOSError:
    error = aiohttp.ClientOSError(1, "[SSL] application data after close notify")
    error.__cause__ = ssl.SSLError(1, "[SSL] application data after close notify")
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TimeoutError(), "it took too long"),
        (aiohttp.ServerTimeoutError(), "it took too long"),
        (connector(OSError(errno.ETIMEDOUT, "Connect call failed")), "it took too long"),
        (connector(OSError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)")), "connection refused"),
        (connector(OSError(errno.EHOSTUNREACH, "Connect call failed")), "No route to host"),
        (connector(OSError("Multiple exceptions: [Errno 111] a, [Errno 101] b")), "no connection could be made"),
        (connector(socket.gaierror(-2, "Name or service not known")), "its name cannot be resolved"),
        (connector(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]")), "TLS failed"),
        (of_tls(), "TLS failed"),
        (aiohttp.ClientPayloadError("Response payload is not completed: <TransferEncodingError: 400>"), "the connection broke"),
        (aiohttp.ServerDisconnectedError(), "the connection broke"),
        (aiohttp.ClientOSError(errno.ECONNRESET, "Connection reset by peer"), "the connection broke"),
        (aiohttp.ClientOSError("gone"), "the connection broke"),
        (BrokenPipeError(), "the connection broke"),
        (aiohttp.ClientResponseError(Mock(), (), message="Bad status line"), "what answers does not speak HTTP"),
        (ValueError("a\nb"), "a b"),
    ],
)  # fmt: skip
def test_reasons(error: Exception, reason: str) -> None:
    assert silence_of(error).reason == reason


# A server that goes away in the middle of a TLS handshake leaves a transport of its own unclosed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_against_a_server_that_goes_and_comes_back() -> None:
    told: list[str | None] = []
    with ApiServer() as server:
        server.apply(pod("a", "10.0.0.1", {"app": "x"}, namespace=server.namespace))
        access = find_access(server.environ, service_account=server.service_account)
        assert access is not None
        api = Api(access, reachable=told.append)
        _, version = await api.list(PODS, server.namespace, Pod)
        watch = api.watch(PODS, server.namespace, Pod, resource_version=version, timeout_s=60)
        await anext(watch)
        server.drop_watches(torn=True)
        with pytest.raises(Unreachable, match="the connection broke"):
            await anext(watch)
        assert told == [], "a watch that breaks off is nothing before it cannot be resumed"
        server.away()
        for _ in range(3):
            with pytest.raises(Unreachable):
                await api.list(PODS, server.namespace, Pod)
        assert len(told) == 1
        assert f"no answer from {server.url}: " in str(told[0])
        server.back()
        server.rules.deny("*", "*")
        with pytest.raises(ApiError):
            await api.list(PODS, server.namespace, Pod)
        assert told[1:] == [None], "a refusal is an answer, too"
        await api.close()
        with pytest.raises(Unreachable):
            await api.list(PODS, server.namespace, Pod)
        assert len(told) == 2, "that we closed it is no trouble"
        await asyncio.sleep(0.02)


async def test_half_an_answer_is_none() -> None:
    told: list[str | None] = []

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(half, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        api = Api(Access(url), reachable=told.append)
        with pytest.raises(Unreachable):
            await api.read(PODS, "x", "a", Pod)
        assert told == [f"no answer from {url}: the connection broke; {AWAY.remedy}"]
        await api.close()


async def test_a_stream_that_falls_silent_has_broken_off() -> None:
    """A proxy that stays while its other end is gone says nothing, and ends nothing."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sender = Sender(Access(f"http://127.0.0.1:{port}"), timeout_s=10, reachable=Mock(), silence_s=0.1)
    try:
        stream = sender.stream(Request("watch", PODS), "/api/v1/pods", {}, whole_s=60)
        assert [await anext(stream), await anext(stream)] == [b"", b"\n"]
        with pytest.raises(Unreachable, match="it took too long"):
            await anext(stream)
    finally:
        await sender.close()
        server.close()
