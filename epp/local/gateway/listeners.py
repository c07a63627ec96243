# SPDX-License-Identifier: Apache-2.0
"""Where clients arrive: an Envoy listener for each port of the manifests, and its chain of filters.

    client's headers cleaned -> gateway ext_proc -> rate limits -> a pool's endpoint picker -> router

Listeners of several gateways that have one port share one, as several gateways of a cluster may share one address.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envoy_data_plane.envoy.config.common.mutation_rules import v3 as mutation
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.listener import v3 as listener
from envoy_data_plane.envoy.extensions.filters.http.router import v3 as router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as manager
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation import v3 as early
from envoy_data_plane.envoy.type.matcher import v3 as matcher

from epp.local.gateway.accesslog import access_log
from epp.local.gateway.captured import changed, copy_filter
from epp.local.gateway.clientheaders import REMOVED, REMOVED_PREFIXES
from epp.local.gateway.messages import BUFFER_BYTES, extension, http_filter, packed, seconds, socket
from epp.local.gateway.places import Places
from epp.local.gateway.processors import gateway_filter, picker_filters
from epp.local.gateway.ratelimits import ratelimit_filter
from epp.local.gateway.routes import route_configuration
from epp.manifests.topology import Listener, Topology

MAX_HEADERS_KB = 60
CLIENT_IDLE_S = 3600.0
HEADERS_TIMEOUT_S = 30.0


def listeners(topology: Topology, places: Places, log: Path | None = None) -> list[listener.Listener]:
    """All listeners. `log`: file for a JSON access log."""
    by_port: dict[int, list[Listener]] = {}
    for one in topology.listeners:
        by_port.setdefault(one.port, []).append(one)
    return [_listener(port, shared, topology, places, log) for port, shared in sorted(by_port.items())]


def _listener(
    port: int, shared: Sequence[Listener], topology: Topology, places: Places, log: Path | None
) -> listener.Listener:
    name = f"port-{port}"
    connections = packed(_connection_manager(name, shared, topology, limits=places.ratelimit is not None, log=log))
    network = listener.Filter(name="envoy.filters.network.http_connection_manager", typed_config=connections)
    return listener.Listener(
        name=name,
        address=socket(places.listeners[port]),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        # With it two Envoys could listen on one port, and each would get some of the other's requests.
        enable_reuse_port=False,
        filter_chains=[listener.FilterChain(filters=[network])],
    )


def _connection_manager(
    name: str, shared: Sequence[Listener], topology: Topology, *, limits: bool, log: Path | None
) -> manager.HttpConnectionManager:
    return manager.HttpConnectionManager(
        stat_prefix=name,
        route_config=route_configuration(name, shared, topology),
        http_filters=_filters(shared, topology, limits),
        early_header_mutation_extensions=[_clean_headers()],
        access_log=[] if log is None else [access_log(log)],
        # A generation may be silent for minutes; only connections that nobody uses are closed.
        stream_idle_timeout=seconds(0),
        request_timeout=seconds(0),
        request_headers_timeout=seconds(HEADERS_TIMEOUT_S),
        common_http_protocol_options=core.HttpProtocolOptions(
            idle_timeout=seconds(CLIENT_IDLE_S),
            # Servers that turn `-` into `_` would take one for the other.
            headers_with_underscores_action=core.HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
        ),
        http2_protocol_options=core.Http2ProtocolOptions(
            max_concurrent_streams=100, initial_stream_window_size=64 * 1024, initial_connection_window_size=1024 * 1024
        ),
        max_request_headers_kb=MAX_HEADERS_KB,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=manager.HttpConnectionManagerPathWithEscapedSlashesAction.UNESCAPE_AND_REDIRECT,
        use_remote_address=True,
        server_header_transformation=manager.HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
    )


def _filters(shared: Sequence[Listener], topology: Topology, limits: bool) -> list[manager.HttpFilter]:
    copying = copy_filter(topology.limits, changed(topology)) if limits else None
    return [
        gateway_filter(shared[0].port),
        *([] if copying is None else [copying]),
        *([ratelimit_filter(shared)] if limits else []),
        *picker_filters(topology),
        http_filter("envoy.filters.http.router", router.Router()),
    ]


def _clean_headers() -> core.TypedExtensionConfig:
    """What removes a client's copies of internal headers, before everything else."""
    by_prefix = [
        mutation.HeaderMutation(
            remove_on_match=mutation.HeaderMutationRemoveOnMatch(key_matcher=matcher.StringMatcher(prefix=prefix))
        )
        for prefix in REMOVED_PREFIXES
    ]
    by_name = [mutation.HeaderMutation(remove=name) for name in REMOVED]
    return extension(
        "envoy.http.early_header_mutation.header_mutation", early.HeaderMutation(mutations=[*by_prefix, *by_name])
    )
