# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and SIGINT, idle and under load: what is promised is kept, and it ends in bounded time with exit code 0."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Iterator

import grpc
import pytest
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.e2e.client import JSON, Load, chat, head, post, receive
from tests.e2e.pod import sse_body
from tests.e2e.stack import PATIENCE_S, SEED_YAML, Epp, Stack, serving, stack

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ("", "envoy.service.ext_proc.v3.ExternalProcessor", "inference-extension", "readiness", "liveness")
TRANSPORTS = ("ngh2", "grpcio")


def health(epp: Epp) -> dict[str, int]:
    """What the health port says of every name."""
    with grpc.insecure_channel(f"127.0.0.1:{epp.health_port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        return {name: check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_S).status for name in NAMES}


@pytest.fixture(params=TRANSPORTS)
def running(request: pytest.FixtureRequest) -> Iterator[Stack]:
    with stack("--config-text", SEED_YAML, "--drain-timeout=1500ms", f"--transport={request.param}") as started:
        yield started


def open_stream(running: Stack, do: str) -> socket.socket:
    """A request whose answer has begun."""
    body = chat("a long story", stream=True)
    sock = socket.create_connection(("127.0.0.1", running.port), timeout=20)
    fields = {**JSON, "x-do": do, "content-length": str(len(body)), "x-request-id": "story"}
    sock.sendall(head("POST", "/v1/chat/completions", fields) + body)
    running.epp.handled("story")
    return sock


@pytest.mark.envoy
def test_sigterm_under_load(running: Stack) -> None:
    epp = running.epp
    assert set(health(epp).values()) == {SERVING}
    load = Load(running.port, head_and_body, connections=16)

    async def more_answers(count: int) -> None:
        wanted = load.answers[200] + count
        async with asyncio.timeout(PATIENCE_S):
            while load.answers[200] < wanted:  # noqa: ASYNC110 - the load tells nobody
                await asyncio.sleep(0.01)

    async def disturb() -> dict[str, int]:
        work = asyncio.ensure_future(load.run())
        await more_answers(100)
        epp.signal(signal.SIGTERM)
        await asyncio.to_thread(epp.say, "stopping: requests are answered for 2 s more")
        told = await asyncio.to_thread(health, epp)
        # The requests of 16 connections that were under way are not enough.
        await more_answers(50)
        load.stop()
        await work
        return told

    # More than 3 s of events: it is open before the signal, and ends after the drain.
    with open_stream(running, "sse 160 20") as sock:
        told = uvloop.run(disturb())
        assert told == {**dict.fromkeys(NAMES, NOT_SERVING), "liveness": SERVING}
        assert (load.failed, set(load.answers)) == ({}, {200})
        answer = receive(sock)
    assert (answer.status, answer.complete, answer.body) == (200, True, sse_body(160))
    assert epp.ended() == 0
    assert "stopped" in epp.lines[-1]
    assert complaints(epp) == []


def complaints(epp: Epp) -> list[str]:
    """But for what grpcio says of a call whose peer left in the very moment in which the server stopped."""
    return [line for line in epp.complaints() if "due to server stop" not in line]


def head_and_body(number: int) -> bytes:
    body = chat(f"request {number}")
    return head("POST", "/v1/chat/completions", {**JSON, "content-length": str(len(body))}) + body


@pytest.mark.envoy
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(running: Stack, number: int) -> None:
    epp = running.epp
    with open_stream(running, "hang"):
        epp.signal(signal.SIGTERM)
        epp.say("stopping: requests are answered for 2 s more")
        epp.signal(number)
        # A stream that never ends has a minute: nobody waits for that.
        assert epp.ended() == 0
    assert complaints(epp) == []


@pytest.mark.envoy
def test_a_second_signal_ends_the_wait_for_open_streams(running: Stack) -> None:
    epp = running.epp
    with open_stream(running, "hang"):
        epp.signal(signal.SIGTERM)
        # The drain is over; a stream that never ends may go on for a minute, unless somebody is in a hurry.
        time.sleep(2)
        assert epp.process.poll() is None
        epp.signal(signal.SIGTERM)
        assert epp.ended() == 0
    assert complaints(epp) == []


@pytest.mark.envoy
def test_sigint_skips_the_drain(running: Stack) -> None:
    assert post(running.port, chat("last one")).status == 200
    running.epp.signal(signal.SIGINT)
    assert running.epp.ended() == 0
    assert complaints(running.epp) == []


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nobody_there(transport: str) -> None:
    with serving("--drain-timeout=200ms", f"--transport={transport}", "--endpoints=127.0.0.1:9") as epp:
        epp.signal(signal.SIGTERM)
        assert epp.ended() == 0
        assert "stopped" in epp.lines[-1]


def test_a_request_after_the_drain_is_refused_not_lost() -> None:
    with serving("--drain-timeout=0s", "--endpoints=127.0.0.1:9") as epp:
        epp.signal(signal.SIGTERM)
        assert epp.ended() == 0
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", epp.port), timeout=2):
            pass
