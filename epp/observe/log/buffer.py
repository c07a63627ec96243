# SPDX-License-Identifier: Apache-2.0
"""Lines that wait to be written, and when they are due. No lock and no thread: `writer` adds both.

Bounded: `limit_bytes` counts what waits and what is being written. A line beyond that is dropped and counted.
"""

from __future__ import annotations

import math

from epp.contract.endpoints import Clock


class Buffer:
    """Gathers lines until `flush_bytes` wait or the first of them is `delay_s` old."""

    __slots__ = (
        "_clock",
        "_data",
        "_delay_s",
        "_due_s",
        "_flush_bytes",
        "_limit_bytes",
        "_told",
        "_writing",
        "dropped",
    )

    def __init__(self, clock: Clock, *, limit_bytes: int, flush_bytes: int, delay_s: float) -> None:
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._flush_bytes = flush_bytes
        self._delay_s = delay_s
        self._data = bytearray()
        self._writing = 0
        self._due_s = math.inf
        self._told = 0
        self.dropped = 0

    def add(self, line: bytes, urgent: bool = False) -> bool:
        """Keep `line`, which ends in a newline. True when the time at which the buffer is due has changed."""
        data = self._data
        before = len(data)
        size = before + len(line)
        if size + self._writing > self._limit_bytes:
            self.dropped += 1
            return False
        data += line
        if urgent or before < self._flush_bytes <= size:
            self._due_s = -math.inf
            return True
        if not before:
            self._due_s = self._clock() + self._delay_s
            return True
        return False

    @property
    def idle(self) -> bool:
        """Nothing waits, nothing is being written and no drop is untold."""
        return not self._data and not self._writing and self.dropped == self._told

    def due_in_s(self) -> float:
        """Seconds until the buffer should be written: 0 when it is due now, inf when nothing waits."""
        if self.dropped != self._told:
            return 0.0
        return max(0.0, self._due_s - self._clock()) if self._data else math.inf

    def take(self) -> tuple[bytearray, int]:
        """Everything that waits, and how many lines were dropped since the last call."""
        data, self._data = self._data, bytearray()
        self._writing = len(data)
        self._due_s = math.inf
        dropped = self.dropped - self._told
        self._told = self.dropped
        return data, dropped

    def written(self) -> None:
        """What was taken is out: there is room again."""
        self._writing = 0
