# SPDX-License-Identifier: Apache-2.0
"""The seam between the rules and the counters.

A `Charge` is what one descriptor of a call costs, a `Standing` where its counter is after that. Counters live for one
window: aligned to the clock (FIXED: hours begin at full hours of Unix time, as with the Go service), or sliding.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

LARGEST_AMOUNT = 1 << 40
"""A charge counts as at most this much; no limit is above 2**32 - 1."""


class Window(enum.Enum):
    """How a counter forgets."""

    FIXED = "fixed"
    """All at once, when a window that is aligned to the clock ends."""
    SLIDING = "sliding"
    """Bit by bit: the count of the window before weighs less the longer it is over."""


class OnFailure(enum.Enum):
    """What is answered while the counters cannot be asked."""

    ALLOW = "allow"
    """OK."""
    DENY = "deny"
    """OVER_LIMIT."""
    ERROR = "error"
    """A gRPC error, as the Go service: the proxy's `failure_mode_deny` decides."""


class Charge(msgspec.Struct, frozen=True, gc=False):
    """`amount` (0: only look) on the counter `key` of windows of `period_s` seconds; `refund` takes it off again, down
    to 0 at most."""

    key: str
    period_s: int
    amount: int
    refund: bool = False


class Standing(msgspec.Struct, frozen=True, gc=False):
    """`count` after the charge; `reset_s`: whole seconds until the window ends (FIXED), or until the count is lower
    (SLIDING)."""

    count: int
    reset_s: int


@dataclass(frozen=True, slots=True)
class LedgerState:
    """For people: a page, a log line, a test.

    * place: where the counters are, without passwords
    * away: what was wrong when the counters could last not be asked, None while they can
    * counters: live ones, where they are known (memory)
    * kept: charges (merged per counter) that wait to be booked
    """

    place: str
    window: Window
    away: str | None = None
    counters: int | None = None
    kept: int = 0


class Ledger(Protocol):
    """Counters."""

    on_failure: OnFailure

    async def book(self, charges: Sequence[Charge], now: float) -> Sequence[Standing | None]:
        """Book all charges (with a shared store in one round trip) and say where each counter stands.

        `now` is Unix time in seconds. None: the counter cannot be asked now; the charge is kept and booked later where
        the store is away, or not counted where there is no room for another counter. Never raises for that.
        """
        ...

    def state(self) -> LedgerState:
        """How it is."""
        ...

    async def start(self) -> None:
        """Connect, where there is something to connect to; a store that is away does not fail the start."""
        ...

    async def close(self) -> None:
        """Book what is kept if the store is there (within a second), and let go."""
        ...
