# SPDX-License-Identifier: Apache-2.0
"""References: gateways, backends, pools, TLS, endpoints; what leads nowhere is told with the name that was meant."""

from __future__ import annotations

import pytest

from epp.manifests import ManifestErrors
from epp.manifests.sources import seconds
from epp.manifests.topology import HeaderMatch, Target, Tls
from tests.manifests.support import BACKEND, GATEWAY, POLICY, ROUTE, SMALL, mistakes, swap, told, topology

GATEWAY_API = "gateway.networking.k8s.io"
POOL_REF = "{group: inference.networking.k8s.io, kind: InferencePool, name: pool}"
POOL = """
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {}, targetPorts: [{number: 8080}]}
"""


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("parentRefs: [{name: gw}]", "parentRefs: [{name: gv}]", "AIGatewayRoute default/route: Gateway default/gv is not in the files (did you mean 'default/gw'?)"),
        ("parentRefs: [{name: gw}]", "parentRefs: [{name: gw, namespace: other}]", "Gateway other/gw is not in the files (did you mean 'default/gw'?)"),
        ("parentRefs: [{name: gw}]", "parentRefs: [{name: gw, sectionName: https}]", "Gateway default/gw has no listener \"https\"; allowed: http"),
        ("parentRefs: [{name: gw}]", "parentRefs: [{name: gw, kind: Service, group: ''}]", "Service of group \"\" is not allowed here; allowed: Gateway of gateway.networking.k8s.io"),
        ("backendRefs: [{name: b}]", "backendRefs: [{name: bb}]", "AIServiceBackend default/bb is not in the files"),
        ("backendRefs: [{name: b}]", f"backendRefs: [{POOL_REF}]", "InferencePool default/pool is not in the files"),
        ("backendRefs: [{name: b}]", "backendRefs: [{name: b, kind: Pod, group: ''}]", "Pod of group \"\" is not allowed here; allowed: AIServiceBackend of \"aigateway.envoyproxy.io\", InferencePool of"),
        ("backendRefs: [{name: b}]", "backendRefs: []", "no backendRefs with a weight over 0; requests have nowhere to go"),
        ("backendRefs: [{name: b}]", "backendRefs: [{name: b, weight: 0}]", "no backendRefs with a weight over 0"),
        ("backendRefs: [{name: b}]", f"backendRefs: [{{name: b}}, {POOL_REF}]", "a rule with an InferencePool has no other backendRefs"),
        ("backendRefs: [{name: b}]", "backendRefs: [{name: b}]\n      timeouts: {request: 1 minute}", "\"1 minute\" is no duration; allowed: such as 60s"),
        ("kind: Service, name: svc", "kind: Service, name: scv", "Service default/scv is not in the files (did you mean 'default/svc'?); add it, or say where it is: endpoints: {default/scv: [host:port]}"),
        ("kind: Service, name: svc", "kind: Backend, group: gateway.envoyproxy.io, name: svc", "Backend default/svc is not in the files; add it"),
        ("kind: Service, name: svc", "kind: Pod, name: svc", "kind \"Pod\" is not allowed here; allowed: Service, Backend"),
        ("schema: {name: OpenAI}", "schema: {name: OpenAI}\n  backendSecurityPolicyRef: {name: p}", "BackendSecurityPolicy default/p is not in the files"),
        ("{name: http, protocol: HTTP, port: 80}", "{name: http, protocol: HTTP, port: 80}, {name: http, protocol: HTTP, port: 81}", "two listeners are called \"http\""),
        ("{metadataKey: total, type: TotalToken}", "{metadataKey: t, type: CEL}", "cel belongs to type CEL, and type CEL asks for one"),
        ("{metadataKey: total, type: TotalToken}", "{metadataKey: t, type: InputToken, cel: x}", "cel belongs to type CEL"),
        ("[{metadataKey: total, type: TotalToken}]", "[{metadataKey: t, type: InputToken}, {metadataKey: t}]", "metadataKey \"t\" is there twice"),
        ("metadata: {name: svc}", "metadata: {name: svc, annotations: {epp/replicas: many}}", "epp/replicas is \"many\"; allowed: \"1\" to \"999\""),
    ],
)  # fmt: skip
def test_mistakes(old: str, new: str, line: str) -> None:
    said = mistakes(swap(SMALL, old, new))
    assert line in said[0]
    assert len(said) == 1 + ("a rule with" in line)
    assert said[0].startswith("-:")


