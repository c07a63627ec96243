# SPDX-License-Identifier: Apache-2.0
"""BackendTrafficPolicies to limits, and limits to descriptors and rules of the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.manifests import resolve_limits, service_rules
from epp.manifests.limits import (
    ROUTE_KEY,
    Absent,
    Charge,
    LimitPolicy,
    LimitRule,
    Match,
    Selector,
    Source,
    Unit,
    descriptors,
    policy_for,
)
from epp.manifests.topology import Listener, Route, Rule, Target, Topology
from tests.manifests.support import DATA, POLICY, SMALL, documents, mistakes, swap, told, topology

SELECTORS = "[{headers: [{name: x-user-id, type: Distinct}]}]"
LIMIT = "limit: {requests: 10, unit: Hour}"


def rule(old: str = "", new: str = "") -> LimitRule:
    return topology(SMALL + (swap(POLICY, old, new) if old else POLICY)).limits[0].rules[0]


def test_a_rule_in_full() -> None:
    selectors = "[{headers: [{name: X-A, type: Distinct}, {name: x-b, value: v}]}, {headers: [{name: x-c, type: RegularExpression, value: a.*, invert: true}]}]"
    found = rule(SELECTORS, selectors)
    assert found.selectors == (
        Selector("rule-0-match-0", "x-a", Match.DISTINCT),
        Selector("rule-0-match-1", "x-b", Match.EXACT, "v"),
        Selector("rule-0-match-2", "x-c", Match.REGEX, "a.*", invert=True),
    )
    assert (found.requests, found.unit, found.at_request, found.at_response) == (10, Unit.HOUR, None, None)


@pytest.mark.parametrize("unit", ["Second", "Minute", "Hour", "Day", "Week", "Month", "Year"])
def test_units(unit: str) -> None:
    assert rule("unit: Hour", f"unit: {unit}").unit is Unit[unit.upper()]


def test_costs_shared_and_shadow() -> None:
    costs = "cost: {request: {from: Number, number: 0}, response: {from: Metadata, metadata: {namespace: io.envoy.ai_gateway, key: total}}}"
    found = rule(LIMIT, f"{LIMIT}\n          {costs}\n          shared: true\n          shadowMode: true")
    assert (found.at_request, found.at_response) == (Charge(number=0), Charge(None, "io.envoy.ai_gateway", "total"))
    assert (found.shared, found.shadow) == (True, True)


@pytest.mark.parametrize(
    ("condition", "selector"),
    [
        ("path: {type: Exact, value: /v1/x.y}", (Match.REGEX, ":path", r"/v1/x\.y(?:\?.*)?", False)),
        ("path: {value: /v1}", (Match.REGEX, ":path", r"/v1(?:[/?].*)?", False)),
        ("path: {value: /v1/, invert: true}", (Match.PREFIX, ":path", "/v1/", True)),
        ("path: {type: RegularExpression, value: '/a|/b'}", (Match.REGEX, ":path", r"(?:/a|/b)(?:\?.*)?", False)),
        ("methods: [{value: POST}]", (Match.EXACT, ":method", "POST", False)),
        ("methods: [{value: POST, invert: true}]", (Match.EXACT, ":method", "POST", True)),
        ("methods: [{value: POST}, {value: PUT}]", (Match.REGEX, ":method", "POST|PUT", False)),
    ],
)
def test_paths_and_methods(condition: str, selector: tuple[Match, str, str, bool]) -> None:
    (found,) = rule(SELECTORS, f"[{{{condition}}}]").selectors
    assert (found.match, found.header, found.value, found.invert) == selector


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("type: Distinct", "type: Distinct, value: v", "type Distinct holds for every value; leave value and invert out"),
        ("type: Distinct", "type: Distinct, invert: true", "type Distinct holds for every value"),
        ("type: Distinct", "type: Exact", "type Exact asks for a value"),
        ("type: Distinct", "type: RegularExpression, value: '['", "\"[\" is no regular expression"),
        ("type: Distinct", "type: Distnict", "\"Distnict\" is unknown; did you mean 'Distinct'?"),
        ("unit: Hour", "unit: Hours", "spec.rateLimit.global.rules[0].limit.unit: \"Hours\" is unknown; did you mean 'Hour'?"),
        ("requests: 10", "requests: -1", "must be an integer from 0 to 4294967295, not -1"),
        (LIMIT, "shared: true", "rules[0]: limit is missing"),
        (LIMIT, LIMIT + "\n          cost: {request: {from: Number}}", "from Number asks for number, and nothing else"),
        (LIMIT, LIMIT + "\n          cost: {request: {from: Metadata, number: 1}}", "from Metadata asks for metadata with namespace and key"),
        (LIMIT, LIMIT + "\n          cost: {request: {from: Metadata, metadata: {key: k}}}", "metadata: namespace is missing"),
        (SELECTORS, "[{}]", "a selector asks for at least one of headers, methods, path, sourceCIDR"),
        (SELECTORS, "[{methods: [{value: A}, {value: B, invert: true}]}]", "several methods with invert hold for every request"),
        ("kind: Gateway", "kind: Service", "kind \"Service\" is not allowed here; allowed: Gateway, HTTPRoute"),
        ("metadata: {name: limit}", "metadata: {name: limit, annotations: {epp/absent-header: share}}", "epp/absent-header is \"share\"; did you mean 'shared'?"),
        ("    global:\n      rules:", "    globl:\n      rules:", "type is Global, but global is missing"),
    ],
)  # fmt: skip
def test_mistakes(old: str, new: str, line: str) -> None:
    assert line in mistakes(SMALL + swap(POLICY, old, new))[0]


@pytest.mark.parametrize("value", list(Absent))
def test_absent_header(value: Absent) -> None:
    text = swap(POLICY, "{name: limit}", f"{{name: limit, annotations: {{epp/absent-header: {value.value}}}}}")
    assert topology(SMALL + text).limits[0].absent is value


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("name: gw}", "name: gv}", "Gateway default/gv is not in the files (did you mean 'default/gw'?); it limits nothing there"),
        ("kind: Gateway, name: gw", "kind: HTTPRoute, name: roote", "HTTPRoute default/roote is not in the files (did you mean 'default/route'?)"),
        (LIMIT, LIMIT + "\n          cost: {response: {from: Metadata, metadata: {namespace: io.envoy.ai_gateway, key: totl}}}", "no route's llmRequestCosts have \"totl\"; did you mean 'total'?; nothing is counted"),
        ("type: Distinct}", "type: Distinct}, {name: x-ai-eg-model, value: mm}", "no route has model \"mm\"; this rule limits nothing"),
        ("- clientSelectors:", "- clientSelector:", "unknown field \"clientSelector\"; did you mean 'clientSelectors'?; it has no effect, and the rule holds for all users together"),
    ],
)  # fmt: skip
def test_odd_policies_are_told(old: str, new: str, line: str) -> None:
    text = SMALL + swap(POLICY, old, new)
    assert any(line in warning for warning in topology(text).warnings)
    assert any(line in warning for warning in resolve_limits(documents(text)).warnings)


def test_second_policy_of_a_target_is_listed() -> None:
    second = POLICY.replace("name: limit}", "name: second}")
    line = "BackendTrafficPolicy default/second for default/gw: default/limit has it already, and counts"
    assert told(SMALL + POLICY + second) == [line]
    assert list(map(str, resolve_limits(documents(SMALL + POLICY + second)).unsupported)) == [line]
    assert list(map(str, resolve_limits(documents(POLICY + second)).unsupported)) == [line]


# -- descriptors and rules --


def tree(text: str) -> list[Mapping[str, Any]]:
    return [dict(domain) for domain in service_rules(topology(text)).domains]


def test_rules_of_a_gateway_policy() -> None:
    leaf = {
        "key": "rule-0-match-0",
        "rate_limit": {"unit": "hour", "requests_per_unit": 10, "label": "default/limit/rule-0"},
    }
    assert tree(SMALL + POLICY) == [
        {"domain": "default/gw/http", "descriptors": [{"key": "route", "descriptors": [leaf]}]}
    ]
    assert tree(SMALL) == []


def test_policy_of_a_route_counts_in_the_place_of_its_gateways() -> None:
    of_route = (
        swap(POLICY, "kind: Gateway, name: gw", "kind: HTTPRoute, name: route")
        .replace("name: limit}", "name: r}")
        .replace("10", "20")
    )
    (domain,) = tree(SMALL + POLICY + of_route)
    assert [(node["key"], node.get("value")) for node in domain["descriptors"]] == [
        ("route", None),
        ("route", "default/route/rule/0"),
    ]
    limits = [node["descriptors"][0]["rate_limit"]["requests_per_unit"] for node in domain["descriptors"]]
    assert limits == [10, 20]


def test_shared_rule_shadow_rule_and_rule_for_everyone() -> None:
    text = swap(
        POLICY,
        "- clientSelectors: " + SELECTORS + "\n          " + LIMIT,
        f"- {LIMIT}\n          shared: true\n        - {LIMIT}\n          shadowMode: true",
    )
    (domain,) = tree(SMALL + text)
    limit = {"unit": "hour", "requests_per_unit": 10, "label": "default/limit/rule-0"}
    second = {**limit, "label": "default/limit/rule-1"}
    assert domain["descriptors"] == [
        {"key": "route", "value": "shared/default/limit", "descriptors": [{"key": "rule-0-match--1", "value": "rule-0-match--1", "rate_limit": limit}]},
        {"key": "route", "descriptors": [{"key": "rule-1-match--1", "value": "rule-1-match--1", "rate_limit": second, "shadow_mode": True}]},
    ]  # fmt: skip


def test_absent_header_in_one_counter() -> None:
    text = swap(POLICY, "{name: limit}", "{name: limit, annotations: {epp/absent-header: shared}}")
    (domain,) = tree(SMALL + text)
    (route,) = domain["descriptors"]
    assert [(node["key"], node.get("value")) for node in route["descriptors"]] == [
        ("rule-0-match-0", None),
        ("rule-0-match-0-absent", "rule-0-match-0-absent"),
    ]


def test_policy_alone_names_its_listener_http() -> None:
    assert [domain["domain"] for domain in tree(POLICY)] == ["default/gw/http"]
    section = swap(POLICY, "name: gw}", "name: gw, sectionName: web}")
    assert [domain["domain"] for domain in tree(section)] == ["default/gw/web"]


def test_limits_alone_need_neither_backends_nor_keys() -> None:
    text = SMALL[: SMALL.index("---\napiVersion: aigateway.envoyproxy.io/v1beta1\nkind: AIServiceBackend")] + POLICY
    alone = resolve_limits(documents(text))
    assert alone.limits == topology(SMALL + POLICY).limits
    assert service_rules(alone) == service_rules(topology(SMALL + POLICY))
    for name in ("inferenceservice", "llminferenceservice"):
        assert service_rules(resolve_limits(documents((DATA / f"{name}.yaml").read_text()))).domains


HEADERS = ("x-a", "x-b", "x-c")


@st.composite
def policies(draw: st.DrawFn) -> LimitPolicy:
    """Any policy: several rules of any selectors."""
    rules = []
    for number in range(draw(st.integers(1, 4))):
        kinds = draw(st.lists(st.sampled_from([Match.DISTINCT, Match.EXACT, Match.REGEX]), max_size=3))
        selectors = tuple(
            Selector(f"rule-{number}-match-{index}", header, kind, "" if kind is Match.DISTINCT else "v")
            for index, (kind, header) in enumerate(zip(kinds, HEADERS, strict=False))
        )
        rules.append(LimitRule(selectors, number, Unit.HOUR, shared=draw(st.booleans())))
    where = draw(st.sampled_from([("ns/gw",), ()]))
    return LimitPolicy("ns/p", tuple(rules), where, () if where else ("ns/r",), draw(st.sampled_from(list(Absent))))


def limit_at(tree: list[dict[str, Any]], entries: list[tuple[str, str]]) -> int | None:
    """What the Go service finds for a descriptor: at each level key and value, else the key alone."""
    found: dict[str, Any] = {}
    for key, value in entries:
        exact = [node for node in tree if (node["key"], node.get("value")) == (key, value)]
        loose = [node for node in tree if node["key"] == key and "value" not in node]
        if not exact and not loose:
            return None
        found = (exact or loose)[0]
        tree = found.get("descriptors", [])
    limit = found.get("rate_limit")
    return None if limit is None else int(limit["requests_per_unit"])


@given(policies())
def test_every_descriptor_finds_its_rule(policy: LimitPolicy) -> None:
    """What Envoy sends for a rule, whatever the headers' values, meets that rule's limit in the service's tree."""
    name = "ns/r/rule/0"
    route = Route("ns/r", ("ns/gw",), (Rule(name, (), (Target("ns/b", pool=False),)),))
    place = Topology((Listener("ns/gw", "http", 80),), (route,), limits=(policy,))
    (domain,) = service_rules(place).domains
    sent = descriptors(policy, name)
    assert len({entry.entries for entry in sent}) == len(sent)
    for descriptor in sent:
        entries = [(entry.key, entry.value or "somebody") for entry in descriptor.entries]
        assert entries[0][0] == ROUTE_KEY
        assert limit_at(domain["descriptors"], entries) == descriptor.rule.requests
        absent = [entry for entry in descriptor.entries if entry.source is Source.MISSING]
        assert not absent or policy.absent is Absent.SHARED


def test_which_policy_holds() -> None:
    gateway, listener, route = (LimitPolicy(name, ()) for name in ("g", "l", "r"))
    gateway = LimitPolicy("g", (), ("n/gw",))
    listener = LimitPolicy("l", (), ("n/gw/http",))
    route = LimitPolicy("r", (), (), ("n/route",))
    everything = (gateway, listener, route)
    assert policy_for(everything, "n/route", "n/gw", "http") is route
    assert policy_for(everything, "n/other", "n/gw", "http") is listener
    assert policy_for(everything, "n/other", "n/gw", "web") is gateway
    assert policy_for(everything, "n/other", "n/gx", "web") is None
    assert policy_for((LimitPolicy("g2", (), ("n/gw",)), gateway), "", "n/gw", "web") != gateway
