# SPDX-License-Identifier: Apache-2.0
"""`destination-endpoint-served-verifier`: tells the client which endpoint Envoy says has answered. For conformance
tests of gateways only: it shows addresses of the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epp.api import Decision, InferenceRequest, PluginContext, Reads, ResponseHead, plugin

NAMESPACE = "envoy.lb"
SERVED = "x-gateway-destination-endpoint-served"
SERVED_HEADER = "x-conformance-test-served-endpoint"
SELECTED_HEADER = "x-conformance-test-selected-endpoint"
POOL_HEADER = "x-conformance-test-epp-pool"


@plugin("destination-endpoint-served-verifier", reads=Reads.RESPONSE_HEADERS)
class DestinationEndpointServedVerifier:
    """Writes the metadata of the endpoint that answered into the response.

    Formula: `x-conformance-test-served-endpoint` is `envoy.lb` / `x-gateway-destination-endpoint-served` of the
    metadata that comes with the response's headers; `x-conformance-test-selected-endpoint` is the endpoint that was
    chosen; `x-conformance-test-epp-pool` is `pool`, where it is given.
    Range: one to three response headers.
    Reads: the response's metadata.
    Cost: O(1), and reading the metadata of every response.
    Without data: the first header says `fail: missing envoy lb metadata` or `fail: missing destination endpoint served
    metadata`.
    Origin: `destination-endpoint-served-verifier` of the Gateway API inference extension, which sets the first header;
    its test picker (lwepp) sets all three.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* pool: name of the pool, for the third header; empty: none"""

        pool: str = ""

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        self._pool = parameters.pool

    def on_response_headers(
        self, request: InferenceRequest, decision: Decision, response: ResponseHead
    ) -> Mapping[str, str]:
        """The headers for this response."""
        headers = {SERVED_HEADER: _served(response.metadata), SELECTED_HEADER: decision.target.address}
        if self._pool:
            headers[POOL_HEADER] = self._pool
        return headers


def _served(metadata: Mapping[str, Mapping[str, Any]]) -> str:
    if NAMESPACE not in metadata:
        return "fail: missing envoy lb metadata"
    served = metadata[NAMESPACE].get(SERVED)
    return served if isinstance(served, str) else "fail: missing destination endpoint served metadata"