def test_rules_in_full() -> None:
    rules = """
    - matches:
        - headers: [{name: X-AI-EG-Model, value: m}, {name: x-tier, type: RegularExpression, value: "gold|silver"}]
        - headers: [{name: x-ai-eg-model, value: o}]
      backendRefs: [{name: b, weight: 3}, {name: c}, {name: d, weight: 0}]
      timeouts: {request: 0s}
    - backendRefs: [{name: c}]
"""
    others = BACKEND.replace("name: b}", "name: c}").replace(
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: svc}\nspec: {ports: [{port: 80}]}\n", ""
    )
    text = GATEWAY + ROUTE[: ROUTE.index("  rules:")] + "  rules:" + rules + BACKEND + others
    found = topology(text)
    (route,) = found.routes
    first, second = route.rules
    assert first.matches == (
        (HeaderMatch("x-ai-eg-model", "m"), HeaderMatch("x-tier", "gold|silver", regex=True)),
        (HeaderMatch("x-ai-eg-model", "o"),),
    )
    assert first.targets == (Target("default/b", pool=False, weight=3), Target("default/c", pool=False))
    assert (first.timeout_s, second.timeout_s, second.matches) == (0.0, None, ())
    assert [(backend.name, backend.models) for backend in found.backends] == [
        ("default/b", ("m", "o")),
        ("default/c", ("m", "o")),
    ]


def test_a_match_that_asks_for_nothing_takes_everything() -> None:
    found = topology(
        swap(
            SMALL,
            "matches: [{headers: [{name: x-ai-eg-model, value: m}]}]",
            "matches: [{headers: [{name: a, value: b}]}, {}]",
        )
    )
    assert found.routes[0].rules[0].matches == ()


def test_pool_with_its_document() -> None:
    (pool,) = topology(swap(SMALL, "[{name: b}]", f"[{POOL_REF}]") + POOL).pools
    assert (pool.name, pool.models, pool.port, pool.replicas, pool.picker_config) == (
        "default/pool",
        ("m",),
        8080,
        1,
        None,
    )


@pytest.mark.parametrize("group", ["inference.networking.x-k8s.io", "inference.networking.k8s.io"])
def test_both_groups_and_forms_of_pools(group: str) -> None:
    text = swap(SMALL, "[{name: b}]", f"[{{group: {group}, kind: InferencePool, name: pool}}]")
    old = POOL.replace("targetPorts: [{number: 8080}]", "targetPortNumber: 9").replace(
        "inference.networking.k8s.io/v1", "inference.networking.x-k8s.io/v1alpha2"
    )
    assert topology(text + old).pools[0].port == 9


def test_endpoint_picker_config_of_its_own_is_for_all_pools_without_one() -> None:
    text = swap(SMALL, "[{name: b}]", f"[{POOL_REF}]") + POOL
    config = "---\napiVersion: inference.networking.x-k8s.io/v1alpha1\nkind: EndpointPickerConfig\nplugins: []\n"
    (pool,) = topology(text + config).pools
    assert pool.picker_config is not None
    assert "kind: EndpointPickerConfig\nplugins: []" in pool.picker_config.text
    assert "one holds for all pools without a configuration" in mistakes(text + config + config)[0]


ENDPOINTS = [
    ("b", ("h:1", "[::1]:2")),
    ("default/b", ("h:1",)),
    ("svc", ("h:1",)),
    ("default/svc", ("h:1",)),
]


@pytest.mark.parametrize(("name", "addresses"), ENDPOINTS)
def test_endpoints_from_the_files_and_the_command_line(name: str, addresses: tuple[str, ...]) -> None:
    written = f"---\nendpoints: {{{name}: {list(addresses)}}}\n"
    assert topology(SMALL + written).backends[0].endpoints == addresses
    assert topology(SMALL, pools={name: addresses}).backends[0].endpoints == addresses
    assert topology(SMALL + written, pools={name: ["z:9"]}).backends[0].endpoints == ("z:9",)


def test_endpoints_in_the_place_of_a_service_document() -> None:
    text = SMALL[: SMALL.rindex("---")]
    assert topology(text + "---\nendpoints: {svc: ['h:1']}\n").backends[0].endpoints == ("h:1",)


