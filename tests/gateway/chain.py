# SPDX-License-Identifier: Apache-2.0
"""Real Envoy with the gateway process before simulated pods: a listener as a gateway for models has, by hand.

Models `pooled` and `plain` are served by pods of their own, `hidden` by the second one. Every request leaves a line in
Envoy's access log: its id, its route, and the costs that the gateway wrote.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.stack import PATIENCE_S, Envoy, Part, _find_ports, envoy_binary

TYPES = "type.googleapis.com/envoy.extensions"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
NAMESPACE = "io.envoy.ai_gateway"
COSTS = [
    {"metadataKey": f"llm_{name.lower()}_token", "type": f"{name}Token"} for name in ("Input", "Output", "Total")
]  # fmt: skip
LIMIT_BYTES = 6_000_000
CONFIG: dict[str, Any] = {
    "listeners": {
        "80": {
            "models": {
                "pooled": {"target": "pool", "name": "test/pool"},
                "plain": {"target": "backend", "name": "test/b", "counts": True, "costs": COSTS},
                "hidden": {"target": "backend", "counts": True, "costs": COSTS, "includeUsage": "hidden"},
            }
        }
    },
    "bodyLimitBytes": LIMIT_BYTES,
}


class GatewayPart(Part):
    """`epp gateway`, serving."""

    port = metrics_port = 0

    def listening(self) -> GatewayPart:
        """Wait until it serves, and learn its ports."""
        words = self.wait(lambda line: "serving ext_proc on port" in line and json.loads(line)["msg"]).split()
        self.port = int(words[words.index("port") + 1])
        self.metrics_port = int(words[words.index("metrics") + 2].rstrip(";"))
        return self

    def page(self) -> str:
        """The metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=PATIENCE_S) as answer:
            text: str = answer.read().decode()
        return text


@contextlib.contextmanager
def gateway(config: Path, port: int = 0, *flags: str) -> Iterator[GatewayPart]:
    """The process."""
    fixed = ["--config", str(config), "--port", str(port), "--metrics-port", "0", "--drain-timeout", "0s"]
    part = GatewayPart([sys.executable, "-m", "epp", "gateway", *fixed, *flags])
    try:
        yield part.listening()
    finally:
        part.stop()


@contextlib.contextmanager
def pod(*models: str) -> Iterator[int]:
    """A simulated pod; its port."""
    named = [word for model in models for word in ("--model", model)]
    flags = ["--port", "0", "--speed", "1000", "--output-tokens", "20", "--max-model-len", "8000000"]
    part = Part([sys.executable, "-m", "epp", "sim-pod", *flags, "--num-gpu-blocks", "1000000", *named])
    try:
        yield int(
            part.wait(lambda line: line.rpartition(":")[2].split("/")[0].split()[0] if "127.0.0.1:" in line else "")
        )
    finally:
        part.stop()


def books(port: int) -> dict[str, Any]:
    """What a pod counted, once nothing is open there."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/sim/state", timeout=PATIENCE_S) as answer:
            told: dict[str, Any] = json.load(answer)["requests"]
        if not told["open"]:
            return told
        assert time.monotonic() < deadline_s, told
        time.sleep(0.02)


@dataclass
class Chain:
    """All of it."""

    port: int
    gateway_port: int
    pooled_port: int
    plain_port: int
    log: Path
    admin_port: int

    def entry(self, request_id: str) -> dict[str, Any]:
        """The access log's line of one request."""
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            for line in self.log.read_text().splitlines():
                if f'"{request_id}"' in line:
                    entry: dict[str, Any] = json.loads(line)
                    return entry
            assert time.monotonic() < deadline_s, self.log.read_text()
            time.sleep(0.02)


def _cluster(name: str, port: int, protocol: str = "http_protocol_options") -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    options = {"@type": f"type.googleapis.com/{HTTP_OPTIONS}", "explicit_http_config": {protocol: {}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}
    return {
        "name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": assignment,
        "typed_extension_protocol_options": {HTTP_OPTIONS: options},
    }  # fmt: skip


def bootstrap(gateway_port: int, pooled_port: int, plain_port: int, log: Path, listener: str = "80") -> dict[str, Any]:
    """Envoy's bootstrap."""

    def route(model: str, cluster: str) -> dict[str, Any]:
        header = {"name": "x-ai-eg-model", "string_match": {"exact": model}}
        return {"name": model, "match": {"prefix": "/", "headers": [header]}, "route": {"cluster": cluster}}

    told = {
        key: f"%DYNAMIC_METADATA({NAMESPACE}:{key})%"
        for key in ("llm_input_token", "llm_output_token", "llm_total_token")
    }
    format_ = {"id": "%REQ(X-REQUEST-ID)%", "route": "%ROUTE_NAME%", "status": "%RESPONSE_CODE%", **told}
    processor = {
        "@type": f"{TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": "gateway"},
            "initial_metadata": [{"key": "x-epp-listener", "value": listener}],
        },
        "message_timeout": "10s",
        "processing_mode": {
            "request_header_mode": "SEND", "request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND",
            "response_header_mode": "SEND", "response_body_mode": "STREAMED", "response_trailer_mode": "SEND",
        },
        "metadata_options": {"receiving_namespaces": {"untyped": [NAMESPACE]}},
    }  # fmt: skip
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "models",
        "preserve_external_request_id": True,
        "access_log": [{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": f"{TYPES}.access_loggers.file.v3.FileAccessLog", "path": str(log),
                "log_format": {"json_format": format_},
            },
        }],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [
                route("pooled", "pooled"), route("plain", "plain"), route("hidden", "plain"),
                {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": {"inline_string": "No matching route found."}}},
            ],
        }]},
        "http_filters": [
            {"name": "envoy.filters.http.ext_proc", "typed_config": processor},
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"}},
        ],
    }  # fmt: skip
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [{
                "name": "models",
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "per_connection_buffer_limit_bytes": 32 * 1024,
                "filter_chains": [{"filters": [
                    {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
                ]}],
            }],
            "clusters": [
                _cluster("gateway", gateway_port, "http2_protocol_options"),
                _cluster("pooled", pooled_port), _cluster("plain", plain_port),
            ],
        },
    }  # fmt: skip


@contextlib.contextmanager
def chain(folder: Path, gateway_port: int) -> Iterator[Chain]:
    """Pods and Envoy in front of the gateway process on `gateway_port`."""
    log, told, config_file = folder / "access.log", folder / "admin", folder / "bootstrap.json"
    log.touch()
    binary = envoy_binary()
    assert binary is not None
    with pod("pooled") as pooled_port, pod("plain", "hidden") as plain_port:
        config_file.write_text(json.dumps(bootstrap(gateway_port, pooled_port, plain_port, log)))
        options = [
            "--concurrency",
            "1",
            "--log-level",
            "error",
            "--disable-hot-restart",
            "--file-flush-interval-msec",
            "50",
        ]
        envoy = Envoy([str(binary), "--config-path", str(config_file), "--admin-address-path", str(told), *options])
        try:
            _find_ports(envoy, told)
            yield Chain(envoy.port, gateway_port, pooled_port, plain_port, log, envoy.admin_port)
        finally:
            envoy.stop()
