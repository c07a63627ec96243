# SPDX-License-Identifier: Apache-2.0
"""`running-requests-size-scorer`: prefer the smallest running batch. Relative to the candidates; units are requests."""

from __future__ import annotations

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, Reads, scorer


@scorer("running-requests-size-scorer", reads=Reads.RUNNING, any_parameters=True)
def running_requests(request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
    """Fewest running requests first, on a scale from the most to the fewest among the candidates.

    Formula: (max - running) / (max - min), max and min over the candidates that the filters left.
    Range: 0 to 1; 1 for all when the counts are equal, so also for a single candidate.
    Reads: requests running, as scraped.
    Cost: four array operations, O(n).
    Without data: an endpoint that was never scraped reads as idle and gets 1.
    Origin: `running-requests-size-scorer` of the Gateway API inference extension, since 1.3. It takes no parameters;
    any are ignored.
    """
    running = endpoints.running
    most = running.item(running.argmax())
    span = most - running.item(running.argmin())
    if span == 0:
        return np.ones(len(running))
    return (most - running) / span
