# SPDX-License-Identifier: Apache-2.0
"""Child processes that do not outlive their parent, and whose end is noticed.

Problem: a stack of six processes must be gone when `epp up` ends, however it ends. Each child leads a session and a
process group of its own, so Ctrl-C in the terminal reaches the parent alone and it can stop the parts in order; and
on Linux the kernel kills the child when its parent dies, even by SIGKILL (PR_SET_PDEATHSIG). That request is made by
a few lines of Python that then become the child's program: asking for it between fork and exec is not safe in a
process with threads.

Output (stdout and stderr together) is read line by line; the last lines are kept, to say why a child ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from epp.contract.errors import StartError

OnLine = Callable[[str], None]

_TAIL_LINES = 20
_LINE_BYTES = 4 * 1024 * 1024
_GUARD = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Child:
    """One running child. Make it with `spawn`."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: OnLine | None) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._process = process
        self._on_line = on_line
        self._reader = asyncio.create_task(self._read())
        self.ended = asyncio.create_task(self._wait())

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """It has not ended, as far as we were told."""
        return self._process.returncode is None

    def describe_end(self) -> str:
        """How it ended, in a few words."""
        code = self._process.returncode
        if code is None:
            return f"{self.name} is running"
        if code >= 0:
            return f"{self.name} ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"{self.name} was ended by {signal.Signals(-code).name}"
        return f"{self.name} was ended by signal {-code}"

    def terminate(self) -> None:
        """Ask it to end."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and its process group now."""
        self._signal(signal.SIGKILL)

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, kill its process group after `grace_s`; returns when it is gone and its output read."""
        self.terminate()
        await asyncio.wait([self.ended], timeout=grace_s)
        if self.alive:
            self.kill()
        await self.ended

    def _signal(self, number: signal.Signals) -> None:
        # `alive` turns false as soon as the loop learns of the end: the id is not somebody else's yet.
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    async def _wait(self) -> int:
        code = await self._process.wait()
        # A grandchild may hold the pipe open; what was written before the end has arrived by then.
        await asyncio.wait([self._reader], timeout=1.0)
        self._reader.cancel()
        return code

    async def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # longer than any line of ours: the reader dropped it
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip("\r\n")
            self.tail.append(text)
            if self._on_line is not None:
                self._on_line(text)


async def spawn(
    name: str, argv: Sequence[str], on_line: OnLine | None = None, *, env: Mapping[str, str] | None = None
) -> Child:
    """Start `argv` (an absolute program and its arguments); its environment is `env`, None for ours.

    Raises `StartError` when it cannot be started.
    """
    if not os.access(argv[0], os.X_OK):
        raise StartError(f"cannot start {name}: {argv[0]} is not an executable file")
    guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())]
    try:
        process = await asyncio.create_subprocess_exec(
            *guard,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=_LINE_BYTES,
            start_new_session=True,
            env=env,
        )
    except OSError as error:
        raise StartError(f"cannot start {name}: {error.strerror or error}") from None
    return Child(name, process, on_line)


class Children:
    """All children of a stack, in order of start. Make it on the loop that runs them."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._first_end: asyncio.Future[Child] = asyncio.get_running_loop().create_future()

    async def start(self, name: str, argv: Sequence[str], on_line: OnLine | None = None) -> Child:
        """Start one more. Raises `StartError`."""
        child = await spawn(name, argv, on_line)
        self._children.append(child)
        child.ended.add_done_callback(lambda _: self._note(child))
        return child

    def _note(self, child: Child) -> None:
        if not self._first_end.done():
            self._first_end.set_result(child)

    async def first_to_end(self) -> Child:
        """Wait until one has ended, of those started so far or later, and say which."""
        return await asyncio.shield(self._first_end)

    async def stop(self, grace_s: float) -> None:
        """End all, the last started first: each part is still there for those that depend on it."""
        try:
            for child in reversed(self._children):
                await child.stop(grace_s)
        finally:
            # Only reached with somebody alive when this was cancelled: then there is no time for manners.
            self.kill()

    def kill(self) -> None:
        """End all now."""
        for child in self._children:
            child.kill()
