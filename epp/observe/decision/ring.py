# SPDX-License-Identifier: Apache-2.0
"""The last decisions, for the debug endpoint: bounded in number and in memory.

Memory is an estimate made of array sizes and string lengths; what decisions share with the pool
(endpoints, columns) is not counted. Slots are added as they are needed and each is replaced in one step, so another
thread may read while the event loop adds: it sees a record whole or not at all, and puts them in order by their
numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from operator import attrgetter

from epp.contract.decision import Decision
from epp.contract.endpoints import Endpoint
from epp.observe.decision.record import Record
from epp.observe.log.limited import limited

MAX_RECORDS = 10_000
MAX_BYTES = 16 << 20

# CPython object sizes, rounded up: a record with its numbers, its decision, the decision's dictionary, the heads of
# its strings and of the snapshot's array, and how the request ended; a profile's result with its candidate set and the
# heads of its arrays; a trace with the head of its array.
_RECORD_BYTES = 1_400
_RESULT_BYTES = 500
_TRACE_BYTES = 200
_ROW_BYTES = 8

_number = attrgetter("number")


def estimate_bytes(record: Record) -> int:
    """About what `record` keeps in memory."""
    decision = record.decision
    size = _RECORD_BYTES + _text_bytes(decision)
    if decision.known is not None:
        size += decision.known.table.nbytes
    for result in decision.results.values():
        scorers = len(result.scores)
        # The rows, the totals and each scorer's values have one number per candidate.
        size += _RESULT_BYTES + scorers * _TRACE_BYTES + (scorers + 2) * len(result.total) * _ROW_BYTES
        for trace in result.filters:
            size += _TRACE_BYTES + len(trace.dropped_rows) * _ROW_BYTES
    return size


def _text_bytes(decision: Decision) -> int:
    return len(decision.request_id) + len(decision.model) + len(decision.target_model)


class DecisionRing:
    """At most `max_records` records of at most about `max_bytes`; the oldest leave first.

    A record that is larger than `max_bytes` alone is not kept. `added` counts all there ever were. Rings that share
    `numbers` number their records together.
    """

    __slots__ = (
        "_identities", "_max_bytes", "_max_records", "_next", "_numbers", "_oldest", "_records", "_sizes", "added",
        "bytes",
    )  # fmt: skip

    def __init__(
        self, max_records: int = MAX_RECORDS, max_bytes: int = MAX_BYTES, numbers: Iterator[int] | None = None
    ) -> None:
        self._records: list[Record | None] = []
        self._sizes: list[int] = []
        self._numbers = numbers or count(1)
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._identities: tuple[Endpoint | None, ...] = ()
        self._next = 0
        self._oldest = 0
        self.added = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._newest_first())

    def add(self, record: Record) -> None:
        """Remember `record` and give it its number."""
        self.added += 1
        record.number = next(self._numbers)
        size = estimate_bytes(record)
        decision = record.decision
        identities = decision.results[decision.primary].endpoints.identities
        if identities is not self._identities:
            # Decisions share the pool's membership until it changes; the first one of each membership pays for it.
            self._identities = identities
            size += len(identities) * _ROW_BYTES
        if size > self._max_bytes:
            return
        at = self._next
        following = at + 1 if at + 1 < self._max_records else 0
        if at == len(self._sizes):
            self._sizes.append(0)
            self._records.append(None)
        replaced = self._sizes[at]
        if replaced:
            self._oldest = following
        self._records[at] = record
        self._sizes[at] = size
        self._next = following
        self.bytes += size - replaced
        if self.bytes > self._max_bytes:
            self._shrink()

    def clear(self) -> None:
        """Forget all records."""
        self._records, self._sizes, self._identities = [], [], ()
        self._next = self._oldest = self.bytes = 0

    def last(self, count: int) -> list[Record]:
        """Up to `count` records, the newest first. May be called from any thread, as `find`."""
        return self._newest_first()[: max(count, 0)]

    def find(self, request_id: str, count: int = 1) -> list[Record]:
        """Up to `count` records for `request_id`, the newest first; none when it is not (or no longer) here."""
        kept = limited(request_id)
        return [r for r in self._newest_first() if r.decision.request_id == kept][:count]

    def _shrink(self) -> None:
        """Forget the oldest until the rest fits."""
        while self.bytes > self._max_bytes:
            at = self._oldest
            self.bytes -= self._sizes[at]
            self._sizes[at] = 0
            self._records[at] = None
            self._oldest = (at + 1) % self._max_records

    def _newest_first(self) -> list[Record]:
        # The copy is one step for other threads; its order around the place that is written next is not known.
        return sorted([r for r in self._records.copy() if r is not None], key=_number, reverse=True)
