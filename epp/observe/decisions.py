# SPDX-License-Identifier: Apache-2.0
"""The last decisions, for the debug endpoint: bounded in number and in memory.

Memory is an estimate made of array sizes and string lengths; what decisions share with the pool
(endpoints, columns) is not counted. Slots are preallocated, so that another thread may read while the event loop adds.
"""

from __future__ import annotations

from epp.contract.decision import Decision
from epp.contract.endpoints import Endpoint

MAX_RECORDS = 10_000
MAX_BYTES = 16 << 20

# CPython object sizes, rounded up: a decision with its dictionary and the heads of its strings; a profile's result
# with its candidate set and the heads of its arrays; a trace with the head of its array.
_DECISION_BYTES = 500
_RESULT_BYTES = 500
_TRACE_BYTES = 200
_ROW_BYTES = 8


def estimate_bytes(decision: Decision) -> int:
    """About what `decision` keeps in memory."""
    size = _DECISION_BYTES + len(decision.request_id) + len(decision.model) + len(decision.target_model)
    for result in decision.results.values():
        scorers = len(result.scores)
        # The rows, the totals and each scorer's values have one number per candidate.
        size += _RESULT_BYTES + scorers * _TRACE_BYTES + (scorers + 2) * len(result.total) * _ROW_BYTES
        for trace in result.filters:
            size += _TRACE_BYTES + len(trace.dropped_rows) * _ROW_BYTES
    return size


class DecisionRing:
    """At most `max_records` decisions of at most about `max_bytes`; the oldest leave first.

    A decision that is larger than `max_bytes` alone is not kept.
    """

    __slots__ = ("_decisions", "_identities", "_max_bytes", "_next", "_oldest", "_sizes", "bytes")

    def __init__(self, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES) -> None:
        self._decisions: list[Decision | None] = [None] * max_records
        self._sizes = [0] * max_records
        self._max_bytes = max_bytes
        self._identities: tuple[Endpoint | None, ...] = ()
        self._next = 0
        self._oldest = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._newest_first())

    def add(self, decision: Decision) -> None:
        """Remember `decision`."""
        size = estimate_bytes(decision)
        identities = decision.results[decision.primary].endpoints.identities
        if identities is not self._identities:
            # Decisions share the pool's membership until it changes; the first one of each membership pays for it.
            self._identities = identities
            size += len(identities) * _ROW_BYTES
        if size > self._max_bytes:
            return
        at = self._next
        following = at + 1 if at + 1 < len(self._sizes) else 0
        replaced = self._sizes[at]
        if replaced:
            self._oldest = following
        self._decisions[at] = decision
        self._sizes[at] = size
        self._next = following
        self.bytes += size - replaced
        if self.bytes > self._max_bytes:
            self._shrink()

    def last(self, count: int) -> list[Decision]:
        """Up to `count` decisions, the newest first."""
        return self._newest_first()[: max(count, 0)]

    def find(self, request_id: str) -> Decision | None:
        """The newest decision for `request_id`, None when it is not (or no longer) here."""
        return next((d for d in self._newest_first() if d.request_id == request_id), None)

    def _shrink(self) -> None:
        """Forget the oldest until the rest fits."""
        while self.bytes > self._max_bytes:
            at = self._oldest
            self.bytes -= self._sizes[at]
            self._sizes[at] = 0
            self._decisions[at] = None
            self._oldest = (at + 1) % len(self._sizes)

    def _newest_first(self) -> list[Decision]:
        at = self._next
        slots = self._decisions.copy()
        return [d for d in (*reversed(slots[:at]), *reversed(slots[at:])) if d is not None]
