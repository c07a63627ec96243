# SPDX-License-Identifier: Apache-2.0
"""`max-score-picker`: the best total wins.

Equal totals are common (no prefix is cached and all queues are empty), and a burst arrives before the next scrape
can tell. So ties go to the endpoint that holds the fewest of our requests, and chance decides only among those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, IntArray, PluginContext, Reads, picker


@picker("max-score-picker", reads=Reads.IN_FLIGHT)
class MaxScorePicker:
    """The highest totals; among equals the fewest requests in flight, then chance.

    Formula: sort by total (descending), requests in flight (ascending), a random number; take the first
    `maxNumOfEndpoints`. Totals are equal when the floats are.
    Range: 1 to `maxNumOfEndpoints` candidates, the preferred first.
    Reads: the totals; requests in flight, as counted here.
    Cost: three array operations, O(n), for one endpoint; a sort for more.
    Without data: totals are equal, and the endpoint with the fewest requests in flight is picked.
    Origin: `max-score-picker` of the Gateway API inference extension, which breaks ties by chance alone.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* maxNumOfEndpoints: how many to pick, for fallback in Envoy; zero and less mean 1."""

        maxNumOfEndpoints: int = 1

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._count = max(1, parameters.maxNumOfEndpoints)
        self._rng = context.rng
        self._vectors = np.random.default_rng(context.rng.getrandbits(64))

    def pick(self, request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> IntArray:
        """Positions of the picked candidates, the preferred first."""
        if self._count == 1:
            return self._best(endpoints, total)
        order: IntArray = np.lexsort((self._vectors.random(len(total)), endpoints.in_flight_requests, -total))
        return order[: self._count]

    def _best(self, endpoints: Endpoints, total: FloatArray) -> IntArray:
        tied: IntArray = (total == total.item(total.argmax())).nonzero()[0]
        if len(tied) == 1:
            return tied
        in_flight = endpoints.in_flight_requests[tied]
        tied = tied[in_flight == in_flight.item(in_flight.argmin())]
        chosen = int(self._rng.random() * len(tied))
        return tied[chosen : chosen + 1]
