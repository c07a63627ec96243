# SPDX-License-Identifier: Apache-2.0
"""The requests that nobody watches, found in every way in which their end can become known: by request id, by
endpoint, by age, and by the time at which something is due.

Every operation takes constant time, except a search among equal request ids, which clients may choose: that looks at
the oldest `MOST_ALIKE`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from epp.contract.decision import Decision
from epp.contract.plugins import DoneHook
from epp.contract.requests import InferenceRequest
from epp.endpoints.lease import Lease
from epp.observe.recorder import Record, Series
from epp.scheduling.guard import Guarded

TICK_S = 0.1
"""What is due is noticed up to this much later."""
MOST_ALIKE = 1024


class Held:
    """One unwatched request and what it holds. Times are the clock's seconds.

    * hooks, record, series: who is told of its end; status, first_byte_s: as far as its response was seen
    * since_s: when it was held; estimated_s, backstop_s: when it is released if nobody says before that it ended
    """

    __slots__ = (
        "_bucket", "backstop_s", "begun", "decision", "estimated_s", "first_byte_s", "hooks", "lease", "record",
        "request", "series", "since_s", "status", "streaming",
    )  # fmt: skip

    def __init__(
        self,
        request: InferenceRequest,
        decision: Decision,
        lease: Lease,
        hooks: Sequence[Guarded[DoneHook]],
        record: Record | None,
        series: Series | None,
        *,
        streaming: bool,
        status: int | None = None,
        first_byte_s: float | None = None,
    ) -> None:
        self.request = request
        self.decision = decision
        self.lease = lease
        self.hooks = hooks
        self.record = record
        self.series = series
        self.streaming = streaming
        self.status = status
        self.first_byte_s = first_byte_s
        self.since_s = self.estimated_s = self.backstop_s = 0.0
        self.begun = False
        self._bucket = -1

    @property
    def generation(self) -> int:
        """Of the endpoint that serves it: unique, and never used again."""
        return self.lease.endpoint.generation


class HeldTable:
    """All of them. `put` adds, `move` changes when it is due, `remove` is the way out."""

    def __init__(self) -> None:
        self._all: OrderedDict[Held, None] = OrderedDict()
        self._by_id: dict[str, OrderedDict[Held, None]] = {}
        self._by_generation: dict[int, OrderedDict[Held, None]] = {}
        self._buckets: dict[int, dict[Held, None]] = {}
        self._next_bucket = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Held]:
        """The oldest first."""
        return iter(self._all)

    def __contains__(self, held: Held) -> bool:
        return held in self._all

    def put(self, held: Held, now_s: float, due_s: float) -> None:
        """Add it."""
        if not self._all:
            self._next_bucket = int(now_s / TICK_S)
        self._all[held] = None
        self._by_id.setdefault(held.request.request_id, OrderedDict())[held] = None
        self._by_generation.setdefault(held.generation, OrderedDict())[held] = None
        self._file(held, due_s)

    def move(self, held: Held, due_s: float) -> None:
        """It is due at another time."""
        self._unfile(held)
        self._file(held, due_s)

    def remove(self, held: Held) -> None:
        """Forget it."""
        del self._all[held]
        alike = self._by_id[held.request.request_id]
        del alike[held]
        if not alike:
            del self._by_id[held.request.request_id]
        together = self._by_generation[held.generation]
        del together[held]
        if not together:
            del self._by_generation[held.generation]
        self._unfile(held)

    def due(self, now_s: float) -> list[Held]:
        """Those whose time has come. They stay in the table, and are due no more until they are moved."""
        found: list[Held] = []
        last = int(now_s / TICK_S)
        for bucket in range(self._next_bucket, last + 1):
            found.extend(self._buckets.pop(bucket, ()))
        self._next_bucket = max(self._next_bucket, last + 1)
        return found

    def find(self, request_id: str, address: str, is_endpoint: Callable[[str], bool]) -> Held | None:
        """The oldest with this request id on the endpoint at `address`.

        An address that belongs to no endpoint (none, or a proxy's on the way) does not tell them apart.
        """
        alike = self._by_id.get(request_id)
        if alike is None:
            return None
        for held in islice(alike, MOST_ALIKE):
            if held.lease.endpoint.address == address:
                return held
        return None if address and is_endpoint(address) else next(iter(alike))

    def oldest(self) -> Held | None:
        """The one that was put first."""
        return next(iter(self._all), None)

    def on(self, generation: int) -> OrderedDict[Held, None]:
        """Those on one endpoint, the oldest first."""
        return self._by_generation.get(generation) or OrderedDict()

    def _file(self, held: Held, due_s: float) -> None:
        held._bucket = bucket = max(int(due_s / TICK_S) + 1, self._next_bucket)
        self._buckets.setdefault(bucket, {})[held] = None

    def _unfile(self, held: Held) -> None:
        bucket = self._buckets.get(held._bucket)
        if bucket is not None:
            bucket.pop(held, None)
            if not bucket:
                del self._buckets[held._bucket]
