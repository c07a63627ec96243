# SPDX-License-Identifier: Apache-2.0
"""Every field of every kind: read, harmless, listed as unsupported, misspelled, or of the wrong type."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from epp.manifests.fields import Fields, Items, Shape, Unsupported
from epp.manifests.kinds import KINDS
from tests.manifests.support import GATEWAY, POLICY, ROOT, ROUTE, SMALL, documents, mistakes, swap, told, topology

POOL_ROUTE = "backendRefs: [{group: inference.networking.k8s.io, kind: InferencePool, name: pool}]"
POOL = """
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {matchLabels: {a: b}}, targetPorts: [{number: 8000}], endpointPickerRef: {name: e, port: {number: 9002}}}
"""
WITH_POOL = GATEWAY + ROUTE.replace("backendRefs: [{name: b}]", POOL_ROUTE) + POOL
LLM = """
---
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {name: pool}
spec:
  model: {uri: hf://x, name: m}
  router: {scheduler: {pool: {ref: {name: pool}}}}
"""
WITH_LLM = WITH_POOL + LLM

UNSUPPORTED = [
    (SMALL, "protocol: HTTP", "protocol: HTTPS", "Gateway default/gw spec.listeners[0].protocol \"HTTPS\": it is served in plain HTTP, on the loopback address"),
    (SMALL, "gatewayClassName: any", "gatewayClassName: any\n  addresses: [{value: 10.0.0.1}]", "Gateway default/gw spec.addresses: it listens on the loopback address"),
    (SMALL, "backendRefs: [{name: b}]", "backendRefs: [{name: b, modelNameOverride: x}]", "AIGatewayRoute default/route spec.rules[0].backendRefs[0].modelNameOverride \"x\": the model's name stays the one the client sent"),
    (SMALL, "backendRefs: [{name: b}]", "backendRefs: [{name: b, priority: 1}]", "AIGatewayRoute default/route spec.rules[0].backendRefs[0].priority 1: all backends of a rule share its requests by weight"),
    (SMALL, "backendRefs: [{name: b}]", "backendRefs: [{name: b, headerMutation: {remove: [x]}}]", "AIGatewayRoute default/route spec.rules[0].backendRefs[0].headerMutation: requests and answers go on unchanged"),
    (SMALL, "backendRefs: [{name: b}]", "backendRefs: [{name: b}]\n      timeouts: {backendRequest: 5s}", "AIGatewayRoute default/route spec.rules[0].timeouts.backendRequest \"5s\": only the timeout of the whole request holds; see timeouts.request"),
    (SMALL, "parentRefs: [{name: gw}]", "parentRefs: [{name: gw}]\n  hostnames: [a.b]", "AIGatewayRoute default/route spec.hostnames: the route holds for every host"),
    (SMALL, "schema: {name: OpenAI}", "schema: {name: AWSBedrock}", "AIServiceBackend default/b spec.schema.name \"AWSBedrock\": requests go to it as they came, untranslated"),
    (SMALL, "schema: {name: OpenAI}", "schema: {name: OpenAI, prefix: /compatible/v1}", "AIServiceBackend default/b spec.schema prefix \"/compatible/v1\": simulated pods serve /v1"),
    (SMALL, "schema: {name: OpenAI}", "schema: {name: OpenAI}\n  bodyMutation: {remove: [x]}", "AIServiceBackend default/b spec.bodyMutation: requests and answers go on unchanged"),
    (SMALL + POLICY, "  rateLimit:", "  retry: {numRetries: 2}\n  rateLimit:", "BackendTrafficPolicy default/limit spec.retry: Envoy's defaults hold"),
    (SMALL + POLICY, "  rateLimit:", "  timeout: {http: {requestTimeout: 1s}}\n  rateLimit:", "BackendTrafficPolicy default/limit spec.timeout: Envoy's defaults hold"),
    (SMALL + POLICY, "type: Global\n    global:", "type: Local\n    local:", "BackendTrafficPolicy default/limit spec.rateLimit.local: nothing is limited by it; use global"),
    (SMALL + POLICY, "[{headers: [{name: x-user-id, type: Distinct}]}]", "[{sourceCIDR: {value: 10.0.0.0/8}}]", "BackendTrafficPolicy default/limit spec.rateLimit.global.rules[0].clientSelectors[0].sourceCIDR: the whole rule is left out: every client of one machine has the same address"),
    (WITH_POOL, "targetPorts: [{number: 8000}]", "targetPorts: [{number: 8000}, {number: 8001}]", "InferencePool default/pool spec.targetPorts: only the first port, 8000, is used"),
    (WITH_LLM, "  model: {uri", "  prefill: {replicas: 2}\n  model: {uri", "LLMInferenceService default/pool spec.prefill: all pods are of one kind"),
    (WITH_LLM, "{scheduler:", "{route: {http: {refs: [{name: x}]}}, scheduler:", "LLMInferenceService default/pool spec.router.route: requests reach it by the routes in the files"),
    (SMALL, "---\napiVersion: v1", "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\napiVersion: v1", "Deployment default/d: objects of this kind are not read"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "old", "new", "line"), UNSUPPORTED)
def test_unsupported_is_listed_by_name(text: str, old: str, new: str, line: str) -> None:
    text = swap(text, old, new)
    assert told(text) == [line]


@pytest.mark.parametrize("text", [SMALL, SMALL + POLICY, WITH_POOL, WITH_LLM])
def test_small_ones_ask_for_nothing_more(text: str) -> None:
    found = topology(text)
    assert found.unsupported == ()
    assert found.warnings == ()


@pytest.mark.parametrize(("kind", "why"), [(name, kind.nothing) for name, kind in KINDS.items() if kind.nothing])
def test_kinds_without_effect_are_listed(kind: str, why: str) -> None:
    known = KINDS[kind]
    group = f"{known.groups[0]}/{known.versions[0]}"
    assert told(f"{SMALL}\n---\napiVersion: {group}\nkind: {kind}\nmetadata: {{name: x}}\nspec: {{}}\n") == [
        f"{kind} default/x: {why}"
    ]


HARMLESS = """
---
apiVersion: v1
kind: Namespace
metadata: {name: ns, labels: {a: b}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sa}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: any}
spec: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: i, annotations: {any/thing: x}}
spec:
  predictor:
    minReplicas: 2
    model:
      modelFormat: {name: huggingface}
      args: [--model_name=m]
      resources: {limits: {cpu: 1}}
      livenessProbe: {httpGet: {path: /, port: 1}}
      securityContext: {runAsNonRoot: true}
    serviceAccountName: x
