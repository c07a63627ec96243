# SPDX-License-Identifier: Apache-2.0
"""Gauges of the pool, computed from its columns when somebody scrapes. Only endpoints that may be chosen, with fresh
values, count; in flight are all requests of all endpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from epp.contract.endpoints import Clock, Columns, FloatArray
from epp.observe.metrics import families
from epp.observe.metrics.families import Family
from epp.observe.metrics.rows import FamilyCollector, Row

_STATISTICS: tuple[tuple[str, Family, Family], ...] = (
    ("kv_utilization", families.POOL_KV, families.POOL_KV_DEVIATION),
    ("waiting", families.POOL_QUEUE, families.POOL_QUEUE_DEVIATION),
    ("running", families.POOL_RUNNING, families.POOL_RUNNING_DEVIATION),
)


class PoolCollector(FamilyCollector):
    """Means and deviations over the fresh endpoints, how many there are, and each one's queue.

    * columns: gives the pool's table; clock: the clock of its `scraped_at_s`
    * staleness_s: an endpoint whose last good scrape is older does not count
    * pool_name: the label `name`

    `idle_interval_s` may be set to how rarely idle endpoints are asked: their values are fresh for so much longer.
    """

    def __init__(self, columns: Callable[[], Columns], clock: Clock, staleness_s: float, pool_name: str) -> None:
        self._columns = columns
        self._clock = clock
        self._staleness_s = staleness_s
        self._labels = {"name": pool_name}
        self.idle_interval_s = 0.0

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """The gauges, rounded to two decimals as in the Go EPP."""
        table = self._columns()
        # The writer lengthens the columns before it publishes new endpoints, so this tuple is never the longer one.
        endpoints = table.endpoints
        known = np.array([endpoint is not None for endpoint in endpoints], dtype=bool)
        ready_ones = known & ~np.isin(np.arange(len(endpoints)), list(table.unready))
        scraped_at_s = table.scraped_at_s[: len(endpoints)]
        age_s = self._clock() - scraped_at_s
        fresh = np.flatnonzero(ready_ones & (age_s <= self._staleness_s + self.idle_interval_s))
        for name, mean, deviation in _STATISTICS:
            values: FloatArray = getattr(table, name)[fresh]
            yield mean, self._gauge(values.mean() if len(values) else 0.0)
            yield deviation, self._gauge(values.std() if len(values) else 0.0)
        yield families.POOL_READY, self._gauge(len(fresh))
        rows_known = np.flatnonzero(known)
        yield families.IN_FLIGHT_REQUESTS, self._gauge(table.in_flight_requests[rows_known].sum())
        yield families.IN_FLIGHT_TOKENS, self._gauge(table.in_flight_tokens[rows_known].sum())
        ready = [endpoint for row in fresh.tolist() if (endpoint := endpoints[row]) is not None]
        names = Counter(endpoint.name for endpoint in ready)
        rows: list[Row] = []
        for endpoint, waiting in zip(ready, table.waiting[fresh].tolist(), strict=True):
            # Two namespaces may hold the same name, and no two samples may have the same labels.
            label = endpoint.name if names[endpoint.name] == 1 else endpoint.id
            rows.append(({**self._labels, "model_server_endpoint": label}, waiting))
        yield families.ENDPOINT_QUEUE, rows

    def _gauge(self, value: float) -> list[Row]:
        return [(self._labels, round(float(value), 2))]
