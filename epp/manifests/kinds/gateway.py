# SPDX-License-Identifier: Apache-2.0
"""Kinds of the Gateway API: Gateway, HTTPRoute, BackendTLSPolicy."""

from __future__ import annotations

from epp.manifests.fields import Fields, Harmless, Items, Shape, Text, Unsupported, Whole, harmless, unsupported
from epp.manifests.kinds.kind import GATEWAY_API, NAME, PORT, TARGETS, Kind, reference

_LISTENER = Fields(
    {
        "name": NAME,
        "port": PORT,
        "protocol": NAME,
        "hostname": Text(),
        "allowedRoutes": Fields(
            {
                "namespaces": Fields({"from": Text(("All", "Same", "Selector", "None")), "selector": Harmless()}),
                "kinds": Harmless(),
            }
        ),
        "tls": Harmless(),
    },
    ("name", "port", "protocol"),
)

_GATEWAY = Fields(
    {
        "gatewayClassName": NAME,
        "listeners": Items(_LISTENER, 1),
        "addresses": Unsupported("it listens on the loopback address"),
        "infrastructure": Unsupported("nothing of a cluster is created"),
        "backendTLS": Unsupported("no client certificate is shown to backends"),
        "tls": Unsupported("no client certificate is asked for or shown"),
        "allowedListeners": Harmless(),
        "defaultScope": Harmless(),
    },
    ("gatewayClassName", "listeners"),
)

HEADER_MATCH = Fields({"name": NAME, "value": Text(), "type": Text(("Exact", "RegularExpression"))}, ("name", "value"))

TIMEOUTS = Fields(
    {
        "request": Text(),
        "backendRequest": Unsupported("only the timeout of the whole request holds; see timeouts.request"),
    }
)

_ROUTE_RULE: dict[str, Shape] = {
    "name": Text(),
    "matches": Items(
        Fields(
            {
                "headers": Items(HEADER_MATCH),
                "path": Fields({"type": Text(("Exact", "PathPrefix", "RegularExpression")), "value": Text()}),
                "method": Text(),
                "queryParams": Unsupported("the match holds for every query"),
            }
        )
    ),
    "backendRefs": Items(
        Fields(
            reference().fields | {"port": PORT, "weight": Whole(), "filters": Unsupported("no filter is applied")},
            ("name",),
        )
    ),
    "timeouts": TIMEOUTS,
    "filters": Unsupported("no filter is applied"),
    "retry": Unsupported("nothing is retried"),
    "sessionPersistence": Unsupported("the picker's choice alone decides"),
}

_HTTP_ROUTE = Fields(
    {
        "parentRefs": Items(reference(section=True), 1),
        "hostnames": Unsupported("the route holds for every host"),
        "rules": Items(Fields(_ROUTE_RULE), 1),
        "useDefaultGateways": Harmless(),
    },
    ("parentRefs", "rules"),
)

_VALIDATION = Fields(
    {
        "hostname": NAME,
        "wellKnownCACertificates": Text(("System", "")),
        "caCertificateRefs": Items(reference()),
        "subjectAltNames": Unsupported("the certificate must have the name of validation.hostname"),
    },
    ("hostname",),
)

KINDS: dict[str, Kind] = {
    "Gateway": Kind((GATEWAY_API,), ("v1", "v1beta1"), {"spec": _GATEWAY}),
    "HTTPRoute": Kind((GATEWAY_API,), ("v1", "v1beta1"), {"spec": _HTTP_ROUTE}),
    "BackendTLSPolicy": Kind(
        (GATEWAY_API,),
        ("v1", "v1alpha3", "v1alpha2"),
        {
            "spec": Fields(
                TARGETS
                | {"validation": _VALIDATION, "tls": _VALIDATION}
                | unsupported("Envoy's defaults hold", "options")
                | harmless("")
            )
        },
    ),
}
