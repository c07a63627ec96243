# SPDX-License-Identifier: Apache-2.0
"""Real Envoy with the rate limit filter as Envoy Gateway configures it for the tutorials' policy, and a model server
behind it that says what a request cost.

The cost gets into dynamic metadata by Envoy's own header_to_metadata filter, so that nothing of ours but the rate limit
service is in the chain.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.e2e.stack import PATIENCE_S, Envoy, connection_manager, envoy

DOMAIN = "kserve-test/ai-gateway/http"
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
ROUTE = "kserve-test/qwen/rule/0"
_TYPES = "type.googleapis.com/envoy.extensions.filters.http"

POLICY = f"""\
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata:
  name: model-specific-token-limit-policy
  namespace: kserve-test
spec:
  targetRefs:
    - name: ai-gateway
      kind: Gateway
      group: gateway.networking.k8s.io
  rateLimit:
    type: Global
    global:
      rules:
        - clientSelectors:
            - headers:
                - name: x-user-id
                  type: Distinct
                - name: x-ai-eg-model
                  type: Exact
                  value: {MODEL}
          limit:
            requests: 1000
            unit: Hour
          cost:
            request:
              from: Number
              number: 0
            response:
              from: Metadata
              metadata:
                namespace: io.envoy.ai_gateway
                key: llm_total_token
"""


def _actions() -> list[dict[str, Any]]:
    matched = {"name": "x-ai-eg-model", "string_match": {"exact": MODEL}}
    return [
        {"generic_key": {"descriptor_key": "route", "descriptor_value": ROUTE}},
        {"request_headers": {"header_name": "x-user-id", "descriptor_key": "rule-0-match-0"}},
        {
            "header_value_match": {
                "descriptor_key": "rule-0-match-1",
                "descriptor_value": "rule-0-match-1",
                "headers": [matched],
            }
        },
    ]


def _adapt(document: dict[str, Any], service_port: int, upstream_port: int) -> None:
    manager = connection_manager(document)
    manager["http_filters"] = [
        {
            "name": "envoy.filters.http.header_to_metadata",
            "typed_config": {
                "@type": f"{_TYPES}.header_to_metadata.v3.Config",
                "response_rules": [
                    {
                        "header": "x-cost",
                        "on_header_present": {
                            "metadata_namespace": "io.envoy.ai_gateway",
                            "key": "llm_total_token",
                            "type": "NUMBER",
                        },
                    }
                ],
            },
        },
        {
            "name": "envoy.filters.http.ratelimit",
            "typed_config": {
                "@type": f"{_TYPES}.ratelimit.v3.RateLimit",
                "domain": DOMAIN,
                "timeout": "2s",
                "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
                "rate_limit_service": {
                    "transport_api_version": "V3",
                    "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimit_cluster"}, "timeout": "2s"},
                },
            },
        },
        manager["http_filters"][-1],
    ]
    [host] = manager["route_config"]["virtual_hosts"]
    [route] = host["routes"]
    cost = "%DYNAMIC_METADATA(io.envoy.ai_gateway:llm_total_token)%"
    route["typed_per_filter_config"] = {
        "envoy.filters.http.ratelimit": {
            "@type": f"{_TYPES}.ratelimit.v3.RateLimitPerRoute",
            "domain": DOMAIN,
            "rate_limits": [
                {"actions": _actions(), "hits_addend": {"number": 0}},
                {"actions": _actions(), "hits_addend": {"format": cost}, "apply_on_stream_done": True},
            ],
        }
    }
    resources = document["static_resources"]
    http2 = resources["clusters"][1]["typed_extension_protocol_options"]
    resources["clusters"] = [
        _cluster("pool", upstream_port),
        _cluster("ratelimit_cluster", service_port) | {"typed_extension_protocol_options": http2},
    ]


def _cluster(name: str, port: int) -> dict[str, Any]:
    place = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": place}]}]},
    }


class _Model(BaseHTTPRequestHandler):
    """Answers every request; its cost is what the request's header `cost` asks for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if "cost" in self.headers:
            self.send_header("x-cost", self.headers["cost"])
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Not an event."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Gateway:
    """Envoy, from a client's side."""

    def __init__(self, part: Envoy) -> None:
        self._part = part

    def get(self, user: str | None = "alice", cost: int | str | None = None, model: str = MODEL) -> Answer:
        """One request of `user`, that costs so much in the end."""
        headers = {"x-ai-eg-model": model}
        if user is not None:
            headers["x-user-id"] = user
        if cost is not None:
            headers["cost"] = str(cost)
        connection = http.client.HTTPConnection("127.0.0.1", self._part.port, timeout=PATIENCE_S)
        try:
            connection.request("GET", "/v1/models", headers=headers)
            answer = connection.getresponse()
            return Answer(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()


@contextlib.contextmanager
def gateway(service_port: int) -> Iterator[Gateway]:
    """Envoy and a model server, in front of the rate limit service on `service_port`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Model)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        with envoy(1, adapt=lambda document: _adapt(document, service_port, server.server_port)) as part:
            yield Gateway(part)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
