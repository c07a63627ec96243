# SPDX-License-Identifier: Apache-2.0
"""Kinds of Envoy AI Gateway, versions v1alpha1 and v1beta1 (their fields are read alike)."""

from __future__ import annotations

from epp.manifests.fields import Fields, Harmless, Items, Shape, Text, Unsupported, Whole, unsupported
from epp.manifests.kinds.gateway import HEADER_MATCH, TIMEOUTS
from epp.manifests.kinds.kind import AI_GATEWAY, NAME, PORT, TARGETS, Kind, reference

COST_TYPES = (
    "InputToken", "OutputToken", "TotalToken", "CachedInputToken", "CacheCreationInputToken", "ReasoningToken", "CEL",
)  # fmt: skip
SCHEMAS = (
    "OpenAI", "Anthropic", "Cohere", "AWSBedrock", "AzureOpenAI", "GCPVertexAI", "GCPAnthropic", "AWSAnthropic",
)  # fmt: skip
POLICY_TYPES = (
    "APIKey", "AnthropicAPIKey", "AzureAPIKey", "AWSCredentials", "AzureCredentials", "GCPCredentials",
)  # fmt: skip
UNTOUCHED = "requests and answers go on unchanged"

_SCHEMA = Fields({"name": Text(SCHEMAS), "version": Text(), "prefix": Text()}, ("name",))

_BACKEND_REF: dict[str, Shape] = reference().fields | {
    "weight": Whole(),
    "priority": Unsupported("all backends of a rule share its requests by weight", unless=(0,)),
    "modelNameOverride": Unsupported("the model's name stays the one the client sent"),
    "headerMutation": Unsupported(UNTOUCHED),
    "bodyMutation": Unsupported(UNTOUCHED),
}

_RULE = Fields(
    {
        "matches": Items(Fields({"headers": Items(HEADER_MATCH)})),
        "backendRefs": Items(Fields(_BACKEND_REF, ("name",))),
        "timeouts": TIMEOUTS,
        "name": Text(),
        "streamIdleTimeout": Unsupported("only the timeout of the whole request holds; see timeouts.request"),
        "modelsOwnedBy": Harmless(),
        "modelsCreatedAt": Harmless(),
        "filters": Unsupported("no filter is applied"),
    }
)

_COST = Fields({"metadataKey": NAME, "type": Text(COST_TYPES), "cel": Text()}, ("metadataKey",))

_ROUTE = Fields(
    {
        "targetRefs": Items(reference(section=True)),
        "parentRefs": Items(reference(section=True)),
        "schema": _SCHEMA,
        "rules": Items(_RULE, 1),
        "llmRequestCosts": Items(_COST),
        "hostnames": Unsupported("the route holds for every host"),
        "filterConfig": Harmless(),
        "rateLimitsFromHeaders": Unsupported("the limits of the policies alone hold"),
    },
    ("rules",),
)

_BACKEND = Fields(
    {
        "schema": _SCHEMA,
        "backendRef": Fields(reference().fields | {"port": PORT}, ("name",)),
        "backendSecurityPolicyRef": reference(),
        "timeouts": Unsupported("the timeouts of the route's rules hold"),
        "headerMutation": Unsupported(UNTOUCHED),
        "bodyMutation": Unsupported(UNTOUCHED),
        "responseBodyMutation": Unsupported(UNTOUCHED),
    },
    ("schema", "backendRef"),
)

_KEY = Fields({"secretRef": reference()}, ("secretRef",))
_NO_KEY = "requests go to the backend without a key"

_SECURITY = Fields(
    {
        "type": Text(POLICY_TYPES),
        "targetRefs": TARGETS["targetRefs"],
        "apiKey": _KEY,
        "anthropicAPIKey": _KEY,
        "credentialOverride": Unsupported("the key is the same for all requests"),
    }
    | unsupported(_NO_KEY, "azureAPIKey awsCredentials azureCredentials gcpCredentials"),
    ("type",),
)

_VERSIONS = ("v1beta1", "v1alpha1")

KINDS: dict[str, Kind] = {
    "AIGatewayRoute": Kind((AI_GATEWAY,), _VERSIONS, {"spec": _ROUTE}),
    "AIServiceBackend": Kind((AI_GATEWAY,), _VERSIONS, {"spec": _BACKEND}),
    "BackendSecurityPolicy": Kind((AI_GATEWAY,), _VERSIONS, {"spec": _SECURITY}),
    "GatewayConfig": Kind(
        (AI_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="costs are those of the routes alone"
    ),
    "MCPRoute": Kind((AI_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="tools are not routed"),
    "QuotaPolicy": Kind(
        (AI_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="limits are those of BackendTrafficPolicy"
    ),
}
