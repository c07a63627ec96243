# SPDX-License-Identifier: Apache-2.0
"""`random-picker`: every candidate is as likely as any other; scores play no part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, IntArray, PluginContext, picker


@picker("random-picker")
class RandomPicker:
    """A uniform draw without replacement.

    Formula: the first `maxNumOfEndpoints` of a random permutation of the candidates.
    Range: 1 to `maxNumOfEndpoints` candidates, in random order.
    Reads: nothing.
    Cost: O(maxNumOfEndpoints).
    Without data: no difference.
    Origin: `random-picker` of the Gateway API inference extension.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* maxNumOfEndpoints: how many to pick, for fallback in Envoy; zero and less mean 1."""

        maxNumOfEndpoints: int = 1

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._count = max(1, parameters.maxNumOfEndpoints)
        self._rng = context.rng

    def pick(self, request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> IntArray:
        """Positions of the picked candidates."""
        candidates = len(total)
        return np.array(self._rng.sample(range(candidates), min(self._count, candidates)), dtype=np.int64)
