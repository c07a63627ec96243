# SPDX-License-Identifier: Apache-2.0
"""What pages show of many pools: the decisions of all as one list, and what is counted of the pools themselves."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from operator import attrgetter

from epp.observe.decision.record import Record
from epp.observe.decision.ring import DecisionRing
from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.rows import FamilyCollector, Row
from epp.service.pools.pools import Pools
from epp.service.pools.unknown import UnknownPools

_POOLS = Family("gauge", "InferencePools that are served.", (Name("epp_pools", ()),))
_UNKNOWN = Family(
    "counter",
    "ext_proc streams answered with 503, as nothing told for which pool they were.",
    (Name("epp_unknown_pool_streams_total", ()),),
)
_number = attrgetter("number")


class AllDecisions:
    """The decisions of all rings that there are; their records are numbered together."""

    def __init__(self, rings: Callable[[], list[DecisionRing]]) -> None:
        self._rings = rings

    def __len__(self) -> int:
        return sum(map(len, self._rings()))

    @property
    def added(self) -> int:
        """How many there ever were, of the pools that are there."""
        return sum(ring.added for ring in self._rings())

    def last(self, count: int) -> list[Record]:
        """Up to `count`, the newest first."""
        return self._newest([ring.last(count) for ring in self._rings()], count)

    def find(self, request_id: str, count: int = 1) -> list[Record]:
        """Up to `count` for `request_id`, the newest first."""
        return self._newest([ring.find(request_id, count) for ring in self._rings()], count)

    def _newest(self, records: list[list[Record]], count: int) -> list[Record]:
        return list(heapq.merge(*records, key=_number, reverse=True))[:count]


class PoolsCollector(FamilyCollector):
    """Counts pools, and streams of none."""

    def __init__(self, pools: Pools, unknown: UnknownPools) -> None:
        self._pools = pools
        self._unknown = unknown

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Both, from the start."""
        yield _POOLS, [({}, float(len(self._pools.served())))]
        yield _UNKNOWN, [({}, float(self._unknown.streams))]
