# SPDX-License-Identifier: Apache-2.0
"""What happens to whom and when, decided beforehand by a seed: the same seed gives the same run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

HARMLESS = ("metrics_slow", "metrics_error", "metrics_garbage", "metrics_truncated", "metrics_stale", "metrics_lie")
"""Faults of the metrics page: requests must not be lost by them."""
HARMFUL = ("kill", "freeze", "error", "hang", "stall", "reset", "refuse", "slow")

LIES = {"vllm:num_requests_running": 0, "vllm:num_requests_waiting": 0, "vllm:kv_cache_usage_perc": 0}
MOST_DISTURBED = 2
"""Pods under harmful disturbance at the same time."""


@dataclass(frozen=True)
class Event:
    """At `at_s`, `kind` is done to `target` (a pod's number, or a gateway's name) for `for_s`."""

    at_s: float
    kind: str
    target: int | str
    for_s: float
    parameters: dict[str, Any] = field(default_factory=dict, hash=False)


def plan(seed: int, seconds: float, pods: int, gateways: tuple[str, ...], stop_s: float) -> list[Event]:
    """All events of a run, in order. No gateway's picker is restarted in the second half, so that its memory can be
    followed there; `stop_s` is how long it is stopped by SIGSTOP."""
    rng = random.Random(seed)
    events = [*_pod_events(rng, seconds, pods), *_picker_events(rng, seconds, gateways, stop_s)]
    return sorted(events, key=lambda event: event.at_s)


def _pod_events(rng: random.Random, seconds: float, pods: int) -> Iterator[Event]:
    now_s = 1.0
    free_at_s = [0.0] * pods
    deck: list[str] = []
    harmful: list[float] = []
    while now_s < seconds - 4.0:
        if not deck:
            deck = [*HARMFUL, *HARMLESS]
            rng.shuffle(deck)
        free = [pod for pod in range(pods) if free_at_s[pod] <= now_s]
        harmful = [until_s for until_s in harmful if until_s > now_s]
        playable = [kind for kind in deck if kind in HARMLESS or len(harmful) < MOST_DISTURBED]
        if free and playable:
            kind, pod, for_s = playable[0], rng.choice(free), rng.uniform(1.0, 3.0)
            deck.remove(kind)
            yield Event(now_s, kind, pod, for_s, _parameters(kind, rng))
            free_at_s[pod] = now_s + for_s + 1.0
            if kind in HARMFUL:
                harmful.append(free_at_s[pod])
        now_s += rng.uniform(0.5, 1.2)


def _parameters(kind: str, rng: random.Random) -> dict[str, Any]:
    choices: dict[str, dict[str, Any]] = {
        "error": {"rate": rng.uniform(0.2, 1.0), "status": rng.choice((500, 503, 429))},
        "hang": {"rate": 0.3, "everything": rng.random() < 0.5},
        "stall": {"rate": 0.5, "after_chunks": rng.randint(0, 5)},
        "reset": {"rate": 0.5, "after_chunks": rng.randint(0, 5)},
        "refuse": {"drop": rng.random() < 0.7},
        "slow": {"factor": rng.uniform(5, 30)},
        "metrics_slow": {"delay_s": rng.uniform(0.1, 3.0)},
        "metrics_truncated": {"keep": rng.uniform(0.0, 0.99)},
        "metrics_lie": {"values": dict(LIES)},
    }
    return choices.get(kind, {})


def _picker_events(rng: random.Random, seconds: float, gateways: tuple[str, ...], stop_s: float) -> Iterator[Event]:
    """Restarts in the first half, one about every 20 s and at least one each; SIGSTOP in both halves."""
    restarts = max(len(gateways), int(seconds / 2 / 20))
    for number in range(restarts):
        at_s = seconds * 0.45 * (number + 0.5) / restarts
        kind = ("terminate", "crash")[(number + number // len(gateways)) % 2]
        yield Event(at_s + rng.uniform(0, 1), kind, gateways[number % len(gateways)], 0.0)
    stops = max(1, int(seconds / 2 / 30))
    for number in range(stops):
        at_s = seconds * (0.55 + 0.35 * (number + 0.5) / stops)
        yield Event(at_s, "stop", gateways[number % len(gateways)], stop_s)
