# SPDX-License-Identifier: Apache-2.0
"""`load-aware-scorer`: prefer short queues on an absolute scale; units are requests.

It never says more than 0.5, so it moves a total by half its weight at most; `queue-scorer` uses the whole weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, PluginContext, Reads, scorer

DEFAULT_THRESHOLD = 128


@scorer("load-aware-scorer", reads=Reads.WAITING)
class LoadAwareScorer:
    """Half a point for an empty queue, less for each waiting request, nothing from the threshold on.

    Formula: 0.5 * (1 - min(waiting, threshold) / threshold).
    Range: 0 to 0.5.
    Reads: requests waiting, as scraped.
    Cost: four array operations, O(n).
    Without data: an endpoint that was never scraped reads as an empty queue and gets 0.5.
    Origin: `load-aware-scorer` of llm-d, since 0.2.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* threshold: waiting requests from which the score is 0; zero and less mean 128."""

        threshold: int = DEFAULT_THRESHOLD

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._threshold = float(parameters.threshold if parameters.threshold > 0 else DEFAULT_THRESHOLD)

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        """0 to 0.5 per candidate, shape (n,)."""
        capped: FloatArray = np.minimum(endpoints.waiting, self._threshold)
        return 0.5 * (1.0 - capped / self._threshold)
