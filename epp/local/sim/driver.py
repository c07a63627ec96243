# SPDX-License-Identifier: Apache-2.0
"""Runs an engine on an asyncio event loop: one timer, set to the engine's next event, and nothing while it is idle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from epp.local.sim.engine import Engine, Progress, SequenceState, Work

OnProgress = Callable[[Progress], None]


class Driver:
    """Owns the engine's clock. `clock` gives monotonic seconds; the loop's own may be too coarse (uvloop: 1 ms)."""

    def __init__(self, engine: Engine, clock: Callable[[], float], loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self._clock = clock
        self._loop = loop
        self._listeners: dict[SequenceState, OnProgress] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0

    def submit(self, work: Work, on_progress: OnProgress) -> SequenceState:
        """Queue a sequence; `on_progress` is called for it until it is finished or aborted."""
        self.catch_up()
        sequence = self.engine.submit(self._clock(), work)
        self._listeners[sequence] = on_progress
        self._schedule()
        return sequence

    def abort(self, sequence: SequenceState) -> None:
        """Forget a sequence and free what it holds. Nothing happens when it is finished."""
        if self._listeners.pop(sequence, None) is not None:
            self.catch_up()
            self.engine.abort(sequence)
            self._schedule()

    def slow_down(self, factor: float) -> None:
        """Steps take `factor` times as long, from the next one on."""
        self.catch_up()
        self.engine.slow_down(factor)
        self._schedule()

    def catch_up(self) -> None:
        """Bring the engine to the present and tell the listeners."""
        for progress in self.engine.advance(self._clock()):
            sequence = progress.sequence
            listener = self._listeners.pop(sequence, None) if progress.finished else self._listeners.get(sequence)
            if listener is not None:
                listener(progress)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self.catch_up()
        self._schedule()

    def _schedule(self) -> None:
        next_s = self.engine.next_event_s
        if self._timer is not None:
            if next_s == self._timer_s:
                return
            self._timer.cancel()
            self._timer = None
        if next_s is not None:
            self._timer_s = next_s
            self._timer = self._loop.call_later(max(0.0, next_s - self._clock()), self._fire)
