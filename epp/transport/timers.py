# SPDX-License-Identifier: Apache-2.0
"""A connection's few timers, by name: at most one of a name is pending, and none outlives the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """Named one-shot timers on `loop`."""

    __slots__ = ("_loop", "_pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: dict[str, asyncio.TimerHandle] = {}

    def start(self, name: str, delay_s: float, action: Callable[[], object]) -> None:
        """Run `action` in `delay_s`, unless a timer of that name is pending already."""
        if name not in self._pending:
            self._pending[name] = self._loop.call_later(delay_s, self._fire, name, action)

    def stop(self, name: str) -> None:
        """Forget the timer, if it is pending."""
        handle = self._pending.pop(name, None)
        if handle is not None:
            handle.cancel()

    def stop_all(self) -> None:
        """Forget every timer."""
        for handle in self._pending.values():
            handle.cancel()
        self._pending.clear()

    def _fire(self, name: str, action: Callable[[], object]) -> None:
        del self._pending[name]
        action()
