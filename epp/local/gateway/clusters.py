# SPDX-License-Identifier: Apache-2.0
"""Where Envoy connects to: pods that a picker names, plain backends, and the processes that serve Envoy itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envoy_data_plane.envoy.config.cluster import v3 as cluster
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.config.endpoint import v3 as endpoint
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as manager
from envoy_data_plane.envoy.extensions.upstreams.http import v3 as upstreams
from envoy_data_plane.google import protobuf

from epp.local.envoy import DESTINATION_HEADER
from epp.local.gateway import names
from epp.local.gateway.credentials import injection
from epp.local.gateway.messages import BUFFER_BYTES, UNLIMITED, packed, seconds, socket
from epp.local.gateway.places import Address, Places
from epp.local.gateway.upstreamtls import unverified, verified
from epp.manifests.topology import ApiKey, Backend, Pool, Topology

CONNECT_TIMEOUT_S = 10.0
POD_IDLE_S = 4.0
"""How long an unused connection to a model server is kept: less than its keep-alive, which is 5 s in vLLM, so that
Envoy never writes to a connection that the server is closing."""
SERVICE_IDLE_S = 50.0
"""The same for a service on the Internet; the usual load balancers keep connections for 60 s."""

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def clusters(topology: Topology, places: Places, roots: Path | None = None) -> list[cluster.Cluster]:
    """All clusters. `roots`: file with the certificate authorities that stand for the system's. Raises `StartError`."""
    found = [_processor(names.GATEWAY_CLUSTER, places.gateway)]
    if places.ratelimit is not None:
        found.append(_processor(names.RATELIMIT_CLUSTER, places.ratelimit))
    for pool in topology.pools:
        picker = _processor(names.picker_cluster(pool.name), places.pools[pool.name].picker)
        if places.picker_tls:
            picker.transport_socket = unverified()
        found += [picker, _pool(pool)]
    found += [_backend(backend, places.backends[backend.name], roots) for backend in topology.backends]
    return found


def _processor(name: str, address: Address) -> cluster.Cluster:
    """A gRPC service on this machine."""
    return cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.STATIC,
        connect_timeout=seconds(CONNECT_TIMEOUT_S),
        circuit_breakers=_no_limits(),
        load_assignment=_assignment(name, [address]),
        typed_extension_protocol_options=_options(
            upstreams.HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=core.Http2ProtocolOptions())
        ),
    )


def _pool(pool: Pool) -> cluster.Cluster:
    """Whatever address the picker wrote into the header."""
    name = names.pool_cluster(pool.name)
    return cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.ORIGINAL_DST,
        lb_policy=cluster.ClusterLbPolicy.CLUSTER_PROVIDED,
        original_dst_lb_config=cluster.ClusterOriginalDstLbConfig(
            use_http_header=True, http_header_name=DESTINATION_HEADER
        ),
        connect_timeout=seconds(CONNECT_TIMEOUT_S),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        circuit_breakers=_no_limits(),
        typed_extension_protocol_options=_http1(name, POD_IDLE_S, pool.key),
    )


def _backend(backend: Backend, addresses: Sequence[Address], roots: Path | None) -> cluster.Cluster:
    name = names.backend_cluster(backend.name)
    # Simulated pods have no certificate for the name in the manifest.
    tls = backend.tls if backend.endpoints else None
    literal = all(address.is_literal for address in addresses)
    return cluster.Cluster(
        name=name,
        type=cluster.ClusterDiscoveryType.STATIC if literal else cluster.ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=cluster.ClusterDnsLookupFamily.V4_PREFERRED,
        lb_policy=cluster.ClusterLbPolicy.LEAST_REQUEST,
        connect_timeout=seconds(CONNECT_TIMEOUT_S),
        per_connection_buffer_limit_bytes=BUFFER_BYTES,
        circuit_breakers=_no_limits(),
        load_assignment=_assignment(name, addresses),
        transport_socket=None if tls is None else verified(tls, roots),
        typed_extension_protocol_options=_http1(name, SERVICE_IDLE_S if tls else POD_IDLE_S, backend.key),
    )


def _assignment(name: str, addresses: Sequence[Address]) -> endpoint.ClusterLoadAssignment:
    hosts = [
        endpoint.LbEndpoint(endpoint=endpoint.Endpoint(address=socket(address), hostname=_hostname(address)))
        for address in addresses
    ]
    return endpoint.ClusterLoadAssignment(
        cluster_name=name, endpoints=[endpoint.LocalityLbEndpoints(lb_endpoints=hosts)]
    )


def _hostname(address: Address) -> str:
    """What `auto_host_rewrite` sends as the host; for an address nothing, and then the client's stays."""
    return "" if address.is_literal else address.host


def _http1(name: str, idle_s: float, key: ApiKey | None) -> dict[str, protobuf.Any]:
    return _options(
        upstreams.HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=core.Http1ProtocolOptions()),
        idle_s,
        [] if key is None else injection(name, key),
    )


def _options(
    protocol: upstreams.HttpProtocolOptionsExplicitHttpConfig,
    idle_s: float | None = None,
    filters: Sequence[manager.HttpFilter] = (),
) -> dict[str, protobuf.Any]:
    common = None if idle_s is None else core.HttpProtocolOptions(idle_timeout=seconds(idle_s))
    options = upstreams.HttpProtocolOptions(
        explicit_http_config=protocol, common_http_protocol_options=common, http_filters=list(filters)
    )
    return {_HTTP_OPTIONS: packed(options)}


def _no_limits() -> cluster.CircuitBreakers:
    # The default of 1024 concurrent requests would cap open ext_proc streams, and with them open generations.
    most = cluster.CircuitBreakersThresholds(
        max_connections=UNLIMITED, max_pending_requests=UNLIMITED, max_requests=UNLIMITED, max_retries=UNLIMITED
    )
    return cluster.CircuitBreakers(thresholds=[most])
