# SPDX-License-Identifier: Apache-2.0
"""Which disturbance a lost request may be blamed on.

Invariant: every request that did not get its whole answer is attributed to a window of the pod it was sent to, or to a
window of the endpoint picker that was asked. What is left over is a defect. Times are seconds since the run began.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

SILENT = ("hang", "stall", "freeze", "slow", "stop")
"""Disturbances that explain nothing but an answer that does not come in time."""
GRACE_S = 0.5
"""After a disturbance is over, its effects may still be on their way."""


@dataclass
class Window:
    """`target` (a pod's address, or a gateway's name) was disturbed by `kind`."""

    target: str
    kind: str
    begin_s: float
    end_s: float = math.inf

    def explains(self, lost: Lost) -> bool:
        """`lost` may be lost because of this."""
        return self.covers(lost.begin_s, lost.end_s) and (lost.timed_out or self.kind not in SILENT)

    def covers(self, begin_s: float, end_s: float) -> bool:
        """It may have met a request of that time."""
        return begin_s <= self.end_s + GRACE_S and end_s >= self.begin_s


@dataclass(frozen=True)
class Lost:
    """A request that got no whole answer. `pod` is the address it was sent to, as far as anybody knows."""

    id: str
    gateway: str
    kind: str
    begin_s: float
    end_s: float
    what: str
    pod: str = ""
    told: str = ""
    timed_out: bool = False

    def __str__(self) -> str:
        where = f" at {self.pod}" if self.pod else ""
        return f"{self.begin_s:7.2f} s {self.id} {self.kind} by {self.gateway}{where}: {self.what} {self.told}"


@dataclass
class Ledger:
    """Windows, and requests that were lost."""

    windows: list[Window] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)

    def open(self, target: str, kind: str, now_s: float) -> Window:
        """A disturbance begins."""
        window = Window(target, kind, now_s)
        self.windows.append(window)
        return window

    def attribute(self) -> tuple[Counter[str], list[Lost]]:
        """How many losses each kind of disturbance explains, and those that none does."""
        explained: Counter[str] = Counter()
        strange = []
        for lost in self.lost:
            window = self._cause(lost)
            if window is None:
                strange.append(lost)
            else:
                explained[window.kind] += 1
        return explained, strange

    def _cause(self, lost: Lost) -> Window | None:
        for target in (lost.pod, lost.gateway):
            for window in self._of(target):
                if window.explains(lost):
                    return window
        return None

    def _of(self, target: str) -> Iterable[Window]:
        return (window for window in self.windows if target and window.target == target)

    def disturbed(self, target: str, begin_s: float, end_s: float) -> bool:
        """Something was done to `target` in that time."""
        return any(window.covers(begin_s, end_s) for window in self._of(target))
