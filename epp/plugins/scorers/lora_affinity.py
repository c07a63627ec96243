# SPDX-License-Identifier: Apache-2.0
"""`lora-affinity-scorer`: prefer endpoints that already run the request's LoRA adapter, then those with room for it."""

from __future__ import annotations

import numpy as np

from epp.api import Endpoints, FloatArray, InferenceRequest, Reads, scorer

RUNNING, ROOM, WAITING = 1.0, 0.8, 0.6


@scorer("lora-affinity-scorer", reads=Reads.LORA, any_parameters=True)
def lora_affinity(request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
    """Endpoints where the adapter runs first, then those with room for one more, then those where it waits.

    Formula: the first that is true of: the adapter runs there, 1.0; fewer adapters are in use than fit, 0.8; requests
    for the adapter wait there, 0.6; otherwise 0.0. The adapter is the model the endpoint is asked for.
    Range: 0 to 1, four values.
    Reads: names of running and waiting adapters, how many are in use and how many fit, as scraped.
    Cost: two look-ups by name and about six array operations, O(n), whatever the number of adapters.
    Without data: an endpoint whose page says nothing of adapters gets 0.
    Origin: `lora-affinity-scorer` of the Gateway API inference extension, since 1.0. It takes no parameters; any are
    ignored. An adapter that is running and waiting takes one place here; there it is counted twice.
    """
    adapter = request.target_model
    scores = np.where(endpoints.awaits_adapter(adapter), WAITING, 0.0)
    scores[endpoints.lora_adapters < endpoints.max_lora_adapters] = ROOM
    scores[endpoints.runs_adapter(adapter)] = RUNNING
    return scores
