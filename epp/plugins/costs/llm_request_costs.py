# SPDX-License-Identifier: Apache-2.0
"""`llm-request-costs`: the tokens of an answer, for rate limits and for the metrics page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from epp.api import ConfigError, InferenceRequest, PluginContext, Reads, ResponseEnd, UsageWish, plugin
from epp.plugins.costs.rules import CostRule, compile_costs, tokens_of

NAMESPACE = "io.envoy.ai_gateway"
MOST_SERIES = 1000
"""Of the counter of tokens; what would be more is counted under "other"."""
_MOST_MODELS = 100
TENANT_BYTES = 128
"""A tenant's name is cut to this."""
UNKNOWN = "unknown"
SECRET_HEADERS = frozenset(
    {
        "authorization", "proxy-authorization", "cookie", "set-cookie", "api-key", "x-api-key", "x-goog-api-key",
        "x-auth-token", "x-amz-security-token",
    }
)  # fmt: skip
"""Headers whose value would be a secret on the metrics page."""
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_NOTHING: Mapping[str, Mapping[str, Any]] = {}


@plugin("llm-request-costs", reads=Reads.BODY | Reads.RESPONSE_BODY)
class LlmRequestCosts:
    """Leaves the costs of an answer as dynamic metadata for Envoy's filters, and counts its tokens.

    Formula: each cost of the types of Envoy AI Gateway (see `epp.plugins.costs.rules`) as a number under its key, in
    the namespace `metadataNamespace`; a type that the answer does not tell is 0. In `epp_llm_tokens_total` the tokens
    by model, tenant and type: input, output, cached_input, cache_creation_input, reasoning (the third and fourth are
    among the first, the last among the second; a type without tokens makes no series).
    Range: numbers from 0.
    Reads: the model, from the request's body; the tokens, from the response's.
    Cost: a few microseconds an answer, 5 to 10 for each expression; nothing for each piece of a stream beyond looking
    for its usage.
    Without data: no metadata and no tokens for an answer that told none or whose status is not 2xx. The first, where a
    model was asked for, are counted in `epp_llm_answers_without_usage_total` by model. An expression that fails leaves
    out its key, and counts in `epp_llm_cost_failures_total` by key. An answer that breaks off is not seen at all.
    Origin: `llmRequestCosts` of Envoy AI Gateway's AIGatewayRoute.
    """

    @dataclass(frozen=True, slots=True)
    class Parameters:
        """* costs: what to leave, each with `metadataKey`, `type` and, for type CEL, `cel`; none: count only
        * llmRequestCosts: another name of costs, as the list is called in an AIGatewayRoute
        * metadataNamespace: where; Envoy has to receive it (`metadata_options.receiving_namespaces`)
        * tenantHeader: request header whose value is the tenant's name for the metrics page; empty: none
        * includeUsage: whether streams are made to tell their tokens where the client did not ask: off, on, hidden
        * backend: the value of the variable `backend` of CEL
        """

        costs: tuple[CostRule, ...] = ()
        llmRequestCosts: tuple[CostRule, ...] = ()
        metadataNamespace: Annotated[str, Meta(min_length=1)] = NAMESPACE
        tenantHeader: str = "x-user-id"
        includeUsage: Literal["off", "on", "hidden"] | bool = "off"
        backend: str = ""

    def __init__(self, parameters: Parameters, context: PluginContext) -> None:
        if parameters.costs and parameters.llmRequestCosts:
            raise ConfigError("costs and llmRequestCosts are two names of one list; give one of them")
        name = "llmRequestCosts" if parameters.llmRequestCosts else "costs"
        self._table = compile_costs(parameters.costs or parameters.llmRequestCosts, name)
        nothing = f"no {name} are given: tokens are on the metrics page, and nothing is left for rate limits"
        self.warnings = () if self._table.keys else (nothing,)
        self._namespace = parameters.metadataNamespace
        self._backend = parameters.backend
        self._tenant_header = _tenant_header(parameters.tenantHeader)
        wish = parameters.includeUsage
        # YAML takes on and off for booleans.
        self.usage_wish = UsageWish(wish if isinstance(wish, str) else "on" if wish else "off")
        meter = context.meter
        self._tokens = meter.counter(
            "epp_llm_tokens",
            "Tokens of answers with status 2xx, as the endpoints counted them.",
            ("model", "tenant", "type"),
            most_series=MOST_SERIES,
        )
        self._silent = meter.counter(
            "epp_llm_answers_without_usage",
            "Answers with status 2xx of a model that did not tell their tokens: nobody is charged for them.",
            ("model",),
            most_series=_MOST_MODELS,
        )
        self._failures = meter.counter(
            "epp_llm_cost_failures",
            "Costs that were left out because their expression failed for an answer.",
            ("metadata_key",),
            most_series=_MOST_MODELS,
        )

    def on_response_end(self, request: InferenceRequest, end: ResponseEnd) -> Mapping[str, Mapping[str, Any]]:
        """The costs of this answer."""
        if end.status is None or not 200 <= end.status < 300:
            return _NOTHING
        model = request.model
        tokens = tokens_of(end.usage) if end.usage is not None else None
        if tokens is None:
            if model:
                self._silent.add((model,))
            return _NOTHING
        tenant, add = self._tenant(request.headers), self._tokens.add
        if tokens.input:
            add((model, tenant, "input"), tokens.input)
        if tokens.output:
            add((model, tenant, "output"), tokens.output)
        if tokens.cached_input:
            add((model, tenant, "cached_input"), tokens.cached_input)
        if tokens.cache_creation_input:
            add((model, tenant, "cache_creation_input"), tokens.cache_creation_input)
        if tokens.reasoning:
            add((model, tenant, "reasoning"), tokens.reasoning)
        table = self._table
        costs = table.of(tokens, model, self._backend)
        if len(costs) < len(table.keys):
            for key in table.keys:
                if key not in costs:
                    self._failures.add((key,))
        return {self._namespace: costs} if costs else _NOTHING

    def _tenant(self, headers: Mapping[str, str]) -> str:
        if not self._tenant_header:
            return ""
        name = headers.get(self._tenant_header)
        if not name:
            return UNKNOWN
        if len(name) > TENANT_BYTES or not name.isascii():
            name = name.encode(errors="replace")[:TENANT_BYTES].decode(errors="ignore")
        return name


def _tenant_header(name: str) -> str:
    name = name.strip().lower()
    if name in SECRET_HEADERS:
        raise ConfigError(
            f"tenantHeader: '{name}' holds a secret, which would stand on the metrics page; name a header that tells "
            "users apart, such as x-user-id"
        )
    if name and not _HEADER.fullmatch(name):
        raise ConfigError(f"tenantHeader: {name!r} is not a header's name; give one such as x-user-id, or '' for none")
    return name
