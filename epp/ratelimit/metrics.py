# SPDX-License-Identifier: Apache-2.0
"""What the process itself shows on the metrics page, besides what `tally` counts by rule.

    epp_ratelimit_call_duration_seconds        histogram: from the message of a call to its answer
    epp_ratelimit_call_errors_total{reason}    malformed, invalid, unavailable, failed
    epp_ratelimit_calls_waiting                calls that wait for their counters
    epp_ratelimit_storage_duration_seconds     histogram: one booking, where the storage is another process
    epp_ratelimit_storage_away                 1 while the counters cannot be asked
    epp_ratelimit_counters                     counters held, where they are in memory
    epp_ratelimit_pending_charges              charges that wait for the storage to come back
    epp_ratelimit_rules{domain}                limits in use
    epp_ratelimit_config_loads_total{result}   changed configurations: good, bad
    epp_ratelimit_config_stale                 1 while the files cannot be used as they are, and older rules hold

No label holds what a client sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.histogram import Bounds, Histogram
from epp.observe.metrics.rows import FamilyCollector, Row
from epp.ratelimit.ledger import Charge, Ledger, LedgerState, Standing
from epp.ratelimit.pages import Rules
from epp.ratelimit.reload import ReloadCounts
from epp.ratelimit.service import RateLimits

_STORAGE_S: Bounds = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


def _family(kind: str, name: str, text: str, *labels: str) -> Family:
    return Family(kind, text, (Name(f"epp_ratelimit_{name}", labels),))


_CALL = _family("histogram", "call_duration_seconds", "From the message of a call to its answer.")
_ERRORS = _family("counter", "call_errors_total", "Calls that were not answered.", "reason")
_WAITING = _family("gauge", "calls_waiting", "Calls that wait for their counters.")
_STORAGE = _family("histogram", "storage_duration_seconds", "One booking of counters in another process.")
_AWAY = _family("gauge", "storage_away", "1 while the counters cannot be asked.")
_COUNTERS = _family("gauge", "counters", "Counters held in memory.")
_PENDING = _family("gauge", "pending_charges", "Charges that wait for the storage to come back.")
_RULES = _family("gauge", "rules", "Limits in use.", "domain")
_LOADS = _family("counter", "config_loads_total", "Changed configurations, by whether they could be used.", "result")
_STALE = _family("gauge", "config_stale", "1 while the configuration cannot be used as it is, and older rules hold.")


class Timed:
    """A ledger whose bookings are timed. `clock` gives monotonic seconds."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.perf_counter) -> None:
        self.on_failure = ledger.on_failure
        self.seconds = Histogram(_STORAGE_S)
        self._ledger = ledger
        self._clock = clock

    async def book(self, charges: Sequence[Charge], now: float) -> Sequence[Standing | None]:
        """As the ledger does."""
        began_s = self._clock()
        try:
            return await self._ledger.book(charges, now)
        finally:
            self.seconds.observe(self._clock() - began_s)

    def state(self) -> LedgerState:
        """As the ledger does."""
        return self._ledger.state()

    async def start(self) -> None:
        """As the ledger does."""
        await self._ledger.start()

    async def close(self) -> None:
        """As the ledger does."""
        await self._ledger.close()


class ProcessMetrics(FamilyCollector):
    """The families above. `rules` gives the limits in use, by domain; `storage` is None for counters in memory."""

    def __init__(
        self,
        limits: RateLimits,
        state: Callable[[], LedgerState],
        loads: ReloadCounts,
        rules: Callable[[], Rules],
        storage: Histogram | None,
    ) -> None:
        self._limits = limits
        self._state = state
        self._loads = loads
        self._rules = rules
        self._storage = storage

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Each family once."""
        calls, loads, state = self._limits.calls, self._loads, self._state()
        yield _CALL, [({}, calls.seconds)]
        errors = {name: getattr(calls, name) for name in ("malformed", "invalid", "unavailable", "failed")}
        yield _ERRORS, [({"reason": name}, count) for name, count in errors.items()]
        yield _WAITING, [({}, self._limits.waiting)]
        yield _STORAGE, [({}, self._storage)] if self._storage is not None else []
        yield _AWAY, [({}, int(state.away is not None))]
        yield _COUNTERS, [({}, state.counters)] if state.counters is not None else []
        yield _PENDING, [({}, state.kept)]
        yield _RULES, [({"domain": domain}, len(found)) for domain, found in self._rules().items()]
        yield _LOADS, [({"result": "good"}, loads.good), ({"result": "bad"}, loads.bad)]
        yield _STALE, [({}, int(loads.failing))]
