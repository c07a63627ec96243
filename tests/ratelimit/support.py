# SPDX-License-Identifier: Apache-2.0
"""What the tests of rate limits share: requests in a few words, a clock, counters to read, a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import subprocess
from collections import Counter as Counts
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import pytest

from epp.contract.metering import Counter
from epp.protos import rls_pb2

REDIS = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(REDIS is None, reason="redis-server is not installed (Debian: redis-server)")

Entries = Sequence[tuple[str, str]]


def descriptor(*entries: tuple[str, str], hits: int | None = None, refund: bool = False) -> rls_pb2.RateLimitDescriptor:
    made = rls_pb2.RateLimitDescriptor(is_negative_hits=refund)
    for key, value in entries:
        made.entries.add(key=key, value=value.encode(errors="surrogateescape"))
    if hits is not None:
        made.hits_addend.value = hits
    return made


def request(domain: str, *descriptors: rls_pb2.RateLimitDescriptor, hits: int = 0) -> rls_pb2.RateLimitRequest:
    return rls_pb2.RateLimitRequest(domain=domain, descriptors=descriptors, hits_addend=hits)


class Clock:
    """Unix time that the test decides."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Readings:
    """A meter whose counters can be read."""

    def __init__(self) -> None:
        self.counts: dict[str, Counts[tuple[str, ...]]] = {}

    def counter(self, name: str, help_text: str, labels: Sequence[str], *, most_series: int = 1000) -> Counter:
        return _Reading(self.counts.setdefault(name, Counts()))

    def of(self, name: str, *labels: str) -> float:
        return self.counts[name][labels]


class _Reading:
    def __init__(self, counts: Counts[tuple[str, ...]]) -> None:
        self._counts = counts

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        self._counts[labels] += amount


class Store:
    """A Redis server of the test's own: on a loopback port, and on a Unix socket. It can be killed and started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        assert REDIS
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.socket = directory / "store.sock"
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.unix_url = f"unix://{self.socket}?db=0"
        self._command = [REDIS, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        self._command += ["--unixsocket", str(self.socket), *(options or ("--save", ""))]
        self.process: subprocess.Popen[bytes] | None = None

    def _spawn(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def start(self) -> None:
        self._spawn()
        for _ in range(500):
            if (await self.answers("PING") or b"").startswith((b"+PONG", b"-NOAUTH")):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the store does not start")

    async def answers(self, command: str) -> bytes | None:
        """The first line that the store says to an inline command, None if it cannot be reached."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return None
        writer.write(command.encode() + b"\r\n")
        line = await reader.readline()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return line.strip()

    def pause(self) -> None:
        """Neither dead nor alive: connections stay, answers do not come."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextlib.asynccontextmanager
async def store(directory: Path, *options: str) -> AsyncIterator[Store]:
    """A running server."""
    server = Store(directory, *options)
    try:
        await server.start()
        yield server
    finally:
        server.kill()


def codes(response: rls_pb2.RateLimitResponse) -> Iterable[str]:
    return [rls_pb2.RateLimitResponse.Code.Name(status.code) for status in response.statuses]
