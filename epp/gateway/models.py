# SPDX-License-Identifier: Apache-2.0
"""What becomes of a request, by the Envoy listener it came through and the model it names: the configuration, compiled.

For a model that is known by name the answer to Envoy is made once and kept; so a request costs a look-up.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from epp.contract.aigateway import MODEL_HEADER
from epp.contract.errors import ConfigError
from epp.contract.metering import Meter
from epp.contract.plugins import PluginContext
from epp.extproc import Route, Watch
from epp.gateway.config import GatewayConfig, IncludeUsage, ListenerConfig, ModelConfig
from epp.gateway.paths import Paths
from epp.plugins.costs.llm_request_costs import LlmRequestCosts
from epp.plugins.costs.rules import CostRule

OTHER = "other"
"""What metrics call a model that no entry names."""
COMPRESSION = "accept-encoding"
"""Not asked for where answers are counted: a compressed answer could not be read."""


@dataclass(frozen=True, slots=True)
class Counting:
    """What all costs of a configuration have in common."""

    namespace: str
    tenant_header: str
    meter: Meter

    def costs(self, entry: ModelConfig) -> LlmRequestCosts:
        """What reads the costs of one entry's answers: the picker's plugin. Raises `ConfigError`."""
        rules = tuple([CostRule(cost.metadata_key, cost.type, cost.cel) for cost in entry.costs])
        parameters = LlmRequestCosts.Parameters(
            rules, metadataNamespace=self.namespace, tenantHeader=self.tenant_header, backend=entry.name
        )
        return LlmRequestCosts(parameters, PluginContext("gateway", time.monotonic, random.Random(0), self.meter))


class Plan:
    """What becomes of requests for one model, or for all that no entry names.

    * label: the model as metrics of requests call it
    * costs: reads what answers cost; None where they are not read here
    """

    __slots__ = ("costs", "include_usage", "label")

    def __init__(self, label: str, entry: ModelConfig, counting: Counting) -> None:
        self.label = label
        self.costs = counting.costs(entry) if entry.counts else None
        self.include_usage: IncludeUsage = entry.include_usage if entry.counts else "off"

    def route(self, model: str, body: bytes | None = None, reused: bool = False) -> Route:
        """The answer to Envoy; `body` in the place of the client's, which is plain."""
        headers = [(MODEL_HEADER, model.encode())]
        encoding = () if body is None else ("content-encoding",)
        if self.costs is None:
            return Route(headers, encoding, body=body, watch=Watch.NOTHING, reused=reused)
        return Route(headers, (COMPRESSION, *encoding), body=body, reused=reused, tells=True)


_UNROUTED = ModelConfig("backend")


class Models:
    """The models of one Envoy listener, or of all; `place` names it in messages. Raises `ConfigError` for costs that
    cannot be."""

    __slots__ = ("_others", "_plans", "_routes", "names")

    def __init__(self, served: ListenerConfig, counting: Counting, place: str = "listeners") -> None:
        self.names = tuple(served.models)
        self._plans = {
            name: _plan(name, entry, counting, f"{place}.models.{name}") for name, entry in served.models.items()
        }
        self._routes = {name: plan.route(name, reused=True) for name, plan in self._plans.items()}
        self._others = _plan(OTHER, served.others or _UNROUTED, counting, f"{place}.others")

    def plan(self, model: str) -> Plan:
        """What becomes of requests for `model`."""
        return self._plans.get(model, self._others)

    def route(self, model: str) -> Route:
        """The answer to Envoy where the body stays as it is."""
        return self._routes.get(model) or self._others.route(model)


def _plan(label: str, entry: ModelConfig, counting: Counting, place: str) -> Plan:
    try:
        return Plan(label, entry, counting)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


class Served:
    """A whole configuration, compiled. Raises `ConfigError` for costs that cannot be."""

    __slots__ = ("_all", "_by_listener", "body_limit_bytes", "paths")

    def __init__(self, config: GatewayConfig, meter: Meter) -> None:
        counting = Counting(config.metadata_namespace, config.tenant_header, meter)
        self._by_listener: Mapping[str, Models] = {
            name: Models(one, counting, f"listeners.{name}") for name, one in config.listeners.items()
        }
        self._all = Models(_merged(config), counting)
        self.paths = Paths(config.path_prefixes)
        self.body_limit_bytes = config.body_limit_bytes

    @property
    def names(self) -> tuple[str, ...]:
        """Every model that has an entry."""
        return self._all.names

    def models(self, listener: str | None) -> Models:
        """Those of a listener; of all, where Envoy does not say which, or says one that is not known."""
        return self._all if listener is None else self._by_listener.get(listener, self._all)


def _merged(config: GatewayConfig) -> ListenerConfig:
    models: dict[str, ModelConfig] = {}
    others: ModelConfig | None = None
    for listener in config.listeners.values():
        for name, entry in listener.models.items():
            models.setdefault(name, entry)
        if others is None or (listener.others is not None and listener.others.counts > others.counts):
            others = listener.others
    return ListenerConfig(models, others)
