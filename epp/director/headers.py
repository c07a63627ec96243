# SPDX-License-Identifier: Apache-2.0
"""Names of headers and metadata by which Envoy, its neighbours and we understand each other."""

from __future__ import annotations

from collections.abc import Mapping

from epp.extproc import HeaderList

DESTINATION = "x-gateway-destination-endpoint"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
DROPPED_REASON = "x-llm-d-request-dropped-reason"
UPSTREAM_TIME = "x-envoy-upstream-service-time"
"""Envoy's router sets it on what an upstream answered, and not on what it answers itself."""
SHOW_BODIES = "set processing_mode.request_body_mode to FULL_DUPLEX_STREAMED or BUFFERED"
"""What to do where Envoy shows no request bodies."""
PLAIN_ANSWER = ("accept-encoding", b"identity")
"""Sent in the place of the client's where we have to read the answer. Leaving the header out would allow any coding
(RFC 9110, 12.5.3)."""
WENT_INTO_RESPONSE = (("x-went-into-resp-headers", b"true"),)
WORKER_HEADERS = frozenset(
    ("x-prefiller-host-port", "x-encoder-hosts-ports", "x-data-parallel-host-port", "x-kv-cache-source-host-port")
)
"""Addresses a worker would follow: a client's copy never reaches it. Removed from every request, seen or not: that
costs Envoy less than looking costs us."""
SYSTEM_HEADERS = WORKER_HEADERS | {
    DESTINATION, f"{DESTINATION}-subset", f"{DESTINATION}-served", f"{DESTINATION}-scores", DROPPED_REASON,
    "content-length", "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id",
    "x-llm-d-inference-objective", "x-gateway-inference-objective", "x-llm-d-model-name-rewrite",
    "x-gateway-model-name-rewrite", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms", "x-llm-d-slo-tpot-ms", "x-slo-tpot-ms",
    "x-llm-d-video-fps", "x-llm-d-video-duration-seconds", "x-llm-d-video-resolution",
}  # fmt: skip
"""Never echoed."""


def echo(headers: Mapping[str, str]) -> HeaderList:
    """All headers but the system's own, as the Go EPP sends them back."""
    return [
        (name, value.encode("utf-8", "surrogateescape"))
        for name, value in headers.items()
        if name not in SYSTEM_HEADERS
    ]