def test_endpoints_that_nothing_asks_for() -> None:
    (line,) = mistakes(SMALL, pools={"svcc": ["h:1"]})
    assert (
        line
        == "--pool: endpoints of \"svcc\": no pool, backend or service that a route leads to has this name; did you mean 'svc'?"
    )
    (line,) = mistakes(SMALL, pools={"other": ["h:1"]})
    assert line.endswith("has this name; allowed: b, svc")
    (line,) = mistakes(SMALL, pools={"svc": ["h"]})
    assert line.startswith('--pool svc: "h" is no host:port')


BACKEND_KIND = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {name: svc}
spec: {endpoints: [{fqdn: {hostname: a.example, port: 443}}, {ip: {address: "::1", port: 1}}, {ip: {address: 10.0.0.1, port: 2}}]}
"""


def test_backend_of_envoy_gateway() -> None:
    text = swap(SMALL, "kind: Service, name: svc, port: 80", "group: gateway.envoyproxy.io, kind: Backend, name: svc")
    found = topology(text + BACKEND_KIND)
    assert found.backends[0].endpoints == ("a.example:443", "[::1]:1", "10.0.0.1:2")
    assert (
        "DynamicResolver is not allowed here"
        in mistakes(text + swap(BACKEND_KIND, "spec: {", "spec: {type: DynamicResolver, "))[0]
    )
    empty = BACKEND_KIND[: BACKEND_KIND.index("spec:")] + "spec: {endpoints: [{unix: {path: /x}}]}\n"
    assert "it has no endpoints that can be used; give fqdn or ip" in mistakes(text + empty)[0]


def test_external_name() -> None:
    text = swap(SMALL, "spec: {ports: [{port: 80}]}", "spec: {type: ExternalName, externalName: a.example}")
    assert topology(text).backends[0].endpoints == ("a.example:80",)


@pytest.mark.parametrize(
    ("schema", "prefix"),
    [
        ("{name: OpenAI}", ""),
        ("{name: OpenAI, version: v1}", ""),
        ("{name: OpenAI, prefix: /v1}", ""),
        ("{name: OpenAI, version: v1beta/openai}", "/v1beta/openai"),
        ("{name: OpenAI, prefix: /api/v1/}", "/api/v1"),
        ("{name: Anthropic, version: x}", ""),
        ("{name: Anthropic, prefix: a}", "/a"),
    ],
)
def test_prefixes(schema: str, prefix: str) -> None:
    found = topology(swap(SMALL, "schema: {name: OpenAI}", f"schema: {schema}"), pools={"b": ["h:1"]})
    assert (found.backends[0].prefix, found.unsupported) == (prefix, ())


TLS = """
---
apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTLSPolicy
metadata: {name: t}
spec:
  targetRefs: [{group: "", kind: Service, name: svc}]
  validation: {wellKnownCACertificates: System, hostname: a.example}
"""
CA = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: ca}
data:
  ca.crt: |
    -----BEGIN CERTIFICATE-----
    MII
    -----END CERTIFICATE-----
"""
REFS = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]"


def test_tls() -> None:
    real = {"b": ["h:1"]}
    assert topology(SMALL + TLS, pools=real).backends[0].tls == Tls("a.example")
    with_ca = TLS.replace("wellKnownCACertificates: System", REFS)
    found = topology(SMALL + with_ca + CA, pools=real).backends[0].tls
    assert found is not None
    assert found.ca_pem == "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
    secret = CA.replace("kind: ConfigMap", "kind: Secret").replace("\ndata:", "\nstringData:")
    assert topology(SMALL + with_ca.replace("ConfigMap", "Secret") + secret, pools=real).backends[0].tls == found


def test_tls_to_simulated_pods_is_listed() -> None:
    assert told(SMALL + TLS) == ["TLS to Service default/svc: simulated pods are spoken to in plain HTTP"]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("wellKnownCACertificates: System, ", "", "give either wellKnownCACertificates: System or caCertificateRefs"),
        ("wellKnownCACertificates: System", f"wellKnownCACertificates: System, {REFS}", "give either"),
        ("wellKnownCACertificates: System", REFS, "ConfigMap default/ca is not in the files"),
        ("wellKnownCACertificates: System", REFS.replace("ConfigMap", "Pod"), "kind \"Pod\" is not allowed here; allowed: ConfigMap, Secret"),
        ("hostname: a.example", "", "spec.validation: hostname is missing"),
        ("  validation:", "  options:", "validation is missing"),
    ],
)  # fmt: skip
def test_mistakes_of_tls(old: str, new: str, line: str) -> None:
    text = SMALL + swap(TLS, old, new)
    with pytest.raises(ManifestErrors) as caught:
        topology(text, pools={"b": ["h:1"]})
    assert line in str(caught.value)


