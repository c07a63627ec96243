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
from pathlib import Path

from benchmarks.rows import Row
from benchmarks.stack import ECHO, OURS_TLS, PODS, Stack, Variant, open_stack, wait_for_port, wait_for_serving

ROUNDS = 3
BUDGET_S = 1.0


async def measure(folder: Path) -> list[Row]:
    """The first start and later ones."""
    async with open_stack(folder) as stack:
        pods = await stack.pods(PODS)
        with _bytecode_in(folder / "bytecode"):
            first_s = await start_s(stack, OURS_TLS, pods)
            first_echo_s = await start_s(stack, ECHO, pods)
            later: dict[Variant, list[float]] = {OURS_TLS: [], ECHO: []}
            for _ in range(ROUNDS):
                for variant, times_s in later.items():
                    times_s.append(await start_s(stack, variant, pods))
    ours_s, echo_s = (statistics.median(later[variant]) for variant in (OURS_TLS, ECHO))
    return [
        Row("start", "to SERVING, first", first_s, "s", first_echo_s, ECHO.name),
        Row("start", "to SERVING, later", ours_s, "s", echo_s, ECHO.name, BUDGET_S, details={"all_s": later[OURS_TLS]}),
    ]


async def start_s(stack: Stack, variant: Variant, pods: list[str]) -> float:
    """Seconds until a picker is ready; it is ended again."""
    port, health_port = stack.port(), stack.port()
    argv = stack.echo_argv(pods, port) if variant.reference else stack.epp_argv(variant, pods, port, health_port)
    began_s = time.perf_counter()
    child = await stack.children.start(variant.name, argv)
    if variant.reference:
        await wait_for_port(child, port)
    else:
        await wait_for_serving(child, health_port)
    seconds = time.perf_counter() - began_s
    await child.stop(1.0)
    return seconds


@contextmanager
def _bytecode_in(folder: Path) -> Iterator[None]:
    """Children keep their bytecode there."""
    name = "PYTHONPYCACHEPREFIX"
    before = os.environ.get(name)
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
