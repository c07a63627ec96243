# SPDX-License-Identifier: Apache-2.0
"""`utilization-detector`: how full the pool is, by queues and KV caches. Queues in requests, KV utilisation 0..1.

It judges by metrics pages, so by what is some milliseconds old. A page counts until it is older than the threshold, or
than an endpoint that is read as seldom as ours are now may well be: a slower pace does not make a pool look full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta

from epp.api import (
    BoolArray,
    Duration,
    Endpoints,
    FloatArray,
    InferenceRequest,
    Kind,
    PluginContext,
    Reads,
    parse_duration_s,
    plugin,
)


@plugin("utilization-detector", Kind.DETECTOR, Kind.FILTER, reads=Reads.WAITING | Reads.KV_UTILIZATION)
class UtilizationDetector:
    """The pool's saturation; in a profile, a filter that keeps the endpoints with room.

    Formula: mean over all endpoints of max(waiting / queueDepthThreshold, kv_utilization / kvCacheUtilThreshold).
    As a filter: waiting < queueDepthThreshold * (1 + headroom), the same for the KV cache, and the page is fresh; when
    that leaves nobody, everybody stays.
    Range: 0 and up; from 1 on the pool is saturated.
    Reads: requests waiting and KV utilisation, as scraped, and how old the page is.
    Cost: six array operations, O(n), only for requests that may be refused.
    Without data: an endpoint whose page is stale, or was never read, counts 1; so does a pool without endpoints.
    Origin: `utilization-detector` of GIE 1.5 and llm-d; older releases had its thresholds under `saturationDetector`
    and in the variables SD_QUEUE_DEPTH_THRESHOLD, SD_KV_CACHE_UTIL_THRESHOLD and SD_METRICS_STALENESS_THRESHOLD.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* queueDepthThreshold: waiting requests at which an endpoint is full
        * kvCacheUtilThreshold: share of the KV cache in use at which it is, above 0 and at most 1
        * metricsStalenessThreshold: age at which a page counts no more, as a Go duration; raised where pages are read
          more seldom than that
        * headroom: how far over the thresholds the filter lets an endpoint go, as a share of them
        """

        queueDepthThreshold: Annotated[int, Meta(ge=1)] = 5
        kvCacheUtilThreshold: Annotated[float, Meta(gt=0, le=1)] = 0.8
        metricsStalenessThreshold: Duration = "200ms"
        headroom: Annotated[float, Meta(ge=0)] = 0.0

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self.polled_within_s: Callable[[], float] = _no_pause
        """May be set to what tells how old the page of an endpoint may be that is read as it should be."""
        self._waiting = float(parameters.queueDepthThreshold)
        self._kv = parameters.kvCacheUtilThreshold
        self._staleness_s = parse_duration_s(parameters.metricsStalenessThreshold)
        self._headroom = 1.0 + parameters.headroom

    def saturation(self, endpoints: Endpoints) -> float:
        """The pool's saturation, 0 and up."""
        if not len(endpoints):
            return 1.0
        load: FloatArray = np.maximum(endpoints.waiting / self._waiting, endpoints.kv_utilization / self._kv)
        return float(np.where(self._fresh(endpoints), load, 1.0).mean())

    def filter(self, request: InferenceRequest, endpoints: Endpoints) -> BoolArray:
        """True for those with room, shape (n,); for all when there is none."""
        roomy: BoolArray = endpoints.waiting < self._waiting * self._headroom
        roomy = roomy & (endpoints.kv_utilization < self._kv * self._headroom) & self._fresh(endpoints)
        return roomy if roomy.any() else np.ones(len(endpoints), dtype=bool)

    def _fresh(self, endpoints: Endpoints) -> BoolArray:
        fresh: BoolArray = endpoints.age_s <= max(self._staleness_s, self.polled_within_s())
        return fresh


def _no_pause() -> float:
    return 0.0
