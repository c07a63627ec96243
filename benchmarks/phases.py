# SPDX-License-Identifier: Apache-2.0
"""Row `phase`: the picker's CPU for a request, by how far responses are followed (--response-phase), for short and for
long answers; behind real Envoy, plaintext.

The reference is `full` with an answer of the same length, the phase in which everything passes through the picker.
What the picker uses while nothing happens is measured before each stretch and taken off: a stretch of long answers has
few requests.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import proc
from benchmarks.legs import Leg, Load, run_leg
from benchmarks.rows import Row
from benchmarks.stack import PODS, Served, Variant, open_stack

PHASE = "phase"
ROUNDS = 3
IDLE_S = 1.0
WARM_UP_S = 1.5
BUFFERED = (("request_body_mode", "BUFFERED"), ("response_body_mode", "STREAMED"))
LOG = (("access_log", True),)
FULL = Variant("full", tls=False)
VARIANTS = (
    FULL,
    Variant("full, access log sent too", tls=False, envoy=LOG),
    # Full-duplex streams cannot end with the response's headers.
    Variant("headers + log, buffered mode", tls=False, flags=("--response-phase=headers",), envoy=(*LOG, *BUFFERED)),
    Variant("release + log", tls=False, flags=("--response-phase=release",), envoy=LOG),
    Variant("release + estimate", tls=False, flags=("--response-phase=release",)),
)


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one length."""

    chunks: int
    connections: int
    pause_ms: int

    def load(self, seconds: float) -> Load:
        """Clients that ask for them again and again."""
        return Load(seconds, self.connections, self.chunks, self.pause_ms)


SHORT = Answers(10, 32, 5)
LONG = Answers(1000, 32, 5)
Costs = dict[Variant, dict[Answers, list[float]]]


async def measure(folder: Path, seconds: float) -> list[Row]:
    """A stretch takes `seconds`, with long answers as long as one of them at least."""
    costs: Costs = {variant: {SHORT: [], LONG: []} for variant in VARIANTS}
    async with open_stack(folder) as stack:
        pods = await stack.pods(PODS)
        served = [await stack.path(variant, pods) for variant in VARIANTS]
        for one in served:
            await run_leg(one, SHORT.load(WARM_UP_S))
        for _ in range(ROUNDS):
            for answers in (SHORT, LONG):
                for one in served:
                    length_s = seconds if answers is SHORT else seconds / 3
                    costs[one.variant][answers].append(await _cost_us(one, answers.load(length_s)))
    return rows(costs)


async def _cost_us(one: Served, load: Load) -> float:
    pid = one.picker.pid
    cpu_s, started_s = proc.threads_cpu_s(pid), time.perf_counter()
    await asyncio.sleep(IDLE_S)
    idle = (proc.threads_cpu_s(pid) - cpu_s) / (time.perf_counter() - started_s)
    return without_idle(await run_leg(one, load, proc.threads_cpu_s), idle).cpu_us_per_stream


def without_idle(leg: Leg, idle_share: float) -> Leg:
    """The stretch without what `idle_share` of a core would have cost anyway."""
    return replace(leg, cpu_s=max(0.0, leg.cpu_s - idle_share * leg.wall_s))


def rows(costs: Costs) -> list[Row]:
    """One per variant and length of answer; each next to `full`."""

    def median(variant: Variant, answers: Answers) -> float:
        return statistics.median(costs[variant][answers])

    return [
        Row(
            PHASE,
            f"{variant.name}, {answers.chunks:,} chunks",
            median(variant, answers),
            "us",
            None if variant is FULL else median(FULL, answers),
            "" if variant is FULL else FULL.name,
            details={"cpu_us": _rounded(costs[variant][answers])},
        )
        for answers in (SHORT, LONG)
        for variant in VARIANTS
    ]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 1) for value in values]
