# SPDX-License-Identifier: Apache-2.0
"""Limits to rules for the rate limit service, in the form of the Go service's configuration.

One domain for each listener that a policy holds for. Below it a tree: the route, then one level for each entry of a
descriptor (see `epp.manifests.limits.descriptors`), with the limit at the last one. A policy of a gateway has a node
`route` without value: each route rule counts for itself. A policy of a route has one for each rule, with its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from epp.manifests.limits import Descriptor, LimitPolicy, ServiceRules, descriptors, policy_for
from epp.manifests.topology import Listener, Topology

Tree = list[dict[str, Any]]
_DEFAULT_LISTENER = "http"


def service_rules(topology: Topology) -> ServiceRules:
    """The rules of all policies. Without its Gateway, a policy's listener is taken to be called `http`."""
    trees: dict[str, Tree] = {}
    for listener in _listeners(topology):
        tree: Tree = []
        of_gateway = policy_for(topology.limits, "", listener.gateway, listener.name)
        if of_gateway is not None:
            _grow(tree, of_gateway, "")
        for route in topology.routes:
            policy = policy_for(topology.limits, route.name, listener.gateway, listener.name)
            if policy is not None and policy is not of_gateway and route.is_on(listener):
                for rule in route.rules:
                    _grow(tree, policy, rule.name)
        if tree:
            trees[listener.domain] = tree
    return ServiceRules(tuple({"domain": domain, "descriptors": tree} for domain, tree in trees.items()))


def _listeners(topology: Topology) -> Iterator[Listener]:
    yield from topology.listeners
    known = {listener.gateway for listener in topology.listeners}
    for policy in topology.limits:
        for name in policy.gateways:
            namespace, gateway, *section = name.split("/")
            if f"{namespace}/{gateway}" not in known:
                yield Listener(f"{namespace}/{gateway}", section[0] if section else _DEFAULT_LISTENER, 80)


def _grow(tree: Tree, policy: LimitPolicy, route: str) -> None:
    for descriptor in descriptors(policy, route):
        level = tree
        node: dict[str, Any] = {}
        for key, value in _steps(descriptor):
            node = _node(level, key, value)
            level = node.setdefault("descriptors", [])
        del node["descriptors"]
        rule = descriptor.rule
        node["rate_limit"] = {
            "unit": rule.unit.name.lower(),
            "requests_per_unit": rule.requests,
            "label": descriptor.label,
        }
        if rule.shadow:
            node["shadow_mode"] = True


def _steps(descriptor: Descriptor) -> Iterator[tuple[str, str]]:
    return ((entry.key, entry.value) for entry in descriptor.entries)


def _node(level: Tree, key: str, value: str) -> dict[str, Any]:
    """The node of a key and value ("": any value) on this level, made if it is not there."""
    wanted: Mapping[str, str] = {"key": key, "value": value} if value else {"key": key}
    for node in level:
        if node["key"] == key and node.get("value", "") == value:
            return node
    node = dict(wanted)
    level.append(node)
    return node
