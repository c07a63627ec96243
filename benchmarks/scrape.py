# SPDX-License-Identifier: Apache-2.0
"""What it costs to scrape endpoints with pages of 80 KB, and how long that holds the event loop at a time.

    python benchmarks/scrape.py [--seconds S] [--loop uvloop|asyncio] [--case NAME ...]

    whole     100 endpoints every 50 ms, whole pages
    filtered  the same, where the endpoints can filter their pages
    idle      100 endpoints without work, once nothing has been routed for some time; whole pages
    large     1,000 endpoints at 50 ms, far more than a loop can read: the share of the loop keeps it free

The pages are served by a process of its own, so that the CPU time of this one is the scraper's alone. The reference,
in the same run, is `prometheus_client`'s parser on the same page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.pages import VARIANTS, raise_file_limit, served, vllm_page
from epp.contract.endpoints import Endpoint
from epp.contract.plugins import SCRAPED
from epp.contract.signals import Sample
from epp.signals.engine.names import VLLM
from epp.signals.engine.recognise import only
from epp.signals.engine.scan import PageScanner
from epp.signals.poll.pace import QUIET_S
from epp.signals.poll.scraper import Scraper
from epp.signals.settings import ScrapeSettings

IDLE_INTERVAL_S = 1.0
_TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Case:
    """One situation. `budget_cores` None informs; `holds` says whether the loop's holds are watched, which costs."""

    endpoints: int
    budget_cores: float | None
    idle: bool = False
    filters: bool = False
    holds: bool = False


CASES = {
    "whole": Case(100, 0.6),
    "filtered": Case(100, 0.6, filters=True),
    "idle": Case(100, 0.05, idle=True),
    "large": Case(1000, None, holds=True),
}


async def _scrape(case: Case, ports: list[int], seconds: float) -> dict[str, float]:
    samples: list[Sample] = []

    def record(endpoint: Endpoint, sample: Sample) -> bool:
        samples.append(sample)
        return True

    settings = ScrapeSettings(idle_interval_s=IDLE_INTERVAL_S if case.idle else 0.0)
    scraper = Scraper(record, SCRAPED, settings, random.Random(1))
    for number, port in enumerate(ports):
        scraper.on_endpoint_added(Endpoint("default", f"pod-{number}", "127.0.0.1", port, generation=number + 1))
    scraper.start()
    await asyncio.sleep(2.0)
    if case.idle:
        # Nobody tells of the slow pace; it takes up to twice the quiet time.
        await asyncio.sleep(2 * QUIET_S + IDLE_INTERVAL_S)
    samples.clear()
    saved_bytes = scraper.counts.saved_bytes
    before, started = os.times(), time.perf_counter()
    holds_s = [math.nan]
    if case.holds:
        holds_s = await _longest_holds(seconds)
    else:
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
        "saved_mb_per_s": (scraper.counts.saved_bytes - saved_bytes) / elapsed / 1e6,
        "interval_ms": scraper.interval_s * 1e3,
        "hold_longest_ms": holds_s[-1] * 1e3,
        "hold_p99_ms": holds_s[len(holds_s) * 99 // 100] * 1e3,
        "failures": float(sum(scraper.counts.failures.values())),
    }


async def _longest_holds(seconds: float) -> list[float]:
    """How late a timer of 1 ms was, all of its calls in `seconds`, sorted."""
    loop = asyncio.get_running_loop()
    late_s: list[float] = []
    due_s = time.perf_counter() + _TICK_S
    done = asyncio.Event()
    until_s = due_s + seconds

    def tick() -> None:
        nonlocal due_s
        now_s = time.perf_counter()
        late_s.append(max(0.0, now_s - due_s))
        if now_s >= until_s:
            done.set()
            return
        due_s = now_s + _TICK_S
        loop.call_later(_TICK_S, tick)

    loop.call_later(_TICK_S, tick)
    await done.wait()
    return sorted(late_s)


def _best_us(action: Callable[[], object], repeat: int) -> float:
    """Median CPU microseconds of `repeat` calls."""
    times = []
    for _ in range(repeat):
        started = time.process_time_ns()
        action()
        times.append((time.process_time_ns() - started) / 1000)
    return statistics.median(times)


def run(seconds: float = 8.0, loop: str = "uvloop", cases: Sequence[str] = tuple(CASES)) -> dict[str, Any]:
    """Measure the cases and one page."""
    raise_file_limit()
    runner = uvloop.run if loop == "uvloop" else asyncio.run
    told: dict[str, dict[str, Any]] = {}
    for name in cases:
        case = CASES[name]
        with served(case.endpoints, idle=case.idle, filters=case.filters) as ports:
            measured = runner(_scrape(case, ports, seconds))
        told[name] = {
            "endpoints": case.endpoints,
            "budget_cores": case.budget_cores,
            **{key: round(value, 3) for key, value in measured.items() if not math.isnan(value)},
            "ok": not measured["failures"] and (case.budget_cores is None or measured["cores"] <= case.budget_cores),
        }
    rng = random.Random(7)
    pages = [bytearray(vllm_page(rng)) for _ in range(VARIANTS)]
    scanner = PageScanner(only(VLLM), SCRAPED)
    text = pages[0].decode()
    scan_us = _best_us(lambda: [scanner.scan(page) for page in pages], 50) / VARIANTS
    first_us = _best_us(lambda: [PageScanner(only(VLLM), SCRAPED).scan(page) for page in pages], 20) / VARIANTS
    parse_us = _best_us(lambda: list(text_string_to_metric_families(text)), 5)
    return {
        "name": "scrape",
        "page_bytes": len(pages[0]),
        "loop": loop,
        "cases": told,
        "scan_us": round(scan_us, 1),
        "scan_first_page_us": round(first_us, 1),
        "prometheus_client_us": round(parse_us, 1),
        "scan_ratio": round(scan_us / parse_us, 5),
        "ok": all(case["ok"] for case in told.values()),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--case", choices=tuple(CASES), action="append", dest="cases")
    options = parser.parse_args()
    print(json.dumps(run(options.seconds, options.loop, options.cases or tuple(CASES)), indent=2))


if __name__ == "__main__":
    main()