def test_ca_without_certificate() -> None:
    text = SMALL + TLS.replace("wellKnownCACertificates: System", REFS) + CA.replace("BEGIN", "START")
    (line,) = mistakes(text + "---\nendpoints: {b: ['h:1']}\n")
    assert "ConfigMap default/ca has no certificate in key ca.crt; put PEM text there" in line


def test_cross_namespace_needs_a_grant() -> None:
    text = swap(SMALL, "name: svc, port: 80", "name: svc, namespace: far, port: 80").replace(
        "metadata: {name: svc}", "metadata: {name: svc, namespace: far}"
    )
    (warning,) = topology(text).warnings
    assert "no ReferenceGrant in namespace far lets it refer to Service far/svc; a cluster would refuse" in warning
    grant = """
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g, namespace: far}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service, name: svc}]
"""
    assert topology(text + grant).warnings == ()
    assert len(topology(text + grant.replace("name: svc}", "name: other}")).warnings) == 1
    assert len(topology(text + grant.replace("namespace: default", "namespace: x")).warnings) == 1


def test_route_of_another_namespace() -> None:
    text = swap(SMALL, "metadata: {name: gw}", "metadata: {name: gw, namespace: infra}").replace(
        "[{name: gw}]", "[{name: gw, namespace: infra}]"
    )
    (warning,) = topology(text).warnings
    assert "Gateway infra/gw lets in routes of its own namespace alone" in warning
    open_to_all = text.replace("port: 80}]\n---\napiVersion: aig", "port: 80}]\n---\napiVersion: aig")
    open_to_all = open_to_all.replace(
        "{name: http, protocol: HTTP, port: 80}",
        "{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}",
    )
    assert topology(open_to_all).warnings == ()


def test_sections_and_several_gateways() -> None:
    two = GATEWAY.replace(
        "{name: http, protocol: HTTP, port: 80}",
        "{name: a, protocol: HTTP, port: 80}, {name: b, protocol: HTTP, port: 81, hostname: x.y}, {name: c, protocol: TCP, port: 1}",
    )
    text = two + swap(ROUTE, "[{name: gw}]", "[{name: gw, sectionName: b}]") + BACKEND
    found = topology(text)
    assert found.routes[0].gateways == ("default/gw/b",)
    assert [(item.name, item.port, item.hostname) for item in found.listeners] == [("a", 80, ""), ("b", 81, "x.y")]
    assert told(text) == [
        'Gateway default/gw spec.listeners[2].protocol "TCP": the listener is left out; HTTP is served'
    ]


def test_v1alpha1_route_with_target_refs() -> None:
    old = ROUTE.replace("v1beta1", "v1alpha1").replace(
        "parentRefs: [{name: gw}]",
        f"schema: {{name: OpenAI}}\n  targetRefs: [{{name: gw, kind: Gateway, group: {GATEWAY_API}}}]",
    )
    assert topology(GATEWAY + old + BACKEND).routes == topology(SMALL).routes


def test_second_claim_to_a_model_is_listed() -> None:
    second = ROUTE.replace("metadata: {name: route}", "metadata: {name: second}")
    assert told(SMALL + second) == [
        "default/second/rule/0 x-ai-eg-model: m: default/route/rule/0 has the same match and comes first"
    ]
    other_port = GATEWAY.replace("name: gw", "name: gw2").replace("port: 80", "port: 81")
    assert told(SMALL + other_port + second.replace("name: gw}", "name: gw2}")) == []


