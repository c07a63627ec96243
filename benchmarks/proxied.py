# SPDX-License-Identifier: Apache-2.0
"""Rows `request` and `chunk`: the picker's CPU for a routed request, and for one piece of a streamed answer, behind
real Envoy in FULL_DUPLEX_STREAMED mode with the response followed to its end.

request  CPU / requests; JSON answers, clients that ask again at once.
chunk    (CPU per request of a streamed answer - CPU per request of a JSON answer) / (messages more per request).

All pickers stand side by side, each with its own Envoy, and take turns, so that the machine's moods hit all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.legs import Leg, Load, run_leg
from benchmarks.rows import Row
from benchmarks.stack import ECHO, OURS_PLAIN, OURS_TLS, PODS, Served, open_stack

REQUEST_ROUNDS = 5
CHUNK_ROUNDS = 3
WARM_UP_S = 1.0
CONNECTIONS = 32
CHUNKS = 100
PAUSE_MS = 10
REQUEST_BUDGET = 0.30
CHUNK_BUDGET = {OURS_TLS: 0.30, OURS_PLAIN: 0.25}
REQUEST, CHUNK = "request", "chunk"


async def measure(folder: Path, wanted: Sequence[str], seconds: float) -> list[Row]:
    """The wanted rows; a stretch takes `seconds`."""
    rows: list[Row] = []
    async with open_stack(folder) as stack:
        pods = await stack.pods(PODS)
        served = [await stack.path(variant, pods) for variant in (ECHO, OURS_TLS, OURS_PLAIN)]
        for one in served:
            await run_leg(one, Load(WARM_UP_S, CONNECTIONS))
        if REQUEST in wanted:
            rows += request_rows(await _in_turns(served, [Load(seconds, CONNECTIONS)], REQUEST_ROUNDS))
        if CHUNK in wanted:
            loads = [Load(seconds / 3, CONNECTIONS), Load(seconds, CONNECTIONS, CHUNKS, PAUSE_MS)]
            rows += chunk_rows(await _in_turns(served, loads, CHUNK_ROUNDS))
    return rows


Turns = dict[Served, list[list[Leg]]]
"""For each picker one list per round, one leg per load in it."""


async def _in_turns(served: Sequence[Served], loads: Sequence[Load], rounds: int) -> Turns:
    turns: Turns = {one: [] for one in served}
    for _ in range(rounds):
        for one in served:
            turns[one].append([await run_leg(one, load) for load in loads])
    return turns


def request_rows(turns: Turns) -> list[Row]:
    """From the legs of single loads."""
    costs = {one: [legs[0].cpu_us_per_stream for legs in rounds] for one, rounds in turns.items()}
    return _rows(REQUEST, costs, turns, {OURS_TLS: REQUEST_BUDGET, OURS_PLAIN: REQUEST_BUDGET})


def chunk_rows(turns: Turns) -> list[Row]:
    """From the legs of pairs of loads, the JSON answer first."""
    costs = {one: [cpu_us_per_chunk(*legs) for legs in rounds] for one, rounds in turns.items()}
    return _rows(CHUNK, costs, turns, CHUNK_BUDGET)


def cpu_us_per_chunk(plain: Leg, streamed: Leg) -> float:
    """CPU microseconds of one message more per request."""
    more_us = streamed.cpu_us_per_stream - plain.cpu_us_per_stream
    return more_us / (streamed.messages_per_stream - plain.messages_per_stream)


def _rows(name: str, costs: dict[Served, list[float]], turns: Turns, budgets: dict[Any, float]) -> list[Row]:
    medians = {one.variant: statistics.median(values) for one, values in costs.items()}
    details = {one.variant.name: _details(costs[one], turns[one]) for one in costs}
    return [
        Row(
            name,
            f"{variant.name}, {PODS} endpoints",
            value,
            "us",
            medians[ECHO],
            ECHO.name,
            budgets[variant],
            relative=True,
            details={variant.name: details[variant.name], ECHO.name: details[ECHO.name]},
        )
        for variant, value in medians.items()
        if not variant.reference
    ]


def _details(costs: Sequence[float], rounds: Sequence[Sequence[Leg]]) -> dict[str, Any]:
    legs = [legs[-1] for legs in rounds]
    return {
        "cpu_us": [round(cost, 1) for cost in costs],
        "requests": sum(leg.streams for leg in legs),
        "messages_per_request": round(statistics.mean(leg.messages_per_stream for leg in legs), 2),
        "requests_per_s": round(statistics.median(leg.clients["requests"] / leg.clients["seconds"] for leg in legs)),
        "cores": round(statistics.median(leg.cpu_s / leg.wall_s for leg in legs), 2),
        "generator": legs[0].clients["generator"],
        **{name: round(_median_of(legs, name), 2) for name in ("p50_ms", "p99_ms") if name in legs[0].clients},
    }


def _median_of(legs: Sequence[Leg], name: str) -> float:
    return statistics.median(float(leg.clients[name]) for leg in legs if name in leg.clients)
