# SPDX-License-Identifier: Apache-2.0
"""Small shapes that every part of the bootstrap is made of, as typed messages. Times are in seconds."""

from __future__ import annotations

import datetime

import betterproto2
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager import v3 as manager
from envoy_data_plane.envoy.type.matcher import v3 as matcher
from envoy_data_plane.google import protobuf

from epp.local.gateway.places import Address

BUFFER_BYTES = 32 * 1024
"""The connection buffer limit of Envoy Gateway and of the llm-d chart."""

UNLIMITED = 100_000


def packed(message: betterproto2.Message) -> protobuf.Any:
    """`message` with its type, for fields that take any."""
    return protobuf.Any.pack(message)


def extension(name: str, message: betterproto2.Message) -> core.TypedExtensionConfig:
    """An extension and its configuration."""
    return core.TypedExtensionConfig(name=name, typed_config=packed(message))


def http_filter(name: str, message: betterproto2.Message, *, routed_only: bool = False) -> manager.HttpFilter:
    """An HTTP filter and its configuration. `routed_only`: it is there for virtual hosts that configure it alone."""
    return manager.HttpFilter(name=name, typed_config=packed(message), disabled=routed_only)


def seconds(value: float) -> datetime.timedelta:
    """A duration; 0 mostly means none."""
    return datetime.timedelta(seconds=value)


def socket(address: Address) -> core.Address:
    """A TCP address."""
    return core.Address(socket_address=core.SocketAddress(address=address.host, port_value=address.port))


def inline(text: str) -> core.DataSource:
    """Data that stands in the bootstrap itself: nothing secret."""
    return core.DataSource(inline_string=text)


def exactly(text: str) -> matcher.StringMatcher:
    """Matches `text` alone."""
    return matcher.StringMatcher(exact=text)


def grpc(cluster: str, timeout_s: float | None = None) -> core.GrpcService:
    """A gRPC service behind `cluster`."""
    return core.GrpcService(
        envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=cluster),
        timeout=None if timeout_s is None else seconds(timeout_s),
    )