def test_second_rule_for_everything_is_listed_and_hosts_are_apart() -> None:
    text = swap(
        SMALL, "    - matches: [{headers: [{name: x-ai-eg-model, value: m}]}]\n      backendRefs", "    - backendRefs"
    )
    second = text[text.index(ROUTE[:20]) : text.index(BACKEND)].replace("name: route}", "name: second}")
    second = second[second.index("---\napiVersion: aigateway") :]
    assert told(text + second) == [
        "default/second/rule/0 every request: default/route/rule/0 has the same match and comes first"
    ]
    hosts = "{name: http, protocol: HTTP, port: 80, hostname: a}, {name: other, protocol: HTTP, port: 80, hostname: b}"
    apart = swap(text + second, "{name: http, protocol: HTTP, port: 80}", hosts)
    apart = apart.replace("[{name: gw}]", "[{name: gw, sectionName: http}]", 1)
    apart = apart.replace("[{name: gw}]", "[{name: gw, sectionName: other}]", 1)
    assert told(apart) == []


def test_client_traffic_policy() -> None:
    policy = """
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: ClientTrafficPolicy
metadata: {name: c}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]
  headers: {enableEnvoyHeaders: false, disableRateLimitHeaders: true}
"""
    (listener,) = topology(SMALL + policy).listeners
    assert (listener.envoy_headers, listener.rate_limit_headers) == (False, False)
    (warning,) = topology(SMALL + policy.replace("name: gw}", "name: gv}")).warnings
    assert "Gateway default/gv is not in the files (did you mean 'default/gw'?); it has no effect" in warning
    assert told(SMALL + policy + "  timeout: {http: {}}\n") == [
        "ClientTrafficPolicy default/c spec.timeout: Envoy's defaults hold"
    ]


def test_unreferenced_objects_are_told() -> None:
    spare = BACKEND[: BACKEND.rindex("---")].replace("name: b}", "name: spare}") + POOL
    warnings = topology(SMALL + spare).warnings
    assert [line.partition(": ")[2] for line in warnings] == [
        "AIServiceBackend default/spare: no route leads to it",
        "InferencePool default/pool: no route leads to it; it is not started",
    ]


HTTP_ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: h}
spec:
  parentRefs: [{name: gw}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /v1}, method: POST, headers: [{name: x-ai-eg-model, value: m}]}]
      backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]
    - matches: [{path: {type: PathPrefix, value: /}}]
      backendRefs: [{name: svc, port: 80}]
"""


def test_http_route() -> None:
    found = topology(GATEWAY + HTTP_ROUTE + POOL + BACKEND[BACKEND.rindex("---") :])
    (route,) = found.routes
    assert route.rules[0].matches == (
        (
            HeaderMatch("x-ai-eg-model", "m"),
            HeaderMatch(":path", r"/v1(?:[/?].*)?", regex=True),
            HeaderMatch(":method", "POST"),
        ),
    )
    assert route.rules[1].matches == ()
    assert [target for rule in route.rules for target in rule.targets] == [
        Target("default/pool", pool=True),
        Target("default/svc", pool=False),
    ]
    assert (found.pools[0].models, found.backends[0].name, route.costs) == (("m",), "default/svc", ())


def test_service_with_the_name_of_a_backend() -> None:
    text = SMALL + HTTP_ROUTE.replace("{name: svc, port", "{name: b, port") + POOL
    assert "Service default/b has the name of an AIServiceBackend; rename one" in mistakes(text)[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("60s", 60.0),
        ("1m30s", 90.0),
        ("500ms", 0.5),
        ("0s", 0.0),
        ("2h", 7200.0),
        ("60", None),
        ("", None),
        ("-1s", None),
        ("1d", None),
    ],
)
def test_durations(text: str, value: float | None) -> None:
    assert seconds(text) == value


def test_policy_alone_is_enough_to_read() -> None:
    found = topology(POLICY)
    assert (found.routes, found.listeners, len(found.limits)) == ((), (), 1)


def test_a_wrong_expression_is_told_where_it_stands() -> None:
    text = SMALL.replace(
        "{metadataKey: total, type: TotalToken}", "{metadataKey: total, type: CEL, cel: input_tokens + 2u *}"
    )
    assert text != SMALL
    (line,) = mistakes(text)
    number = next(n for n, one in enumerate(text.splitlines(), 1) if "2u *" in one)
    assert line.startswith(
        f"-:{number}: AIGatewayRoute default/route: spec.llmRequestCosts[0].cel: 'input_tokens + 2u *' is no cost: "
    )
    assert topology(text.replace("2u *", "2u * output_tokens")).routes[0].costs[0].type == "CEL"
