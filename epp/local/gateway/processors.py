# SPDX-License-Identifier: Apache-2.0
"""ext_proc filters: the gateway's, that reads model names, and one for each pool's endpoint picker.

Both get the request's body as it comes (FULL_DUPLEX_STREAMED), and may hold it until they know. The gateway's sees the
answer as a copy of each piece (STREAMED), the picker's is in its path. A processor that is away is an error of the
request: nothing passes unread.

Which picker a request meets is decided by its route: all are off for a virtual host, and each is on for the routes to
its own pool. Without a virtual host none of these filters exists: Envoy's own answer to a request that it could not
read (400, 431) waits for nobody, since the connection is closed before a processor could look at it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.ext_proc import v3 as ext_proc
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as manager
from envoy_data_plane.google import protobuf

from epp.contract.aigateway import COST_NAMESPACE
from epp.gateway.from_topology import listener_key
from epp.gateway.names import LISTENER_HEADER
from epp.local.gateway import names
from epp.local.gateway.messages import grpc, http_filter, packed, seconds
from epp.manifests.topology import Pool, Topology

GATEWAY_TIMEOUT_S = 10.0
PICKER_TIMEOUT_S = 300.0
"""A picker may hold a request in a queue."""

_SEND = ext_proc.ProcessingModeHeaderSendMode.SEND
_BodyMode = ext_proc.ProcessingModeBodySendMode


def gateway_filter(port: int) -> manager.HttpFilter:
    """The filter of the process that reads model names, on the listener of a manifest's port."""
    listener = core.HeaderValue(key=LISTENER_HEADER, value=listener_key(port))
    return http_filter(
        names.GATEWAY_FILTER,
        ext_proc.ExternalProcessor(
            grpc_service=replace(grpc(names.GATEWAY_CLUSTER), initial_metadata=[listener]),
            message_timeout=seconds(GATEWAY_TIMEOUT_S),
            processing_mode=_mode(_BodyMode.STREAMED),
            metadata_options=_metadata([], [COST_NAMESPACE]),
        ),
        routed_only=True,
    )


def picker_filters(topology: Topology) -> list[manager.HttpFilter]:
    """The filters of all endpoint pickers."""
    receiving = ["envoy.lb", COST_NAMESPACE, *_charged(topology)]
    return [_picker_filter(pool, list(dict.fromkeys(receiving))) for pool in topology.pools]


def for_host(pools: Iterable[Pool]) -> dict[str, protobuf.Any]:
    """Per-filter configuration of a virtual host: the gateway's processor and no picker."""
    off = packed(ext_proc.ExtProcPerRoute(disabled=True))
    return {names.GATEWAY_FILTER: _on(), **{names.picker_filter(pool.name): off for pool in pools}}


def for_pool(pool: str) -> dict[str, protobuf.Any]:
    """Per-filter configuration of a route: the picker of `pool`, whatever the virtual host says."""
    return {names.picker_filter(pool): _on()}


def _on() -> protobuf.Any:
    return packed(ext_proc.ExtProcPerRoute(overrides=ext_proc.ExtProcOverrides()))


def _picker_filter(pool: Pool, receiving: list[str]) -> manager.HttpFilter:
    return http_filter(
        names.picker_filter(pool.name),
        ext_proc.ExternalProcessor(
            grpc_service=grpc(names.picker_cluster(pool.name)),
            message_timeout=seconds(PICKER_TIMEOUT_S),
            processing_mode=_mode(_BodyMode.FULL_DUPLEX_STREAMED),
            metadata_options=_metadata(["envoy.lb"], receiving),
        ),
        routed_only=True,
    )


def _charged(topology: Topology) -> list[str]:
    """The namespaces that limits take costs from."""
    charges = [
        charge for policy in topology.limits for rule in policy.rules for charge in (rule.at_request, rule.at_response)
    ]
    return [charge.namespace for charge in charges if charge is not None and charge.namespace]


def _mode(response_body: ext_proc.ProcessingModeBodySendMode) -> ext_proc.ProcessingMode:
    return ext_proc.ProcessingMode(
        request_header_mode=_SEND,
        request_body_mode=_BodyMode.FULL_DUPLEX_STREAMED,
        request_trailer_mode=_SEND,
        response_header_mode=_SEND,
        response_body_mode=response_body,
        # An answer with trailers ends with them, and costs are told at the end.
        response_trailer_mode=_SEND,
    )


def _metadata(forwarding: list[str], receiving: list[str]) -> ext_proc.MetadataOptions:
    namespaces = ext_proc.MetadataOptionsMetadataNamespaces
    return ext_proc.MetadataOptions(
        forwarding_namespaces=namespaces(untyped=forwarding) if forwarding else None,
        receiving_namespaces=namespaces(untyped=receiving),
    )
