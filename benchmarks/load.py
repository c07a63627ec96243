# SPDX-License-Identifier: Apache-2.0
"""Clients: keep-alive connections that send one chat request after the other, for a time.

    python -m benchmarks.load PORT --connections N --seconds S [--chunks N --pause-ms N]

Every body has about 9 KB: 60 % of it one of a few long system prompts, the rest unique, so that each request matches
a prefix and adds blocks of its own. Where `wrk` is installed it does the work. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import uvloop

from benchmarks import wrk

BODY_BYTES = 9_000
SYSTEM_PROMPTS = 16
SHARED = 0.6
GRACE_S = 15.0
"""How long requests that are open at the end may take."""
_WORDS = "the cloud drifts over quiet valley while seven engines count tokens and none waits for rain".split()  # noqa: SIM905


def text(rng: random.Random, size: int) -> str:
    """Words, `size` characters of them."""
    return " ".join(rng.choices(_WORDS, k=size // 2))[:size]


def halves(rng: random.Random, *, stream: bool) -> list[tuple[bytes, bytes]]:
    """Bodies cut where something unique of 16 characters goes in."""
    flags = '"stream":true,"stream_options":{"include_usage":true},' if stream else ""
    shared = int(BODY_BYTES * SHARED)
    cuts = []
    for _ in range(SYSTEM_PROMPTS):
        start = f'{{"model":"bench","max_tokens":64,{flags}"messages":[{{"role":"system","content":"'
        start += f'{text(rng, shared)}"}},{{"role":"user","content":"'
        end = f'{text(rng, BODY_BYTES - len(start) - 20)}"}}]}}'
        cuts.append((start.encode(), end.encode()))
    return cuts


def head(port: int, length: int, chunks: int, pause_ms: int) -> bytes:
    """The head of every request."""
    lines = ["POST /v1/chat/completions HTTP/1.1", f"host: 127.0.0.1:{port}", "content-type: application/json"]
    lines += ["user-agent: bench/1", "accept: */*", f"content-length: {length}"]
    if chunks:
        lines += [f"x-chunks: {chunks}", f"x-pause-ms: {pause_ms}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def messages(port: int, chunks: int, pause_ms: int, seed: int = 1) -> Iterator[bytes]:
    """Requests without end, no two alike."""
    rng = random.Random(seed)
    cuts = halves(rng, stream=chunks > 0)
    for number in itertools.count(rng.getrandbits(40)):
        start, end = cuts[number % len(cuts)]
        yield b"".join((head(port, len(start) + 16 + len(end), chunks, pause_ms), start, b"%016x" % number, end))


class Answer:
    """Reads one answer at a time: `feed` says when it is complete. `status` is 0 until the head is here."""

    __slots__ = ("_chunked", "_left", "_seen", "status")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Wait for the next answer."""
        self.status = 0
        self._seen = b""
        self._chunked = False
        self._left = 0

    def feed(self, data: bytes) -> bool:
        """Take bytes; True with the last ones of the answer. A chunked body is over where the bytes end with the last
        chunk, as nothing is pipelined."""
        if not self.status:
            data = self._seen + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._seen = data
                return False
            start = data[:end].lower()
            self.status = int(start[9:12])
            self._chunked = b"\r\ntransfer-encoding: chunked" in start
            length = re.search(rb"\r\ncontent-length: *(\d+)", start)
            self._left = int(length.group(1)) if length else 0
            data, self._seen = data[end + 4 :], b""
        if self._chunked:
            self._seen = (self._seen + data)[-5:]
            return self._seen == b"0\r\n\r\n"
        self._left -= len(data)
        return self._left <= 0


class Client(asyncio.Protocol):
    """One connection. `done` is called once, when it has nothing more to do."""

    def __init__(self, source: Iterator[bytes], total: Totals, done: Callable[[], None]) -> None:
        self._source = source
        self._total = total
        self._done = done
        self._answer = Answer()
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._answer.feed(data):
            self._busy = False
            self._total.add(self._answer.status, time.perf_counter() - self._sent_s)
            self._answer.reset()
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._busy:
            self._total.failures += 1
        self._done()

    def _send(self) -> None:
        self._sent_s = time.perf_counter()
        if self._sent_s >= self._total.until_s:
            self._transport.close()
            return
        self._busy = True
        self._transport.write(next(self._source))


class Totals:
    """What all connections did."""

    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.failures = 0
        self.latencies_ms: list[float] = []

    def add(self, status: int, seconds: float) -> None:
        """One answer is here."""
        self.latencies_ms.append(seconds * 1000)
        if status != 200:
            self.failures += 1


async def bundled(port: int, connections: int, seconds: float, chunks: int, pause_ms: int) -> dict[str, Any]:
    """Run the load with the loop of this process."""
    loop = asyncio.get_running_loop()
    source = messages(port, chunks, pause_ms)
    started_s = time.perf_counter()
    total = Totals(started_s + seconds)
    ends = []
    for _ in range(connections):
        over = asyncio.Event()
        ends.append(over)
        await loop.create_connection(lambda over=over: Client(source, total, over.set), "127.0.0.1", port)  # type: ignore[misc]
    async with asyncio.timeout(seconds + GRACE_S):
        for over in ends:
            await over.wait()
    latencies = sorted(total.latencies_ms) or [0.0]
    return {
        "generator": "bundled",
        "requests": len(total.latencies_ms),
        "failures": total.failures,
        "seconds": time.perf_counter() - started_s,
        "p50_ms": latencies[len(latencies) // 2],
        "p99_ms": latencies[len(latencies) * 99 // 100],
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description="keep-alive chat requests for a time")
    parser.add_argument("port", type=int)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--chunks", type=int, default=0, help="ask for server-sent events, this many")
    parser.add_argument("--pause-ms", type=int, default=10, help="between two events")
    options = parser.parse_args()
    port, connections, seconds = options.port, options.connections, options.seconds
    binary = shutil.which("wrk")
    if binary is None:
        told = uvloop.run(bundled(port, connections, seconds, options.chunks, options.pause_ms))
    else:
        asked = {"x-chunks": str(options.chunks), "x-pause-ms": str(options.pause_ms)} if options.chunks else {}
        told = wrk.run(binary, port, connections, seconds, halves(random.Random(1), stream=bool(asked)), asked)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
