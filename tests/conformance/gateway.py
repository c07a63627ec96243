# SPDX-License-Identifier: Apache-2.0
"""What a gateway controller makes of Gateways, HTTPRoutes and InferencePools, as one Envoy.

Of every pool: an ext_proc filter that asks the pool's picker, off unless a route turns it on; a cluster of its pods
whose `override_host` policy goes where the metadata of the picker's answer says, and elsewhere only when there is none;
`selected_host_key` makes that policy write the pod it chose to `envoy.lb` / `x-gateway-destination-endpoint-served`.
"""

from __future__ import annotations

import contextlib
import copy
import json
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.stack import Envoy, connection_manager, envoy

_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_LB = "envoy.lb"


@dataclass(frozen=True)
class Pool:
    """An InferencePool and its pods: `pods` are IPs by name, `ports` its targetPorts.

    `fail_open`: failureMode FailOpen; `h2c`: appProtocol kubernetes.io/h2c.
    """

    name: str
    pods: Mapping[str, str]
    ports: tuple[int, ...] = (3000,)
    fail_open: bool = False
    h2c: bool = False

    @property
    def names(self) -> list[str]:
        return list(self.pods)

    @property
    def ips(self) -> list[str]:
        return list(self.pods.values())


@dataclass(frozen=True)
class Rule:
    """A rule of an HTTPRoute: host "" is any; several `pools` share by weight."""

    path: str
    pools: Mapping[str, int]
    host: str = ""
    gateway: str = "primary"


@dataclass
class Gateways:
    """The gateways, in one Envoy; `ports` by name."""

    envoy: Envoy
    ports: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def gateways(pools: Sequence[Pool], pickers: Mapping[str, int], rules: Sequence[Rule]) -> Iterator[Gateways]:
    """Envoy with a listener for each gateway that `rules` name; `pickers` are the ports of the pools' pickers."""

    def adapt(document: dict[str, Any]) -> None:
        resources = document["static_resources"]
        [listener] = resources["listeners"]
        [picker] = [cluster for cluster in resources["clusters"] if cluster["name"] == "epp"]
        [ext_proc, router] = connection_manager(document)["http_filters"]
        resources["listeners"] = [
            _listener(listener, gateway, [_filter(ext_proc, pool) for pool in pools] + [router], rules)
            for gateway in dict.fromkeys(rule.gateway for rule in rules)
        ]
        resources["clusters"] = [_pool_cluster(pool) for pool in pools]
        resources["clusters"] += [_picker_cluster(picker, pool, pickers[pool.name]) for pool in pools]

    with envoy(1, adapt=adapt) as running:
        url = f"http://127.0.0.1:{running.admin_port}/listeners?format=json"
        with urllib.request.urlopen(url, timeout=5) as response:
            found = json.load(response)["listener_statuses"]
        yield Gateways(running, {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in found})


def _filter(ext_proc: dict[str, Any], pool: Pool) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(ext_proc)
    made |= {"name": _filter_name(pool.name), "disabled": True}
    made["typed_config"]["grpc_service"] = {"envoy_grpc": {"cluster_name": f"picker-{pool.name}"}}
    made["typed_config"]["failure_mode_allow"] = pool.fail_open
    return made


def _filter_name(pool: str) -> str:
    return f"envoy.filters.http.ext_proc/{pool}"


def _listener(base: dict[str, Any], name: str, filters: list[dict[str, Any]], rules: Sequence[Rule]) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(base)
    made["name"] = name
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = filters
    mine = [rule for rule in rules if rule.gateway == name]
    hosts = dict.fromkeys(rule.host or "*" for rule in mine)
    manager["route_config"]["virtual_hosts"] = [
        {
            "name": host,
            "domains": [host] if host == "*" else [host, f"{host}:*"],
            "routes": [_route(rule) for rule in mine if (rule.host or "*") == host],
        }
        for host in hosts
    ]
    return made


def _route(rule: Rule) -> dict[str, Any]:
    def asking(pool: str) -> dict[str, Any]:
        on = {"@type": f"{_TYPES}.filters.http.ext_proc.v3.ExtProcPerRoute", "overrides": {}}
        return {"typed_per_filter_config": {_filter_name(pool): on}}

    shares = [{"name": pool, "weight": weight, **asking(pool)} for pool, weight in rule.pools.items()]
    # A single backend is written the same way: the filter is turned on for the cluster, not for the route.
    return {"match": {"prefix": rule.path}, "route": {"weighted_clusters": {"clusters": shares}, "timeout": "30s"}}


def _pool_cluster(pool: Pool) -> dict[str, Any]:
    protocol: dict[str, Any] = {"http2_protocol_options": {}} if pool.h2c else {"http_protocol_options": {}}
    options = {"@type": f"type.googleapis.com/{_HTTP_OPTIONS}", "explicit_http_config": protocol}
    places = [(ip, port) for ip in pool.ips for port in pool.ports]
    return {
        "name": pool.name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_balancing_policy": {"policies": [_policy("override_host", _override_host())]},
        "load_assignment": {
            "cluster_name": pool.name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(*place)}} for place in places]}],
        },
        "typed_extension_protocol_options": {_HTTP_OPTIONS: options},
    }


def _override_host() -> dict[str, Any]:
    round_robin = {"@type": f"{_TYPES}.load_balancing_policies.round_robin.v3.RoundRobin"}
    return {
        "@type": f"{_TYPES}.load_balancing_policies.override_host.v3.OverrideHost",
        "override_host_sources": [{"metadata": _key("x-gateway-destination-endpoint")}],
        "selected_host_key": _key("x-gateway-destination-endpoint-served"),
        "fallback_policy": {"policies": [_policy("round_robin", round_robin)]},
    }


def _policy(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"typed_extension_config": {"name": f"envoy.load_balancing_policies.{name}", "typed_config": config}}


def _key(name: str) -> dict[str, Any]:
    return {"key": _LB, "path": [{"key": name}]}


def _picker_cluster(base: dict[str, Any], pool: Pool, port: int) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(base)
    made["name"] = made["load_assignment"]["cluster_name"] = f"picker-{pool.name}"
    [endpoint] = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["port_value"] = port
    if pool.fail_open:
        # A controller takes away the endpoints of a service that has none; here Envoy finds out by itself. As long as it
        # tries to connect, in FULL_DUPLEX_STREAMED, it gives the body away and cannot fail open any more.
        often = {"timeout": "10s", "interval": "0.1s", "unhealthy_threshold": 1, "healthy_threshold": 1}
        made["health_checks"] = [{**often, "no_traffic_interval": "0.1s", "tcp_health_check": {}}]
        made["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}
    return made


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
