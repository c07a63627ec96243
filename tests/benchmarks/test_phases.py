# SPDX-License-Identifier: Apache-2.0
"""The row `phase` without a stack: what is taken off, and what is put next to what."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks import proc
from benchmarks.legs import Leg
from benchmarks.phases import FULL, LONG, SHORT, VARIANTS, rows, without_idle


def test_what_the_picker_does_anyway_is_taken_off() -> None:
    leg = Leg(streams=10, messages=30, cpu_s=0.5, wall_s=4.0, clients={})
    assert without_idle(leg, 0.1).cpu_us_per_stream == pytest.approx(10_000)
    assert without_idle(leg, 0.5).cpu_us_per_stream == 0.0


def test_each_variant_stands_next_to_full_with_answers_of_its_length() -> None:
    costs = {variant: {SHORT: [50.0, 10.0, 20.0], LONG: [100.0]} for variant in VARIANTS}
    costs[FULL] = {SHORT: [40.0], LONG: [1000.0]}
    made = rows(costs)
    assert len(made) == 2 * len(VARIANTS)
    first, *others = made[: len(VARIANTS)]
    assert (first.case, first.value, first.reference) == ("full, 10 chunks", 40.0, None)
    assert {(row.value, row.reference, row.ratio) for row in others} == {(20.0, 40.0, 0.5)}
    assert {row.ratio for row in made[len(VARIANTS) + 1 :]} == {0.1}


def test_the_exact_cpu_time_grows_with_work() -> None:
    before_s, worked_until_s = proc.threads_cpu_s(os.getpid()), time.thread_time() + 0.1
    # Linux brings the figure of a thread that is running up to date at its clock ticks, which come every 1 to 10 ms.
    while time.thread_time() < worked_until_s:
        pass
    assert proc.threads_cpu_s(os.getpid()) - before_s > 0.05
    with pytest.raises(ProcessLookupError):
        proc.threads_cpu_s(2**22 + 1)
