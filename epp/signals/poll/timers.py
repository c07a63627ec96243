# SPDX-License-Identifier: Apache-2.0
"""The part of an event loop that polls are planned with, so that tests can let time pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What `call_at` returns."""

    def cancel(self) -> None:
        """Do not call."""
        ...


class Timers(Protocol):
    """Seconds and callbacks of an event loop."""

    def time(self) -> float:
        """Monotonic seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call `callback` at `when`."""
        ...
