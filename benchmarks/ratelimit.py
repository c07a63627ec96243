# SPDX-License-Identifier: Apache-2.0
"""Row `ratelimit`: CPU of the rate limit service for one call, counters in memory, next to the same engine on grpc.aio.

What differs is the transport, and whatever else a process of ours does (metrics, reload). Both take turns.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import proc
from benchmarks.ratelimit_peers import IN_FLIGHT, RULES
from benchmarks.rows import BenchmarkError, Row
from benchmarks.stack import Stack, open_stack, wait_for_port
from epp.local.process import Child, Children

RATELIMIT = "ratelimit"
REFERENCE = "grpc.aio"
ROUNDS = 3
BUDGET = 0.35
"""As for a routed request: a third of grpc.aio, the engine included."""
WARM_UP_S = 1.0
Run = Mapping[str, Any]
"""What a stretch told: `calls`, `cpu_us` (of the server, for one call), `p50_ms`, `p99_ms`."""


async def measure(folder: Path, seconds: float) -> list[Row]:
    """A stretch takes `seconds`."""
    async with open_stack(folder) as stack:
        servers = await _servers(stack)
        runs: dict[str, list[Run]] = {name: [] for name in servers}
        for child, port in servers.values():
            await _stretch(child, port, WARM_UP_S)
        for _ in range(ROUNDS):
            for name, (child, port) in servers.items():
                runs[name].append(await _stretch(child, port, seconds))
    return rows(runs[RATELIMIT], runs[REFERENCE])


def rows(ours: Sequence[Run], reference: Sequence[Run]) -> list[Row]:
    """CPU of a call. Times are details: they are mostly the client's."""

    def median(runs: Sequence[Run], key: str) -> float:
        return statistics.median(run[key] for run in runs)

    return [
        Row(
            RATELIMIT,
            f"a call, {IN_FLIGHT} at a time",
            median(ours, "cpu_us"),
            "us CPU",
            median(reference, "cpu_us"),
            REFERENCE,
            BUDGET,
            relative=True,
            details={key: (median(ours, key), median(reference, key)) for key in ("calls", "p50_ms", "p99_ms")},
        )
    ]


async def _servers(stack: Stack) -> dict[str, tuple[Child, int]]:
    config = stack.folder / "rules.yaml"
    config.write_text(RULES)
    ours, reference = stack.port(), stack.port()
    argv = {
        RATELIMIT: [
            *(sys.executable, "-m", "epp", "ratelimit", "--config", str(config), "--port", str(ours)),
            *("--metrics-port", "0", "--drain-timeout", "0s"),
        ],
        REFERENCE: [sys.executable, "-m", "benchmarks.ratelimit_peers", "serve", str(reference), str(config)],
    }
    started = {}
    for name, port in ((RATELIMIT, ours), (REFERENCE, reference)):
        child = await stack.children.start(name, argv[name])
        await wait_for_port(child, port)
        started[name] = (child, port)
    return started


async def _stretch(child: Child, port: int, seconds: float) -> Run:
    before_s = proc.cpu_s(child.pid)
    children = Children()
    try:
        argv = [sys.executable, "-m", "benchmarks.ratelimit_peers", "ask", str(port), str(seconds)]
        client = await children.start("client", argv)
        if await client.ended:
            raise BenchmarkError("; ".join((client.describe_end(), *list(client.tail)[-3:])))
    finally:
        await children.stop(1.0)
    told: dict[str, Any] = json.loads(client.tail[-1])
    return told | {"cpu_us": (proc.cpu_s(child.pid) - before_s) / told["calls"] * 1e6}
