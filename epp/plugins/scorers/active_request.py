# SPDX-License-Identifier: Apache-2.0
"""`active-request-scorer`: prefer endpoints that hold few of the requests we sent. Needs no metrics page.

The count is exact and current: a request is in flight from the decision to the end of its response.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, PluginContext, Reads, scorer

DEFAULT_MAX_BUSY_SCORE = 1.0


@scorer("active-request-scorer", reads=Reads.IN_FLIGHT)
class ActiveRequestScorer:
    """1 for idle endpoints; the others on a scale from the busiest candidate up to `maxBusyScore`.

    Formula: 1 where in_flight <= idleThreshold, else (max - in_flight) / max * maxBusyScore, max over the candidates
    that the filters left.
    Range: 0 to 1; the busiest candidate gets 0 unless it counts as idle.
    Reads: requests in flight, as counted here.
    Cost: five array operations, O(n).
    Without data: there is always a count; an endpoint that was sent nothing gets 1.
    Origin: `active-request-scorer` of llm-d, since 0.3, as of 0.10. Earlier releases took max over the whole pool,
    counted a request as ended at its response headers, and 0.7 and 0.8 read an absent `maxBusyScore` as 0.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* idleThreshold: requests in flight up to which an endpoint counts as idle; below 0 means 0.
        * maxBusyScore: what a busy endpoint can reach, 0 to 1; outside of that it means 1.
        * requestTimeout: of earlier releases; accepted, without effect, as the end of a request is always seen.
        * inFlightLoadProducerName: accepted, without effect, as there is one count of what is in flight.
        """

        idleThreshold: int = 0
        maxBusyScore: float = DEFAULT_MAX_BUSY_SCORE
        requestTimeout: str = ""
        inFlightLoadProducerName: str = ""

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._idle = max(0, parameters.idleThreshold)
        in_range = 0.0 <= parameters.maxBusyScore <= 1.0
        self._max_busy_score = parameters.maxBusyScore if in_range else DEFAULT_MAX_BUSY_SCORE

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        """0 to 1 per candidate, shape (n,)."""
        in_flight = endpoints.in_flight_requests
        busiest = in_flight.item(in_flight.argmax())
        if busiest <= self._idle:
            return np.ones(len(in_flight))
        scores: FloatArray = (busiest - in_flight) / busiest * self._max_busy_score
        scores[in_flight <= self._idle] = 1.0
        return scores
