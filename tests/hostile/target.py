# SPDX-License-Identifier: Apache-2.0
"""The server under attack, as a process of its own: an echo service on a real listener.

`python -m tests.hostile.target '{"transport": ..., "loop": ..., "tls": ..., "limits": {...}}'` prints its port, then
answers every line on its standard input with its figures, and ends with its input.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from epp.transport import grpcio, h2
from epp.transport.call import Limits, Metadata, Reply
from epp.transport.tls import TlsSource
from tests.hostile.wire import HOST, PATH

_TICK_S = 0.001
OPEN_PATH = "/test.Echo/KeepsOpen"
"""Answers nothing and stays open."""


class Echo:
    """Sends back what it gets."""

    open = 0
    cancelled_calls = 0

    def __init__(self, _: Metadata, reply: Reply) -> None:
        Echo.open += 1
        self.reply = reply

    def message(self, data: bytes) -> None:
        self.reply.send(data)

    def half_closed(self) -> None:
        Echo.open -= 1
        self.reply.finish()

    def cancelled(self, _: str) -> None:
        Echo.open -= 1
        Echo.cancelled_calls += 1


class Silent(Echo):
    """Takes what it gets."""

    def message(self, data: bytes) -> None:
        pass


class Watch:
    """The longest time the loop was held, beyond a tick."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._since_s = time.perf_counter()
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        now_s = time.perf_counter()
        self.longest_s = max(self.longest_s, now_s - self._since_s - _TICK_S)
        self._since_s = now_s
        asyncio.get_running_loop().call_later(_TICK_S, self._tick)


def memory() -> dict[str, int]:
    """Resident bytes: now, and the most since the last question."""
    found = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(rest.split()[0]) * 1024
    Path("/proc/self/clear_refs").write_text("5")
    return {"now_bytes": found["VmRSS"], "peak_bytes": found["VmHWM"]}


async def serve(told: dict[str, Any]) -> None:
    limits = Limits(**told.get("limits", {}))
    listen = grpcio.listen if told.get("transport") == "grpcio" else h2.listen
    tls = TlsSource() if told.get("tls") else None
    services = {PATH: Echo, OPEN_PATH: Silent, "/": Echo}
    listener = await listen(services, HOST, 0, tls=tls, limits=limits)
    watch = Watch()
    print(listener.port, flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        gc.collect()
        shared: Any = getattr(listener, "_shared", None)
        figures = {
            "held_s": watch.longest_s,
            "open": Echo.open,
            "cancelled": Echo.cancelled_calls,
            "connections": len(shared.connections) if shared else -1,
            **memory(),
        }
        watch.longest_s = 0.0
        print(json.dumps(figures), flush=True)
    await listener.close(0.0)


def main() -> None:
    told = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    factory = asyncio.new_event_loop if told.get("loop") == "asyncio" else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(told))


if __name__ == "__main__":
    main()
