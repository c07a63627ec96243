# SPDX-License-Identifier: Apache-2.0
"""Counters in this process.

Nothing here waits for anything, so a booking is one step of the event loop: exact, and never half done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from epp.contract.metering import Meter
from epp.ratelimit.ledger.contract import Charge, LedgerState, OnFailure, Standing, Window
from epp.ratelimit.ledger.storage import Full, MemoryStorage
from epp.ratelimit.ledger.windows import Sliding, window_of

log = logging.getLogger("epp.ratelimit")

_FULL_NO_MORE = 0.9
"""Below this share of the most counters, being full once more is news."""


class MemoryLedger:
    """A `Ledger`. What it holds is lost with the process."""

    def __init__(
        self, window: Window, on_failure: OnFailure, clock: Callable[[], float], meter: Meter, most_counters: int
    ) -> None:
        self.on_failure = on_failure
        self._window = window
        self._most = most_counters
        self._now = clock()
        self._storage = MemoryStorage(lambda: self._now, most_counters)
        self._sliding = Sliding(self._storage)
        self._uncounted = meter.counter(
            "epp_ratelimit_uncounted", "Amounts of charges that are not counted anywhere, by reason.", ("reason",)
        )
        self._full = False

    async def book(self, charges: Sequence[Charge], now: float) -> Sequence[Standing | None]:
        """Book all charges; None for a charge that would need a counter too many."""
        # Time never goes back for what is in here: a window that ended stays over.
        self._now = max(now, self._now)
        book = self._fixed if self._window is Window.FIXED else self._slid
        standings: list[Standing | None] = []
        for charge in charges:
            try:
                standings.append(await book(charge))
            except Full:
                standings.append(None)
                self._refuse(charge.amount)
        if self._full and len(self._storage) < _FULL_NO_MORE * self._most:
            self._full = False
        return standings

    async def _fixed(self, charge: Charge) -> Standing:
        start, left = window_of(self._now, charge.period_s)
        key = f"{charge.key}/{start}"
        if charge.refund:
            count = await self._storage.decr(key, charge.amount)
        elif charge.amount:
            count = await self._storage.incr(key, left, charge.amount)
        else:
            count = await self._storage.get(key)
        return Standing(count, left)

    async def _slid(self, charge: Charge) -> Standing:
        if charge.refund:
            await self._storage.refund_sliding(
                self._sliding.name(charge.key, charge.period_s), charge.period_s, charge.amount
            )
        elif charge.amount:
            await self._sliding.hit(charge.key, charge.period_s, charge.amount)
        return await self._sliding.standing(charge.key, charge.period_s)

    def _refuse(self, amount: int) -> None:
        self._uncounted.add(("full",), amount)
        if not self._full:
            self._full = True
            log.warning(
                "rate limits: %d counters are in use, new ones are not counted (answer: %s) until windows end",
                len(self._storage),
                self.on_failure.value,
            )

    def state(self) -> LedgerState:
        """How it is. `counters` includes some whose window is over."""
        return LedgerState("memory", self._window, counters=len(self._storage))

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to let go."""