status: {anything: 1}
"""


def test_harmless_is_not_told() -> None:
    text = swap(SMALL, "name: svc, port: 80", "name: i-predictor, port: 80") + HARMLESS
    found = topology(text)
    assert found.unsupported == ()
    assert found.warnings == ()
    assert (found.backends[0].models, found.backends[0].replicas) == (("m",), 2)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("gatewayClassName: any", "gatewayClassName: any\n  listenerz: 1", "-:8: Gateway default/gw: spec: unknown field \"listenerz\"; did you mean 'listeners'?; it has no effect"),
        ("llmRequestCosts:", "llmRequestCost: 1\n  llmRequestCosts:", "AIGatewayRoute default/route: spec: unknown field \"llmRequestCost\"; did you mean 'llmRequestCosts'?; it has no effect"),
        ("backendRefs: [{name: b}]", "backendRefs: [{name: b, wieght: 1}]", "AIGatewayRoute default/route: spec.rules[0].backendRefs[0]: unknown field \"wieght\"; did you mean 'weight'?; it has no effect"),
        ("backendRef: {", "backendRef: {zzz: 1, ", "AIServiceBackend default/b: spec.backendRef: unknown field \"zzz\"; it has no effect"),
        ("v1beta1\nkind: AIGatewayRoute", "v2\nkind: AIGatewayRoute", "AIGatewayRoute default/route: version \"v2\" is unknown; it is read as v1beta1"),
        ("{name: svc}", "{name: svc, annotations: {epp/replica: \"2\"}}", "Service default/svc: unknown annotation \"epp/replica\"; did you mean 'epp/replicas'?; it has no effect"),
    ],
)  # fmt: skip
def test_misspelled_is_a_warning(old: str, new: str, line: str) -> None:
    (warning,) = topology(swap(SMALL, old, new)).warnings
    assert line in warning


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("port: 80}]\n---\napiVersion: aig", "port: http}]\n---\napiVersion: aig", "spec.listeners[0].port: must be an integer from 1 to 65535, not \"http\""),
        ("{name: http, protocol", "{name: 80, protocol", "spec.listeners[0].name: must be a text; quote it, not 80"),
        ("listeners: [", "listeners: {a: [", ""),
        ("matches: [{headers", "matches: {headers", ""),
        ("{metadataKey: total, type: TotalToken}", "{metadataKey: total, type: TotalTokens}", "spec.llmRequestCosts[0].type: \"TotalTokens\" is unknown; did you mean 'TotalToken'?"),
        ("{metadataKey: total, type: TotalToken}", "{type: TotalToken}", "spec.llmRequestCosts[0]: metadataKey is missing"),
        ("schema: {name: OpenAI}", "schema: OpenAI", "spec.schema: must be a mapping, not \"OpenAI\""),
        ("schema: {name: OpenAI}", "", "AIServiceBackend default/b: spec: schema is missing"),
        ("metadata: {name: gw}", "metadata: {name: gw, labels: {a: 1}}", "metadata.labels.a: must be a text; quote it, not 1"),
        ("aigateway.envoyproxy.io/v1beta1\nkind: AIGatewayRoute", "gateway.envoyproxy.io/v1alpha1\nkind: AIGatewayRoute", "apiVersion is \"gateway.envoyproxy.io/v1alpha1\", allowed: aigateway.envoyproxy.io/v1beta1"),
        ("kind: AIGatewayRoute", "kind: AIGatewayRout", "-:11: unknown kind \"AIGatewayRout\"; did you mean 'AIGatewayRoute'?"),
        ("backendRefs: [{name: b}]", "backendRefs: {name: b}", "spec.rules[0].backendRefs: must be a list, not a mapping"),
        ("backendRefs: [{name: b}]", "backendRefs: [{name: b, weight: -1}]", "spec.rules[0].backendRefs[0].weight: must be an integer from 0 to 2147483647, not -1"),
        ("parentRefs: [{name: gw}]", "parentRefs: [{name: ''}]", "spec.parentRefs[0].name: must not be empty"),
    ],
)  # fmt: skip
def test_malformed_is_a_mistake(old: str, new: str, line: str) -> None:
    text = GATEWAY.rstrip() + SMALL.removeprefix(GATEWAY)
    assert any(line in said for said in mistakes(swap(text, old, new)))


def test_all_mistakes_are_told_at_once() -> None:
    text = SMALL.replace("port: 80}]", "port: 0}]").replace("type: TotalToken", "type: X")
    assert len(mistakes(text)) == 3


def test_null_is_absent() -> None:
    assert topology(SMALL.replace("schema: {name: OpenAI}", "schema: {name: OpenAI, prefix: null}")).unsupported == ()


def fields_of(shape: Shape, name: str = "") -> Iterator[tuple[str, Shape]]:
    """Every field below a shape, with its name."""
    if isinstance(shape, Items):
        yield from fields_of(shape.of, name)
    elif isinstance(shape, Fields):
        for child, inner in shape.fields.items():
            yield child, inner
            yield from fields_of(inner, child)


def test_documentation_names_every_kind_and_every_unsupported_field() -> None:
    text = (ROOT / "docs" / "manifests.md").read_text()
    named = set(re.findall(r"[A-Za-z0-9]+", text))
    missing = sorted(
        f"{kind}.{name}"
        for kind, known in KINDS.items()
        for name, shape in fields_of(Fields(known.fields))
        if isinstance(shape, Unsupported) and name not in named
    )
    assert missing == []
    assert [kind for kind in KINDS if f"`{kind}`" not in text] == []


def test_documents_of_unknown_kinds_need_a_name() -> None:
    assert documents("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n").remarks.unsupported
