# SPDX-License-Identifier: Apache-2.0
"""Headers that only the gateway and its processors may set, and that are removed from what a client sends.

They go before any filter and before the first look at the routes, so nothing behind can take a client's word for the
gateway's. Not among them: `x-user-id`, which a policy counts by and whoever stands before this gateway vouches for; and
`authorization`, which is the client's own business until a key is injected: then it is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping

from epp.local.envoy import CONTROL_HEADERS

REMOVED_PREFIXES: Mapping[str, str] = {
    "x-ai-eg-": "the model and path that the gateway read from the request; routes and limits go by them",
    "x-envoy-": "Envoy's own orders to itself: timeouts, retries, the original path; it obeys them on loopback",
}
"""Beginning of the name -> why."""

REMOVED: Mapping[str, str] = {
    **dict.fromkeys(CONTROL_HEADERS, "an endpoint picker steers with it: which pod, which model name"),
    "x-llm-d-request-dropped-reason": "only an endpoint picker tells why it refused",
    "test-epp-endpoint-selection": "chooses the pod, in conformance tests of endpoint pickers",
}
"""Name -> why."""
