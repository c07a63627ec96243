# SPDX-License-Identifier: Apache-2.0
"""`queue-scorer`: prefer the shortest queue. Relative to the candidates at hand; units are requests."""

from __future__ import annotations

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, Reads, scorer


@scorer("queue-scorer", reads=Reads.WAITING, any_parameters=True)
def queue(request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
    """Shortest queue first, on a scale from the longest to the shortest queue among the candidates.

    Formula: (max - waiting) / (max - min), max and min over the candidates that the filters left.
    Range: 0 to 1; 1 for all when the queues are equal, so also for a single candidate.
    Reads: requests waiting, as scraped.
    Cost: four array operations, O(n).
    Without data: an endpoint that was never scraped reads as an empty queue and gets 1.
    Origin: `queue-scorer` of the Gateway API inference extension, since 0.5. It takes no parameters; any are ignored.
    """
    waiting = endpoints.waiting
    longest = waiting.item(waiting.argmax())
    span = longest - waiting.item(waiting.argmin())
    if span == 0:
        return np.ones(len(waiting))
    return (longest - waiting) / span
