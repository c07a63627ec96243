# SPDX-License-Identifier: Apache-2.0
"""Fuzzing by seeded random mutation of the seeds, without coverage: works on every Python, and is what CI can repeat.

An input that ran without a fault joins the pool that is mutated further, a few of them at a time, so that mutations
add up. The first input for each place of failure is kept; it is made shorter before it is written.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.harness import Run, Target, apply, random_edits

_POOL = 400
_SHRINK_S = 5.0


@dataclass(slots=True)
class Outcome:
    """What a run of one target came to. `failures`: the input and the traceback, by place of failure."""

    executions: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    failures: dict[str, tuple[bytes, str]] = field(default_factory=dict)


def fuzz(target: Target, seconds: float, seed: int, clock: Callable[[], float] = time.monotonic) -> Outcome:
    """Run `target` on mutations for `seconds`."""
    outcome = Outcome()
    run, rng = target.make(), random.Random(f"{target.name}/{seed}")
    seeds = list(target.seeds())
    pool = list(seeds)
    began_s = clock()
    for data in seeds:
        _try(run, data, outcome, clock)
    while clock() - began_s < seconds:
        data = apply(rng.choice(pool), random_edits(rng, target.words))
        if not _try(run, data, outcome, clock) or rng.random() > 0.02:
            continue
        if len(pool) < len(seeds) + _POOL:
            pool.append(data)
        else:
            pool[rng.randrange(len(seeds), len(pool))] = data
    for place, (data, _) in list(outcome.failures.items()):
        outcome.failures[place] = _shortened(run, place, data, clock)
    outcome.seconds = clock() - began_s
    return outcome


def _try(run: Run, data: bytes, outcome: Outcome, clock: Callable[[], float]) -> bool:
    began_s = clock()
    failure = _failure(run, data)
    outcome.executions += 1
    outcome.slowest_s = max(outcome.slowest_s, clock() - began_s)
    if failure is None:
        return True
    outcome.failures.setdefault(failure[0], (data, failure[1]))
    return False


def _failure(run: Run, data: bytes) -> tuple[str, str] | None:
    """The place and the traceback of what the target raised."""
    try:
        run(data)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {frame.filename}:{frame.lineno}", traceback.format_exc()
    return None


def _shortened(run: Run, place: str, data: bytes, clock: Callable[[], float]) -> tuple[bytes, str]:
    """A shorter input that fails at the same place, and its traceback."""
    deadline_s = clock() + _SHRINK_S
    found = _failure(run, data)
    told = found[1] if found else "it does not fail on its own: it needs what ran before it\n"
    size = len(data) // 2
    while size and found and clock() < deadline_s:
        at = 0
        while at < len(data) and clock() < deadline_s:
            shorter = data[:at] + data[at + size :]
            failure = _failure(run, shorter)
            if failure is not None and failure[0] == place:
                data, told = shorter, failure[1]
            else:
                at += size
        size //= 2
    return data, told
