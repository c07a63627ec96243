# SPDX-License-Identifier: Apache-2.0
"""Text for somebody who may stop reading: a terminal that is halted, a program at the other end of a pipe that sleeps.

A write would block then, with the loop that also reads what our children write, and they would block in turn. So a
thread writes. What waits for it is bounded: beyond that, text is dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from typing import TextIO

MOST_BYTES = 1 << 20
_PAUSE_S = 0.02


class Outlet:
    """Writes to `out` without waiting; where `out` is no file of the system, at once. When nobody reads any more (a
    closed pipe or terminal), what is written is lost and nothing else happens."""

    def __init__(self, out: TextIO, *, most_bytes: int = MOST_BYTES) -> None:
        self._out = out
        self._most_bytes = most_bytes
        self._fd: int | None = None
        # What is only in memory has none, and says so with one of both errors.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._fd = out.fileno()
        self._texts: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._waiting_bytes = 0
        self._lost = 0
        self._closing = False
        self._gone = False
        self._thread: threading.Thread | None = None

    @property
    def waiting_bytes(self) -> int:
        """Not written yet."""
        return self._waiting_bytes

    def write(self, text: str) -> None:
        """Write it soon; dropped when too much waits already."""
        if self._fd is None:
            with contextlib.suppress(OSError):
                self._out.write(text)
                self._out.flush()
            return
        with self._changed:
            if self._gone:
                return
            if self._waiting_bytes > self._most_bytes:
                self._lost += 1
                return
            if self._lost:
                text = f"(nobody read; lines that are not shown: {self._lost})\n{text}"
                self._lost = 0
            data = text.encode(self._out.encoding or "utf-8", "replace")
            self._texts.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()
            if self._thread is None:
                # A daemon: a write that nobody takes must not keep the process.
                self._thread = threading.Thread(target=self._run, args=(self._fd,), daemon=True)
                self._thread.start()

    async def written(self) -> None:
        """Return when all is written, however long that takes."""
        while self._waiting_bytes:  # noqa: ASYNC110  # what is waited for is in a thread
            await asyncio.sleep(_PAUSE_S)

    def close(self, patience_s: float) -> None:
        """Write what waits, as long as somebody takes some of it every `patience_s`."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._waiting_bytes and self._changed.wait(patience_s):
                pass

    def _run(self, fd: int) -> None:
        while True:
            with self._changed:
                while not self._texts:
                    if self._closing:
                        return
                    self._changed.wait()
                data = self._texts.popleft()
            try:
                _write(fd, data)
            except OSError:
                self._gone = True
            with self._changed:
                self._waiting_bytes -= len(data)
                self._changed.notify_all()
                if self._gone:
                    self._texts.clear()
                    self._waiting_bytes = 0
                    return


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            # Whoever started us made it so.
            time.sleep(_PAUSE_S)


async def write_whole(out: TextIO, text: str) -> None:
    """Write all of `text`, however long its reader takes; other work goes on meanwhile."""
    outlet = Outlet(out)
    outlet.write(text)
    await outlet.written()
    outlet.close(0.0)
