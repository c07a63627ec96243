# SPDX-License-Identifier: Apache-2.0
"""The configuration of `epp gateway` for a gateway described by manifests.

Envoy chooses among a route's rules by all of their headers; this process knows the model alone, and only has to know
whose answers it must read. So what several rules say of one model is put together: it is counted here if any of them
may lead to a backend. Should such a request take the way to a pool, the endpoint picker counts it too: both write the
same numbers under the same keys, and what is booked is booked once.

A rule that asks for the model by regular expression, or not at all, makes the entry for the models that no rule names.
No expression is evaluated here: it is written for another engine, and would be matched against what clients send.
"""

from __future__ import annotations

from collections.abc import Iterator

from epp.contract.aigateway import MODEL_HEADER
from epp.gateway.config import (
    CostConfig,
    GatewayConfig,
    IncludeUsage,
    ListenerConfig,
    ModelConfig,
)
from epp.manifests.topology import Listener, Route, Rule, Topology
from epp.plugins.costs.rules import CostType


def config_of(topology: Topology, *, include_usage: IncludeUsage = "hidden") -> GatewayConfig:
    """The configuration. Listeners are called by their manifests' port numbers, as one Envoy listener serves all those
    of one port. `include_usage` holds for backends whose routes have costs."""
    ports: dict[int, list[Listener]] = {}
    for listener in topology.listeners:
        ports.setdefault(listener.port, []).append(listener)
    listeners = {listener_key(port): _listener(topology, listeners, include_usage) for port, listeners in ports.items()}
    return GatewayConfig(listeners)


def listener_key(port: int) -> str:
    """The key of the Envoy listener for a manifest's port: what Envoy says in `x-epp-listener`."""
    return str(port)


def _listener(topology: Topology, listeners: list[Listener], include_usage: IncludeUsage) -> ListenerConfig:
    models: dict[str, ModelConfig] = {}
    others: ModelConfig | None = None
    settled: set[str | None] = set()
    for route in topology.routes:
        if not any(map(route.is_on, listeners)):
            continue
        for rule in route.rules:
            entry = _entry(route, rule, include_usage)
            for model, conditional in _claims(rule):
                if model in settled:
                    # An earlier rule takes all of its requests.
                    continue
                if not conditional:
                    settled.add(model)
                if model is None:
                    others = _together(others, entry)
                else:
                    models[model] = _together(models.get(model), entry)
    return ListenerConfig(models, others)


def _claims(rule: Rule) -> Iterator[tuple[str | None, bool]]:
    """The models whose requests a rule takes (None: those that no rule names), and whether it asks for more than the
    model."""
    if not rule.matches:
        yield None, False
    for headers in rule.matches:
        about_model = [header for header in headers if header.name.lower() == MODEL_HEADER]
        exact = next((header.value for header in about_model if not header.regex), None)
        # An expression takes some of the models that no rule names.
        regex = any(header.regex for header in about_model)
        yield exact, regex or len(headers) > len(about_model)


def _entry(route: Route, rule: Rule, include_usage: IncludeUsage) -> ModelConfig:
    targets = [target for target in rule.targets if target.weight > 0] or list(rule.targets)
    backends = [target.name for target in targets if not target.pool]
    if not backends:
        return ModelConfig("pool", targets[0].name if targets else "")
    costs = tuple([CostConfig(cost.key, _type(cost.type), cost.cel) for cost in route.costs])
    return ModelConfig("backend", backends[0], True, costs, include_usage if costs else "off")


def _type(name: str) -> CostType:
    # The manifests' reader has checked it, and `read_config` does again.
    return name  # type: ignore[return-value]


def _together(before: ModelConfig | None, entry: ModelConfig) -> ModelConfig:
    if before is None or not before.counts:
        return entry if entry.counts or before is None else before
    if not entry.counts:
        return before
    keys = {cost.metadata_key for cost in before.costs}
    costs = (*before.costs, *[cost for cost in entry.costs if cost.metadata_key not in keys])
    include_usage = entry.include_usage if before.include_usage == "off" else before.include_usage
    return ModelConfig("backend", before.name, True, costs, include_usage)
