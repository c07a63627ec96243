# SPDX-License-Identifier: Apache-2.0
"""BackendTrafficPolicies to limits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from epp.config.findings import remedy, show
from epp.manifests.documents import Document, Step
from epp.manifests.gateways import targets_of
from epp.manifests.kinds.envoygateway import ABSENT_HEADER, NO_LIMIT
from epp.manifests.kinds.kind import GATEWAY_API
from epp.manifests.limits import Absent, Charge, LimitPolicy, LimitRule, Match, Selector, Unit
from epp.manifests.routes import path_regex
from epp.manifests.sources import Sources, not_found

_ROUTE_KINDS = ("HTTPRoute", "AIGatewayRoute")


def policies_of(sources: Sources) -> tuple[LimitPolicy, ...]:
    """The policies of the files that limit something, in their order."""
    made = (_policy(sources, document) for document in sources.documents.of("BackendTrafficPolicy"))
    return tuple(policy for policy in made if policy is not None and policy.rules)


def _policy(sources: Sources, document: Document) -> LimitPolicy | None:
    limit = document.spec.get("rateLimit")
    if limit is None:
        return None
    if limit.get("type", "Global") == "Local":
        if "local" not in limit:
            sources.remarks.cannot(f"{document.title} spec.rateLimit.type Local", f"{NO_LIMIT}; use Global")
        return None
    if "global" not in limit:
        if limit.get("type") == "Global":
            sources.mistake(document, ("spec", "rateLimit"), "type is Global, but global is missing")
        return None
    rules = [_rule(sources, document, index, rule) for index, rule in enumerate(limit["global"].get("rules", []))]
    gateways, routes = _targets(sources, document)
    kept = tuple(rule for rule in rules if rule is not None)
    return LimitPolicy(document.full_name, kept, gateways, routes, _absent(sources, document))


def _targets(sources: Sources, document: Document) -> tuple[tuple[str, ...], tuple[str, ...]]:
    gateways: list[str] = []
    routes: list[str] = []
    for path, target in targets_of(document):
        kind, name = target.get("kind", ""), f"{document.namespace}/{target['name']}"
        section = target.get("sectionName")
        if kind == "Gateway" and target.get("group", GATEWAY_API) == GATEWAY_API:
            gateways.append(f"{name}/{section}" if section else name)
            known = sources.documents.names("Gateway")
            if known and sources.find("Gateway", name) is None:
                sources.warn(document, path, f"{not_found('Gateway', name, known)}; it limits nothing there")
        elif kind in _ROUTE_KINDS:
            routes.append(name)
            if section:
                what = f"{document.title} targetRefs sectionName {show(section)}"
                sources.remarks.cannot(what, "the policy holds for all rules of the route")
            known = sources.documents.names(*_ROUTE_KINDS)
            if name not in known:
                sources.warn(document, path, f"{not_found(kind, name, known)}; it limits nothing there")
        else:
            sources.mistake(document, path, f"kind {show(kind)} is not allowed here; allowed: Gateway, HTTPRoute")
    if not gateways and not routes:
        sources.warn(document, ("spec",), "it has no targetRefs, and limits nothing")
    return tuple(gateways), tuple(routes)


def _absent(sources: Sources, document: Document) -> Absent:
    value = document.annotations.get(ABSENT_HEADER, Absent.UNLIMITED.value)
    known = [choice.value for choice in Absent]
    if value not in known:
        path = ("metadata", "annotations", ABSENT_HEADER)
        sources.mistake(document, path, f"{ABSENT_HEADER} is {show(value)}{remedy(str(value), known)}")
        return Absent.UNLIMITED
    return Absent(value)


def _rule(sources: Sources, document: Document, number: int, rule: Mapping[str, Any]) -> LimitRule | None:
    """One rule; None if it has a selector that cannot be asked for (which is listed)."""
    path: tuple[Step, ...] = ("spec", "rateLimit", "global", "rules", number)
    selectors: list[Selector] = []
    for index, condition in enumerate(rule.get("clientSelectors", [])):
        if "sourceCIDR" in condition:
            return None
        place = (*path, "clientSelectors", index)
        if not condition:
            sources.mistake(document, place, "a selector asks for at least one of headers, methods, path, sourceCIDR")
        for kind, header, value, invert in _conditions(sources, document, place, condition):
            selectors.append(Selector(f"rule-{number}-match-{len(selectors)}", header, kind, value, invert))
    cost = rule.get("cost", {})
    return LimitRule(
        tuple(selectors),
        rule["limit"]["requests"],
        Unit[rule["limit"]["unit"].upper()],
        _charge(sources, document, (*path, "cost", "request"), cost.get("request")),
        _charge(sources, document, (*path, "cost", "response"), cost.get("response")),
        rule.get("shared", False),
        rule.get("shadowMode", False),
    )


def _conditions(
    sources: Sources, document: Document, path: tuple[Step, ...], condition: Mapping[str, Any]
) -> list[tuple[Match, str, str, bool]]:
    found = []
    for index, item in enumerate(condition.get("headers", [])):
        kind, place = Match(item.get("type", "Exact")), (*path, "headers", index)
        value, invert = item.get("value", ""), item.get("invert", False)
        if kind is Match.DISTINCT and (value or invert):
            sources.mistake(document, place, "type Distinct holds for every value; leave value and invert out")
        if kind is not Match.DISTINCT and not value:
            sources.mistake(document, place, f"type {kind.value} asks for a value")
        if kind is Match.REGEX:
            _check_regex(sources, document, place, value)
        found.append((kind, item["name"].lower(), value, invert))
    methods = condition.get("methods", [])
    if methods:
        found.append(_method(sources, document, (*path, "methods"), methods))
    if "path" in condition:
        item = condition["path"]
        kind_name, value = item.get("type", "PathPrefix"), item.get("value", "/")
        if kind_name == "PathPrefix" and value.endswith("/"):
            found.append((Match.PREFIX, ":path", value, item.get("invert", False)))
        else:
            if kind_name == "RegularExpression":
                _check_regex(sources, document, (*path, "path"), value)
            found.append((Match.REGEX, ":path", path_regex(kind_name, value), item.get("invert", False)))
    return found


def _method(
    sources: Sources, document: Document, path: tuple[Step, ...], methods: list[Mapping[str, Any]]
) -> tuple[Match, str, str, bool]:
    """Any one of several methods is enough, as in Envoy Gateway; to be none of several is one inverted selector."""
    values = [item["value"] for item in methods]
    inverted = {item.get("invert", False) for item in methods}
    if len(inverted) > 1 or (True in inverted and len(values) > 1):
        sources.mistake(document, path, "several methods with invert hold for every request; invert a single one")
    if len(values) == 1:
        return Match.EXACT, ":method", values[0], True in inverted
    return Match.REGEX, ":method", "|".join(map(re.escape, values)), False


def _check_regex(sources: Sources, document: Document, path: tuple[Step, ...], value: str) -> None:
    try:
        re.compile(value)
    except re.error as error:
        sources.mistake(document, path, f"{show(value)} is no regular expression: {error.msg}")


def _charge(
    sources: Sources, document: Document, path: tuple[Step, ...], cost: Mapping[str, Any] | None
) -> Charge | None:
    if cost is None:
        return None
    if cost["from"] == "Number":
        if "number" not in cost or "metadata" in cost:
            sources.mistake(document, path, "from Number asks for number, and nothing else")
        return Charge(number=cost.get("number", 0))
    if "metadata" not in cost or "number" in cost:
        sources.mistake(document, path, "from Metadata asks for metadata with namespace and key, and nothing else")
        return None
    return Charge(namespace=cost["metadata"]["namespace"], key=cost["metadata"]["key"])
