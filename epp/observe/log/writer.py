# SPDX-License-Identifier: Apache-2.0
"""Lines to a stream in batches, from a thread of its own, so that a slow reader never blocks the caller.

A stream that is closed or broken (EPIPE) is given up silently: a service must not die of its log. What cannot be
written is counted as dropped.
"""

from __future__ import annotations

import atexit
import math
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from epp.contract.endpoints import Clock
from epp.observe.log.buffer import Buffer

LIMIT_BYTES = 8 << 20
FLUSH_BYTES = 64 << 10
DELAY_S = 0.08
CLOSE_TIMEOUT_S = 2.0


class Stream(Protocol):
    """Where bytes go. May block. Raises OSError or ValueError when it is closed."""

    def write(self, data: bytes | bytearray, /) -> object:
        """Write all of `data`."""
        ...


class FileDescriptor:
    """A stream over a file descriptor. It has no lock or buffer of its own, so that a thread which is stuck in
    `write` does not hinder the interpreter's end. A non-blocking descriptor (shared with a parent) is waited for."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes | bytearray, /) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select([], [self._fd], [])


class Nowhere:
    """The stream of a process that has none."""

    def write(self, data: bytes | bytearray, /) -> None:
        """Always fails."""
        raise ValueError(f"there is no stream for {len(data)} bytes")


def stderr_stream() -> Stream:
    """The process's standard error."""
    try:
        return FileDescriptor(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # closed when the process started, or replaced by an object
        return Nowhere()


class LineWriter:
    """Writes lines to `stream`; every method may be called from any thread.

    * dropped_line: makes the line that says how many lines were lost
    * clock: monotonic seconds
    * a waiting line is written within `delay_s`, sooner with `flush_bytes` waiting, at once when urgent
    * at most `limit_bytes` are held; more lines are dropped and counted
    """

    def __init__(
        self,
        stream: Stream,
        dropped_line: Callable[[int], bytes],
        *,
        clock: Clock = time.monotonic,
        limit_bytes: int = LIMIT_BYTES,
        flush_bytes: int = FLUSH_BYTES,
        delay_s: float = DELAY_S,
    ) -> None:
        self._stream = stream
        self._dropped_line = dropped_line
        self._buffer = Buffer(clock, limit_bytes=limit_bytes, flush_bytes=flush_bytes, delay_s=delay_s)
        # Reentrant: a signal handler or a finalizer may log while this thread is adding a line.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._broken = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="epp-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def dropped(self) -> int:
        """Lines lost since the start: no room, or no stream."""
        return self._buffer.dropped

    def add(self, line: bytes, urgent: bool = False) -> None:
        """Take one line, newline included. Never blocks for the stream, never raises."""
        with self._lock:
            if self._broken or self._closing:
                self._buffer.dropped += 1
            elif self._buffer.add(line, urgent):
                self._changed.notify_all()

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until everything added so far is written; False when the time was too short."""
        with self._lock:
            self._buffer.add(b"", urgent=True)
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._buffer.idle or self._broken, timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits and end the thread; what a stuck stream does not take within the time is lost."""
        with self._lock:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        atexit.unregister(self.close)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._closing and (wait_s := self._buffer.due_in_s()) > 0.0:
                    self._changed.wait(None if wait_s == math.inf else wait_s)
                data, dropped = self._buffer.take()
            if dropped:
                data += self._dropped_line(dropped)
            broken = False
            try:
                if data:
                    self._stream.write(data)
            except (OSError, ValueError):
                broken = True
            with self._lock:
                self._broken = broken
                self._buffer.written()
                self._changed.notify_all()
                if self._broken or (self._closing and self._buffer.idle):
                    return
