# SPDX-License-Identifier: Apache-2.0
"""`kv-cache-utilization-scorer`: prefer free KV cache. Absolute, not relative to the candidates."""

from __future__ import annotations

from epp.api import Endpoints, FloatArray, InferenceRequest, Reads, scorer


@scorer("kv-cache-utilization-scorer", aliases=("kv-cache-scorer",), reads=Reads.KV_UTILIZATION, any_parameters=True)
def kv_cache_utilization(request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
    """The free share of the KV cache.

    Formula: 1 - kv_utilization.
    Range: 0 to 1; an endpoint that reports more than 1 goes below 0, which the scheduler limits to 0.
    Reads: KV cache utilization, 0 to 1, as scraped.
    Cost: one array operation, O(n).
    Without data: an endpoint that was never scraped reads as empty and gets 1.
    Origin: `kv-cache-utilization-scorer` of the Gateway API inference extension, called `kv-cache-scorer` in 0.5. It
    takes no parameters; any are ignored.
    """
    return 1.0 - endpoints.kv_utilization
