# SPDX-License-Identifier: Apache-2.0
"""Row `start`: from the command to health's SERVING, with endpoints from a file.

First start: no bytecode is cached, not even the standard library's. Later starts: the median of some. The reference is
the echo server, which imports grpcio and little else, from the command to an open port.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import proc
from benchmarks.rows import Row
from benchmarks.stack import ECHO, OURS_TLS, PODS, Stack, Variant, open_stack, wait_for_port, wait_for_serving

ROUNDS = 3
BUDGET_S = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds until a picker was ready: on the clock, and its own CPU time (what a busy machine does not change)."""

    wall_s: float
    cpu_s: float


async def measure(folder: Path) -> list[Row]:
    """The first start and later ones."""
    async with open_stack(folder) as stack:
        pods = await stack.pods(PODS)
        with _bytecode_in(folder / "bytecode"):
            first, first_echo = await start(stack, OURS_TLS, pods), await start(stack, ECHO, pods)
            later: dict[Variant, list[Start]] = {OURS_TLS: [], ECHO: []}
            for _ in range(ROUNDS):
                for variant, starts in later.items():
                    starts.append(await start(stack, variant, pods))
    ours_s, echo_s = (statistics.median(start.wall_s for start in later[variant]) for variant in (OURS_TLS, ECHO))
    details = {"wall_s": [s.wall_s for s in later[OURS_TLS]], "cpu_s": [s.cpu_s for s in later[OURS_TLS]]}
    return [
        Row("start", "to SERVING, first", first.wall_s, "s", first_echo.wall_s, ECHO.name),
        Row("start", "to SERVING, later", ours_s, "s", echo_s, ECHO.name, BUDGET_S, details=details),
    ]


async def start(stack: Stack, variant: Variant, pods: list[str]) -> Start:
    """Start a picker, wait until it is ready, end it."""
    port, health_port = stack.port(), stack.port()
    argv = stack.echo_argv(pods, port) if variant.reference else stack.epp_argv(variant, pods, port, health_port)
    began_s = time.perf_counter()
    child = await stack.children.start(variant.name, argv)
    if variant.reference:
        await wait_for_port(child, port)
    else:
        await wait_for_serving(child, health_port)
    told = Start(time.perf_counter() - began_s, proc.cpu_s(child.pid))
    await child.stop(1.0)
    return told


@contextmanager
def _bytecode_in(folder: Path) -> Iterator[None]:
    """Children keep their bytecode there, and do keep it."""
    before = dict(os.environ)
    os.environ.update(PYTHONPYCACHEPREFIX=str(folder), PYTHONDONTWRITEBYTECODE="")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
