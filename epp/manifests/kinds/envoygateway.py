# SPDX-License-Identifier: Apache-2.0
"""Kinds of Envoy Gateway: Backend, BackendTrafficPolicy, ClientTrafficPolicy."""

from __future__ import annotations

from epp.manifests.fields import Fields, Harmless, Items, Shape, Text, Truth, Unsupported, Whole, unsupported
from epp.manifests.kinds.kind import DEFAULTS, ENVOY_GATEWAY, NAME, PORT, TARGETS, Kind

ABSENT_HEADER = "epp/absent-header"
"""Annotation of a BackendTrafficPolicy: what becomes of requests without a header that a rule tells users apart by."""
UNITS = ("Second", "Minute", "Hour", "Day", "Week", "Month", "Year")
MAX_COUNT = (1 << 32) - 1
NO_LIMIT = "nothing is limited by it"

_ENDPOINT = Fields(
    {
        "fqdn": Fields({"hostname": NAME, "port": PORT}, ("hostname", "port")),
        "ip": Fields({"address": NAME, "port": PORT}, ("address", "port")),
        "unix": Unsupported("the endpoint is left out"),
        "hostname": Unsupported("the address alone counts"),
        "zone": Harmless(),
    }
)

_BACKEND = Fields(
    {
        "type": Text(("Endpoints", "DynamicResolver")),
        "endpoints": Items(_ENDPOINT),
        "appProtocols": Unsupported("it is spoken to in HTTP/1.1"),
        "fallback": Unsupported("it is used like any other", unless=(False,)),
        "tls": Unsupported("it is reached without TLS; use a BackendTLSPolicy"),
    }
)

_COST = Fields(
    {
        "from": Text(("Number", "Metadata")),
        "number": Whole(0, MAX_COUNT),
        "metadata": Fields({"namespace": NAME, "key": NAME}, ("namespace", "key")),
    },
    ("from",),
)

_HEADER = Fields(
    {"name": NAME, "type": Text(("Exact", "RegularExpression", "Distinct")), "value": Text(), "invert": Truth()},
    ("name",),
)

_SELECTOR = Fields(
    {
        "headers": Items(_HEADER),
        "methods": Items(Fields({"value": NAME, "invert": Truth()}, ("value",))),
        "path": Fields(
            {"type": Text(("Exact", "PathPrefix", "RegularExpression")), "value": NAME, "invert": Truth()},
        ),
        "sourceCIDR": Unsupported("the whole rule is left out: every client of one machine has the same address"),
    }
)

_RULE = Fields(
    {
        "name": Text(),
        "clientSelectors": Items(_SELECTOR),
        "limit": Fields({"requests": Whole(0, MAX_COUNT), "unit": Text(UNITS)}, ("requests", "unit")),
        "cost": Fields({"request": _COST, "response": _COST}),
        "shared": Truth(),
        "shadowMode": Truth(),
    },
    ("limit",),
    without={"clientSelectors": "the rule holds for all users together"},
)

_RATE_LIMIT = Fields(
    {
        "type": Text(("Global", "Local")),
        "global": Fields(
            {"rules": Items(_RULE), "shared": Unsupported("each rule counts for itself; see rules[].shared")}
        ),
        "local": Unsupported(f"{NO_LIMIT}; use global"),
    }
)

_TRAFFIC: dict[str, Shape] = (
    TARGETS
    | {"rateLimit": _RATE_LIMIT, "mergeType": Unsupported("a policy of a route takes the place of its gateway's")}
    | unsupported(
        DEFAULTS,
        "admissionControl adaptiveConcurrency bandwidthLimit circuitBreaker compression compressor connection dns "
        "faultInjection healthCheck http2 httpUpgrade loadBalancer proxyProtocol requestBuffer responseOverride retry "
        "routingType tcpKeepalive telemetry timeout useClientProtocol",
    )
)

_HEADERS = Fields(
    {"enableEnvoyHeaders": Truth(), "disableRateLimitHeaders": Truth()}
    | unsupported(
        DEFAULTS,
        "xForwardedClientCert withUnderscoresAction preserveXRequestID requestID earlyRequestHeaders "
        "lateResponseHeaders",
    )
)

_CLIENT: dict[str, Shape] = (
    TARGETS
    | {"headers": _HEADERS}
    | unsupported(
        DEFAULTS,
        "clientIPDetection connection enableProxyProtocol grpc healthCheck http1 http2 http3 path proxyProtocol scheme "
        "tcpKeepalive timeout tls",
    )
)

_VERSIONS = ("v1alpha1",)

KINDS: dict[str, Kind] = {
    "Backend": Kind((ENVOY_GATEWAY,), _VERSIONS, {"spec": _BACKEND}),
    "BackendTrafficPolicy": Kind((ENVOY_GATEWAY,), _VERSIONS, {"spec": Fields(_TRAFFIC)}, annotations=(ABSENT_HEADER,)),
    "ClientTrafficPolicy": Kind((ENVOY_GATEWAY,), _VERSIONS, {"spec": Fields(_CLIENT)}),
    "SecurityPolicy": Kind((ENVOY_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="every request is let in"),
    "EnvoyProxy": Kind((ENVOY_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="settings of the proxy are not read"),
    "EnvoyPatchPolicy": Kind(
        (ENVOY_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="Envoy's configuration is not patched"
    ),
    "EnvoyExtensionPolicy": Kind((ENVOY_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="no extension is run"),
    "HTTPRouteFilter": Kind((ENVOY_GATEWAY,), _VERSIONS, {"spec": Harmless()}, nothing="no filter is applied"),
}
