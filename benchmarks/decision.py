# SPDX-License-Identifier: Apache-2.0
"""Row `decision`: from candidates to a choice (filters, scorers, picker), with the built-in configuration: queue 2,
KV cache 2, prefix 3. Prefix matches are published before; finding them is in row `hash`.

The reference is the obvious way to do it: one Python object per endpoint, formulas in a loop.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.rows import BenchmarkError, Row
from epp.config.build import assemble
from epp.config.catalog import collect
from epp.config.load import load_text
from epp.contract.discovery import EndpointSpec
from epp.contract.prefix import PREFIX_MATCH, PrefixMatch
from epp.contract.signals import Sample
from epp.endpoints.pool import Pool
from epp.scheduling.scheduler import Scheduler
from epp.service.wiring import plan_of
from epp.testing import make_request

BUDGETS_US = {32: 60.0, 256: 80.0, 1000: 150.0}
TURNS = 10
CALLS = 200
WARM_UP = 200
REFERENCE = "a loop over objects"
WEIGHTS = {"queue-scorer": 2.0, "kv-cache-utilization-scorer": 2.0, "prefix-cache-scorer": 3.0}
PROMPT_BLOCKS = 36


def run(budgets_us: dict[int, float] | None = None, turns: int = TURNS) -> list[Row]:
    """One row per number of endpoints."""
    scheduler = _scheduler()
    return [_row(scheduler, endpoints, budget, turns) for endpoints, budget in (budgets_us or BUDGETS_US).items()]


def _scheduler() -> Scheduler:
    configuration = load_text("", collect())
    weights = {scorer.name: scorer.weight for scorer in configuration.profiles[0].scorers}
    if weights != WEIGHTS:
        raise BenchmarkError(f"the built-in configuration weighs {weights}, the budget is for {WEIGHTS}")
    return plan_of(assemble(configuration, time.monotonic, 1), time.monotonic).scheduler


def _row(scheduler: Scheduler, endpoints: int, budget_us: float, turns: int) -> Row:
    rng = random.Random(endpoints)
    pool, matched = _pool(endpoints, rng)
    request = make_request("a prompt")
    request.publish(PREFIX_MATCH, PrefixMatch(matched, PROMPT_BLOCKS, 64.0))
    waiting, kv = pool.columns.waiting, pool.columns.kv_utilization
    objects = [_Plain(e.id, float(waiting[e.row]), float(kv[e.row]), int(matched[e.row])) for e in pool]

    def decide() -> float:
        result = scheduler.schedule(request, pool.candidates()).result
        return float(result.total[result.picked[0]])

    def loop() -> float:
        return choose(objects)[1]

    if abs(decide() - loop()) > 1e-9:
        raise BenchmarkError(f"decision: the scheduler's best total is {decide()}, a plain loop says {loop()}")
    ours, reference = in_turns(decide, loop, turns)
    return Row(
        "decision",
        f"{endpoints:,} endpoints, p50",
        statistics.median(ours),
        "us",
        statistics.median(reference),
        REFERENCE,
        budget_us,
        details={"p99_us": round(sorted(ours)[len(ours) * 99 // 100], 1), "calls": len(ours)},
    )


def in_turns(one: Callable[[], Any], other: Callable[[], Any], turns: int) -> tuple[list[float], list[float]]:
    """Microseconds of each call, in `turns` alternating stretches."""
    timed(one, WARM_UP), timed(other, 5)
    first: list[float] = []
    second: list[float] = []
    for _ in range(turns):
        first += timed(one, CALLS)
        second += timed(other, CALLS // 10)
    return first, second


def timed(call: Callable[[], Any], count: int) -> list[float]:
    """Microseconds of each of `count` calls."""
    clock = time.perf_counter_ns
    times = []
    for _ in range(count):
        began = clock()
        call()
        times.append((clock() - began) / 1000)
    return times


@dataclass(slots=True)
class _Plain:
    name: str
    waiting: float
    kv_utilization: float
    matched_blocks: int


def choose(endpoints: Sequence[_Plain]) -> tuple[_Plain, float]:
    """The best endpoint and its total, one at a time."""
    most = max(e.waiting for e in endpoints)
    least = min(e.waiting for e in endpoints)
    totals = []
    for endpoint in endpoints:
        queue = (most - endpoint.waiting) / (most - least) if most > least else 1.0
        prefix = endpoint.matched_blocks / PROMPT_BLOCKS
        totals.append(2.0 * queue + 2.0 * (1.0 - endpoint.kv_utilization) + 3.0 * prefix)
    best = max(range(len(totals)), key=totals.__getitem__)
    return endpoints[best], totals[best]


def _pool(endpoints: int, rng: random.Random) -> tuple[Pool, Any]:
    pool = Pool(time.monotonic)
    pool.apply([EndpointSpec("default", f"pod-{n}", f"10.0.{n // 250}.{n % 250 + 1}", 8000) for n in range(endpoints)])
    for endpoint in pool:
        pool.record(endpoint, Sample(waiting=rng.randrange(20), running=rng.randrange(64), kv_utilization=rng.random()))
    matched = np.zeros(pool.columns.capacity, dtype=np.int64)
    for endpoint in pool:
        matched[endpoint.row] = rng.randrange(PROMPT_BLOCKS + 1)
    return pool, matched
