# SPDX-License-Identifier: Apache-2.0
"""What it costs to scrape 100 endpoints every 50 ms, with pages of 80 KB.

    python benchmarks/scrape.py [--endpoints N] [--seconds S] [--loop uvloop|asyncio]

The pages are served by a process of its own, so that the CPU time of this one is the scraper's alone. The values in
the pages change all the time, and with them the places where the families stand. The reference, in the same run, is
`prometheus_client`'s parser on the same page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, cast

import uvloop
from prometheus_client.parser import text_string_to_metric_families

from epp.contract.endpoints import Endpoint
from epp.contract.plugins import SCRAPED
from epp.contract.signals import Sample
from epp.signals.recognise import Engines
from epp.signals.scan import PageScanner
from epp.signals.scraper import Scraper
from epp.signals.settings import ScrapeSettings

BUDGET_CORES = 0.6
PAGE_BYTES = 80_000
VARIANTS = 16
_LABELS = 'engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"'
_BUCKETS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0)


def vllm_page(rng: random.Random, size: int = PAGE_BYTES) -> bytes:
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
    family("vllm:num_requests_running", "gauge", f"vllm:num_requests_running{{{_LABELS}}} {rng.randrange(300)}.0")
    family("vllm:num_requests_waiting", "gauge", f"vllm:num_requests_waiting{{{_LABELS}}} {rng.randrange(50)}.0")
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
    """Answers every request with the next page, without reading it."""

    def __init__(self, answers: list[bytes], first: int) -> None:
        self._answers = answers
        self._next = first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._next = (self._next + 1) % len(self._answers)
        self._transport.write(self._answers[self._next])


def _serve(endpoints: int, ports: Connection) -> None:
    """The serving process: one listener per endpoint; their ports go through `ports`. Ends when that is closed."""
    rng = random.Random(7)
    pages = [vllm_page(rng) for _ in range(VARIANTS)]
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\nserver: uvicorn\r\ncontent-length: {}\r\n\r\n"
    answers = [head.format(len(page)).encode() + page for page in pages]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        servers = [
            await loop.create_server(lambda first=first: _PageServer(answers, first % VARIANTS), "127.0.0.1", 0)
            for first in range(endpoints)
        ]
        ports.send([server.sockets[0].getsockname()[1] for server in servers])
        gone = asyncio.Event()
        loop.add_reader(ports.fileno(), gone.set)
        await gone.wait()

    uvloop.run(main())


async def _scrape(ports: list[int], seconds: float, warm_up_s: float = 1.0) -> dict[str, float]:
    samples: list[Sample] = []

    def record(endpoint: Endpoint, sample: Sample) -> bool:
        samples.append(sample)
        return True

    scraper = Scraper(record, SCRAPED, ScrapeSettings(), random.Random(1))
    for number, port in enumerate(ports):
        scraper.on_endpoint_added(Endpoint("default", f"pod-{number}", "127.0.0.1", port, generation=number + 1))
    scraper.start()
    await asyncio.sleep(warm_up_s)
    samples.clear()
    before, started = os.times(), time.perf_counter()
    await asyncio.sleep(seconds)
    after, elapsed = os.times(), time.perf_counter() - started
    scraper.stop()
    await asyncio.sleep(0.1)
    if any(None in (s.waiting, s.running, s.kv_utilization, s.block_size_tokens, s.num_blocks) for s in samples):
        raise RuntimeError("a page was read wrongly")
    cpu_s = after.user + after.system - before.user - before.system
    return {
        "cores": cpu_s / elapsed,
        "cores_user": (after.user - before.user) / elapsed,
        "polls_per_s": len(samples) / elapsed,
        "cpu_us_per_poll": cpu_s / max(1, len(samples)) * 1e6,
        "failures": float(sum(scraper.counts.failures.values())),
    }


def _best_us(action: Callable[[], object], repeat: int) -> float:
    """Median CPU microseconds of `repeat` calls."""
    times = []
    for _ in range(repeat):
        started = time.process_time_ns()
        action()
        times.append((time.process_time_ns() - started) / 1000)
    return statistics.median(times)


def run(endpoints: int = 100, seconds: float = 8.0, loop: str = "uvloop") -> dict[str, Any]:
    """Measure. `ok` says whether the budget was met with every poll made."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=_serve, args=(endpoints, theirs), daemon=True)
    server.start()
    theirs.close()
    try:
        ports = ours.recv()
        runner = uvloop.run if loop == "uvloop" else asyncio.run
        result = runner(_scrape(ports, seconds))
    finally:
        ours.close()
        server.join(5)
        if server.is_alive():
            server.kill()
    rng = random.Random(7)
    pages = [bytearray(vllm_page(rng)) for _ in range(VARIANTS)]
    scanner = PageScanner(Engines(), SCRAPED)
    text = pages[0].decode()
    scan_us = _best_us(lambda: [scanner.scan(page) for page in pages], 50) / VARIANTS
    first_us = _best_us(lambda: [PageScanner(Engines(), SCRAPED).scan(page) for page in pages], 20) / VARIANTS
    parse_us = _best_us(lambda: list(text_string_to_metric_families(text)), 5)
    expected = endpoints / ScrapeSettings().interval_s
    return {
        "name": "scrape",
        "endpoints": endpoints,
        "page_bytes": len(pages[0]),
        "loop": loop,
        "budget_cores": BUDGET_CORES,
        **{key: round(value, 3) for key, value in result.items()},
        "scan_us": round(scan_us, 1),
        "scan_first_page_us": round(first_us, 1),
        "prometheus_client_us": round(parse_us, 1),
        "scan_ratio": round(scan_us / parse_us, 5),
        "ok": result["cores"] <= BUDGET_CORES and result["polls_per_s"] >= 0.9 * expected and not result["failures"],
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--endpoints", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    options = parser.parse_args()
    print(json.dumps(run(options.endpoints, options.seconds, options.loop), indent=2))


if __name__ == "__main__":
    main()
