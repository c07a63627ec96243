# SPDX-License-Identifier: Apache-2.0
"""The watch on the event loop, on clocks of ours."""

from __future__ import annotations

import asyncio
import time

import pytest

from epp.observe.metrics.loopwatch import BUSY, HELD, TICK_S, LoopWatch


class Clocks:
    now_s = busy_s = waited_s = 0.0

    def watch(self) -> LoopWatch:
        watch = LoopWatch(lambda: self.now_s, lambda: self.busy_s, lambda: self.waited_s)
        watch.tick()
        read(watch)
        return watch


def read(watch: LoopWatch) -> tuple[float, float]:
    found = dict(watch.families())
    [(_, busy)], [(_, held)] = found[BUSY], found[HELD]
    assert isinstance(busy, float)
    assert isinstance(held, float)
    return busy, held


@pytest.mark.parametrize(
    ("elapsed_s", "busy_s", "waited_s", "told"),
    [
        (TICK_S, 0.001, 0.0, (0.001, 0.0)),
        # A callback that computes for 30 ms.
        (0.035, 0.030, 0.0, (0.030, 0.030)),
        # Another process has the processor.
        (0.105, 0.001, 0.019, (0.001, 0.081)),
        # Another process had the processor for long: what piled up is worked off.
        (0.105, 0.040, 0.055, (0.0, 0.045)),
        # A blocking call, another thread that holds the interpreter, or SIGSTOP.
        (0.105, 0.001, 0.0, (0.001, 0.100)),
    ],
)
def test_busy_and_held(elapsed_s: float, busy_s: float, waited_s: float, told: tuple[float, float]) -> None:
    clocks = Clocks()
    watch = clocks.watch()
    clocks.now_s, clocks.busy_s, clocks.waited_s = elapsed_s, busy_s, waited_s
    watch.tick()
    assert read(watch) == pytest.approx(told)


def test_the_turn_after_a_long_wait_is_not_counted_as_busy() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    told = []
    for waited_s in (0.05, 0.0, 0.0):
        clocks.now_s += TICK_S + waited_s
        clocks.waited_s += waited_s
        clocks.busy_s += 0.03
        watch.tick()
        told.append(read(watch)[0])
    assert told == pytest.approx([0.0, 0.0, 0.03])


def test_the_longest_counts_until_it_is_read() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    for elapsed_s in (0.105, 0.015):
        clocks.now_s += elapsed_s
        watch.tick()
    assert read(watch)[1] == pytest.approx(0.1)
    assert read(watch) == (0.0, 0.0)


async def test_it_sees_a_loop_that_is_kept_busy_and_stops() -> None:
    watch = LoopWatch(waited=float)
    watch.start()
    await asyncio.sleep(3 * TICK_S)
    until_s = time.thread_time() + 0.03
    while time.thread_time() < until_s:
        pass
    await asyncio.sleep(3 * TICK_S)
    busy_s, held_s = read(watch)
    assert busy_s >= 0.03
    assert held_s >= 0.0
    watch.stop()
    await asyncio.sleep(3 * TICK_S)
    assert read(watch) == (0.0, 0.0)
