# SPDX-License-Identifier: Apache-2.0
"""Metrics pages as vLLM has them, and a process that serves them from one port for each endpoint.

The values in the pages change all the time, and with them the places where the families stand.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import cast

import uvloop

PAGE_BYTES = 80_000
VARIANTS = 16
_LABELS = 'engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"'
_USED = (
    b"vllm:num_requests_running",
    b"vllm:num_requests_waiting",
    b"vllm:kv_cache_usage_perc",
    b"vllm:cache_config_info",
)
_BUCKETS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)


def vllm_page(rng: random.Random, size: int = PAGE_BYTES, idle: bool = False) -> bytes:
    """A page with vLLM's families, in its order, filled up with histograms to about `size` bytes."""
    lines: list[str] = []

    def family(name: str, kind: str, *series: str) -> None:
        lines.extend((f"# HELP {name} What {name} counts.", f"# TYPE {name} {kind}", *series))

    def count() -> str:
        return f"{10 ** rng.uniform(0, 6):.0f}.0"

    for generation in range(3):
        name = "python_gc_objects_collected_total"
        family(name, "counter", f'{name}{{generation="{generation}"}} {count()}')
    family("process_resident_memory_bytes", "gauge", f"process_resident_memory_bytes {rng.uniform(1e9, 9e9):.0f}")
    family(
        "vllm:num_requests_running",
        "gauge",
        f"vllm:num_requests_running{{{_LABELS}}} {0 if idle else rng.randrange(1, 300)}.0",
    )
    family(
        "vllm:num_requests_waiting",
        "gauge",
        f"vllm:num_requests_waiting{{{_LABELS}}} {0 if idle else rng.randrange(50)}.0",
    )
    family("vllm:kv_cache_usage_perc", "gauge", f"vllm:kv_cache_usage_perc{{{_LABELS}}} {rng.random()}")
    for name in ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total", "vllm:prompt_tokens_total"):
        family(name, "counter", f"{name}{{{_LABELS}}} {count()}")
    info = 'block_size="16",cache_dtype="auto",enable_prefix_caching="True",gpu_memory_utilization="0.9"'
    family("vllm:cache_config_info", "gauge", f'vllm:cache_config_info{{engine="0",{info},num_gpu_blocks="27447"}} 1.0')
    written, histogram = sum(map(len, lines)), 0
    while written < size:
        name = f"vllm:request_phase_{histogram}_seconds"
        series = [f'{name}_bucket{{{_LABELS},le="{bound}"}} {count()}' for bound in _BUCKETS]
        before = len(lines)
        family(name, "histogram", *series, f"{name}_count{{{_LABELS}}} {count()}")
        written += sum(len(line) + 1 for line in lines[before:])
        histogram += 1
    return ("\n".join(lines) + "\n").encode()


class _PageServer(asyncio.Protocol):
    """Answers every request with the next page, or, asked for some families alone, with the next of those."""

    def __init__(self, whole: list[bytes], filtered: list[bytes], first: int) -> None:
        self._whole = whole
        self._filtered = filtered
        self._next = first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        answers = self._filtered if b"?name" in data[:64] else self._whole
        self._next = (self._next + 1) % len(answers)
        self._transport.write(answers[self._next])


def _answer(page: bytes) -> bytes:
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nserver: uvicorn\r\ncontent-length: {}\r\n\r\n"
    return head.format(len(page)).encode() + page


def _only_used(page: bytes) -> bytes:
    return b"".join(line for line in page.splitlines(True) if any(name in line for name in _USED))


def _serve(endpoints: int, ports: Connection, idle: bool, filters: bool) -> None:
    """The serving process: one listener per endpoint; their ports go through `ports`. Ends when that is closed."""
    raise_file_limit()
    rng = random.Random(7)
    pages = [vllm_page(rng, idle=idle) for _ in range(VARIANTS)]
    whole = [_answer(page) for page in pages]
    filtered = [_answer(_only_used(page)) for page in pages] if filters else whole

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(partial(_PageServer, whole, filtered, first % VARIANTS), "127.0.0.1", 0)
            for first in range(endpoints)
        ]
        ports.send([server.sockets[0].getsockname()[1] for server in servers])
        gone = asyncio.Event()
        loop.add_reader(ports.fileno(), gone.set)
        await gone.wait()

    uvloop.run(main())


@contextmanager
def served(endpoints: int, *, idle: bool = False, filters: bool = False) -> Iterator[list[int]]:
    """The ports of so many endpoints, served by another process. `idle`: they have no work; `filters`: their pages
    can be filtered."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(endpoints, theirs, idle, filters), daemon=True)
    server.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()
        server.join(5)
        if server.is_alive():
            server.kill()


def raise_file_limit() -> None:
    """As many open files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
