# SPDX-License-Identifier: Apache-2.0
"""Parts that end are started again, later each time, told once; after stop nothing runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from epp.local.chain.supervise import Part, Supervisor
from epp.local.process import Child, OnLine
from epp.local.stack import PartEnded

FOREVER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")
FAILS = (sys.executable, "-c", "print('no such thing', flush=True); raise SystemExit(3)")


async def at_once() -> None:
    """A part that answers as soon as it is asked."""


class Bench:
    """What a supervisor says and how long it waits, without waiting."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.pauses: list[float] = []
        self.now = 0.0
        self.resume = asyncio.Event()
        self.resume.set()

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)
        await self.resume.wait()

    def supervisor(self, *parts: Part, **options: Any) -> Supervisor:
        return Supervisor(parts, self.said.append, clock=lambda: self.now, sleep=self.sleep, **options)


async def until(found: Callable[[], Any], patience_s: float = 20.0) -> None:
    async with asyncio.timeout(patience_s):
        while not found():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}/exe").exists()


async def test_a_part_that_is_killed_comes_back_and_both_are_told() -> None:
    bench = Bench()
    supervisor = bench.supervisor(Part("the thing", FOREVER, at_once, note="its memory is lost"))
    ready: list[str] = []
    await supervisor.start(lambda part: ready.append(part.name))
    supervisor.keep()
    assert ready == ["the thing"]
    first = supervisor.pids["the thing"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: len(bench.said) == 2)
    assert bench.said[0] == "the thing was ended by SIGKILL: starting it again; its memory is lost"
    assert bench.said[1] == "the thing is back after 0.5 s"
    second = supervisor.pids["the thing"]
    assert second != first
    await supervisor.stop(5.0)
    assert gone(second)


async def test_pauses_double_to_ten_seconds_and_the_end_is_told_once() -> None:
    bench = Bench()
    argv = [FOREVER]

    async def start_one(name: str, _: Any, on_line: OnLine | None, *, env: Any) -> Child:
        from epp.local.process import spawn

        return await spawn(name, argv[0], on_line, env=env)

    async def never() -> None:
        if argv[0] is FAILS:
            await asyncio.Event().wait()

    supervisor = bench.supervisor(Part("the thing", FOREVER, never), start_one=start_one)
    await supervisor.start(lambda part: None)
    supervisor.keep()
    argv[0] = FAILS
    os.kill(supervisor.pids["the thing"], signal.SIGKILL)
    await until(lambda: len(bench.pauses) >= 7)
    assert bench.pauses[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert len(bench.said) == 1
    argv[0] = FOREVER
    await until(lambda: len(bench.said) == 2)
    assert bench.said[1].startswith("the thing is back after ")
    # A long life makes the next pause the shortest again.
    bench.now += 31.0
    at = len(bench.pauses)
    os.kill(supervisor.pids["the thing"], signal.SIGKILL)
    await until(lambda: len(bench.said) == 4)
    assert bench.pauses[at] == 0.5
    await supervisor.stop(5.0)


async def test_an_end_while_everything_starts_is_an_error_with_its_last_words() -> None:
    bench = Bench()

    async def never() -> None:
        await asyncio.Event().wait()

    supervisor = bench.supervisor(Part("one", FOREVER, at_once), Part("two", FAILS, never))
    with pytest.raises(PartEnded, match="two ended with exit code 3; its last words: no such thing"):
        await supervisor.start(lambda part: None)
    pid = supervisor.pids["one"]
    await supervisor.stop(5.0)
    assert gone(pid)
    assert bench.said == []


async def test_layers_end_in_order_and_nothing_starts_afterwards() -> None:
    bench = Bench()
    ended: list[str] = []
    parts = [Part(name, FOREVER, at_once, layer) for name, layer in (("pod", 0), ("picker", 1), ("Envoy", 2))]
    supervisor = bench.supervisor(*parts)
    await supervisor.start(lambda part: None)
    supervisor.keep()
    for name, child in supervisor._children.items():
        child.ended.add_done_callback(lambda _, name=name: ended.append(name))  # type: ignore[misc]
    pids = list(supervisor.pids.values())
    await supervisor.stop(5.0)
    await asyncio.sleep(0)
    assert ended == ["Envoy", "picker", "pod"]
    assert all(map(gone, pids))
    assert bench.said == []


async def test_stop_during_a_pause_starts_nothing() -> None:
    bench = Bench()
    supervisor = bench.supervisor(Part("the thing", FOREVER, at_once))
    await supervisor.start(lambda part: None)
    supervisor.keep()
    bench.resume.clear()
    first = supervisor.pids["the thing"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: bench.pauses)
    await supervisor.stop(5.0)
    bench.resume.set()
    await asyncio.sleep(0.05)
    assert supervisor.pids["the thing"] == first


async def test_a_part_has_the_environment_it_is_given_and_no_other() -> None:
    bench = Bench()
    lines: list[str] = []
    show = (sys.executable, "-c", "import os, time; print(sorted(os.environ), flush=True); time.sleep(600)")

    def ready() -> Coroutine[Any, Any, None]:
        return until(lambda: lines)

    supervisor = bench.supervisor(Part("it", show, ready, on_line=lines.append, env={"ONLY": "1"}))
    await supervisor.start(lambda part: None)
    await supervisor.stop(5.0)
    assert "'ONLY'" in lines[0]
    assert "'HOME'" not in lines[0]


async def test_what_a_part_complained_of_is_told_with_its_end() -> None:
    bench = Bench()
    lines: list[str] = []
    says = "print('[x][info] fine'); print('error: the disk is full', flush=True)"
    argv = (sys.executable, "-c", f"import time; {says}; time.sleep(600)")
    supervisor = bench.supervisor(Part("it", argv, lambda: until(lambda: len(lines) == 2), on_line=lines.append))
    await supervisor.start(lambda part: None)
    supervisor.keep()
    bench.resume.clear()
    os.kill(supervisor.pids["it"], signal.SIGKILL)
    await until(lambda: bench.said)
    await supervisor.stop(5.0)
    assert bench.said == ["it was ended by SIGKILL (error: the disk is full): starting it again"]
