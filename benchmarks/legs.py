# SPDX-License-Identifier: Apache-2.0
"""One timed stretch of load through one picker's Envoy, and what it cost the picker.

Streams and messages are what Envoy says it sent to the picker, so that nothing the clients gave up, and no chunk that
Envoy joined to another, is counted wrongly.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import proc
from benchmarks.rows import BenchmarkError
from benchmarks.stack import Served
from epp.local.process import Children

_SETTLE_S = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What clients do. `chunks` 0: a JSON answer; else that many events, `pause_ms` apart."""

    seconds: float
    connections: int
    chunks: int = 0
    pause_ms: int = 10

    def argv(self, port: int) -> list[str]:
        """The command line of the load generator."""
        return [
            *(sys.executable, "-m", "benchmarks.load", str(port), "--connections", str(self.connections)),
            *("--seconds", str(self.seconds), "--chunks", str(self.chunks), "--pause-ms", str(self.pause_ms)),
        ]


@dataclass(frozen=True, slots=True)
class Leg:
    """What one stretch cost. `cpu_s` is the picker's; `clients` is the load generator's own report."""

    streams: int
    messages: int
    cpu_s: float
    wall_s: float
    clients: dict[str, Any]

    @property
    def cpu_us_per_stream(self) -> float:
        """The picker's CPU microseconds for one HTTP request."""
        return self.cpu_s / self.streams * 1e6

    @property
    def messages_per_stream(self) -> float:
        """ext_proc messages from Envoy for one HTTP request."""
        return self.messages / self.streams


async def run_leg(served: Served, load: Load, cpu_s_of: Callable[[int], float] = proc.cpu_s) -> Leg:
    """Apply `load`. Raises BenchmarkError when a request failed: such a stretch measures something else."""
    pid = served.picker.pid
    before = served.counters()
    cpu_s, started_s = cpu_s_of(pid), time.perf_counter()
    clients = await _clients(load.argv(served.port))
    # Streams of the last answers are being closed.
    await asyncio.sleep(_SETTLE_S)
    cpu_s, wall_s = cpu_s_of(pid) - cpu_s, time.perf_counter() - started_s
    after = served.counters()
    leg = Leg(
        streams=after["streams_started"] - before["streams_started"],
        messages=after["stream_msgs_sent"] - before["stream_msgs_sent"],
        cpu_s=cpu_s,
        wall_s=wall_s,
        clients=clients,
    )
    if clients["failures"] or not leg.streams:
        told = f"{clients['failures']} of {clients['requests']} requests failed, {leg.streams} reached the picker"
        last_words = " ".join(list(served.picker.tail)[-2:])
        raise BenchmarkError(f"{served.variant.name}: {told}; its last words: {last_words}")
    return leg


async def _clients(argv: list[str]) -> dict[str, Any]:
    children = Children()
    try:
        child = await children.start("load", argv)
        if await child.ended:
            raise BenchmarkError("; ".join((child.describe_end(), *list(child.tail)[-3:])))
        report: dict[str, Any] = json.loads(child.tail[-1])
        return report
    finally:
        await children.stop(1.0)
