# SPDX-License-Identifier: Apache-2.0
"""Child processes: their output, their end, and that they do not survive us."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress
from pathlib import Path

import pytest

from epp.contract.errors import StartError
from epp.local.process import Children, spawn

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]


def gone(pid: int, within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


async def test_lines_of_both_streams_arrive_and_the_last_are_kept() -> None:
    lines: list[str] = []
    child = await spawn("talker", python("import sys; print('one'); print('two', file=sys.stderr)"), lines.append)
    assert await child.ended == 0
    assert sorted(lines) == ["one", "two"] == sorted(child.tail)
    assert child.describe_end() == "talker ended with exit code 0"


async def test_many_lines_keep_only_the_last() -> None:
    child = await spawn("talker", python("for i in range(100): print(i)"))
    await child.ended
    assert list(child.tail) == [str(i) for i in range(80, 100)]


async def test_an_overlong_line_does_not_stop_the_reading() -> None:
    child = await spawn("talker", python("print('x' * 9_000_000); print('after')"))
    await child.ended
    assert child.tail[-1] == "after"


async def test_a_child_is_asked_before_it_is_killed() -> None:
    ready = asyncio.Event()
    child = await spawn("stubborn", python(STUBBORN), lambda _: ready.set())
    await ready.wait()
    child.terminate()
    child.terminate()
    await child.stop(0.05)
    assert child.describe_end() == "stubborn was ended by SIGKILL"
    assert gone(child.pid)


async def test_the_first_to_end_is_named() -> None:
    children = Children()
    try:
        await children.start("steady", python("import time; time.sleep(60)"))
        await children.start("crasher", python("import sys; print('out of luck'); sys.exit(3)"))
        child = await children.first_to_end()
        assert (child.describe_end(), list(child.tail)) == ("crasher ended with exit code 3", ["out of luck"])
    finally:
        await children.stop(1.0)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_all_are_gone_after_a_stop_even_a_cancelled_one(cancelled: bool) -> None:
    children = Children()
    ready = asyncio.Semaphore(0)
    started = [await children.start("stubborn", python(STUBBORN), lambda _: ready.release()) for _ in range(2)]
    for _ in started:
        await ready.acquire()
    stopping = asyncio.ensure_future(children.stop(60.0 if cancelled else 0.01))
    if cancelled:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stopping.cancel()
    with suppress(asyncio.CancelledError):
        await stopping
    await asyncio.gather(*(child.ended for child in started))
    assert all(gone(child.pid) for child in started)


async def test_something_that_is_no_program_is_a_start_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"cannot start ghost: .*/nothing is not an executable file"):
        await spawn("ghost", [str(tmp_path / "nothing")])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help (PR_SET_PDEATHSIG) is Linux's")
def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
            import asyncio, sys
            from epp.local.process import spawn
            async def main():
                ready = asyncio.Event()
                child = await spawn("child", [sys.executable, "-c", {STUBBORN!r}], lambda _: ready.set())
                await ready.wait()
                print(child.pid, flush=True)
                await asyncio.sleep(60)
            asyncio.run(main())
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait(10)
    assert gone(pid)
