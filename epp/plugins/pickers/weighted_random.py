# SPDX-License-Identifier: Apache-2.0
"""`weighted-random-picker`: chance in proportion to the totals, so that the best endpoint is not the only one used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, IntArray, PluginContext, picker

# What a total of 0 or less counts as. Next to any real total its chance is nil, and among themselves such candidates
# are equal. Dividing by less would overflow.
LEAST_TOTAL = 1e-300


@picker("weighted-random-picker")
class WeightedRandomPicker:
    """Weighted sampling without replacement (algorithm A-Res of Efraimidis and Spirakis).

    Formula: the `maxNumOfEndpoints` largest keys U^(1/total), U uniform in (0, 1). A total of 0 or less has key 0, and
    chance orders those. The first pick is a candidate with probability total / sum of the positive totals. Computed
    as the smallest -ln(U) / total, which is the same order without underflow.
    Range: 1 to `maxNumOfEndpoints` candidates, the largest key first.
    Reads: the totals.
    Cost: one draw for each candidate, O(n) for one endpoint, O(n log n) for more.
    Without data: every total is 0 or less, and the choice is uniform, as by `random-picker`.
    Origin: `weighted-random-picker` of the Gateway API inference extension, since 1.0; Efraimidis and Spirakis,
    "Weighted random sampling with a reservoir", Information Processing Letters 97 (2006).
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* maxNumOfEndpoints: how many to pick, for fallback in Envoy; zero and less mean 1."""

        maxNumOfEndpoints: int = 1

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._count = max(1, parameters.maxNumOfEndpoints)
        self._vectors = np.random.default_rng(context.rng.getrandbits(64))

    def pick(self, request: InferenceRequest, endpoints: Endpoints, total: FloatArray) -> IntArray:
        """Positions of the picked candidates, the preferred first."""
        waits: FloatArray = self._vectors.standard_exponential(len(total)) / np.fmax(total, LEAST_TOTAL)
        if self._count == 1:
            first = int(waits.argmin())
            return np.array([first], dtype=np.int64)
        return waits.argsort()[: self._count]
