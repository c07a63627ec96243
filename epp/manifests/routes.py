# SPDX-License-Identifier: Apache-2.0
"""AIGatewayRoutes and HTTPRoutes to routes of the topology.

Two rounds: the routes first, which says what models each target is asked for; then the targets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from epp.config.findings import show
from epp.contract.aigateway import MODEL_HEADER
from epp.manifests.documents import Document, Step
from epp.manifests.gateways import attached_to
from epp.manifests.kinds.kind import AI_GATEWAY, INFERENCE, INFERENCE_X
from epp.manifests.sources import Sources, full_name, not_found, seconds
from epp.manifests.targets import Targets
from epp.manifests.topology import Cost, HeaderMatch, Route, Rule, Target

Asked = dict[tuple[str, str], list[str]]
"""Models by the kind and name of the target that routes ask for them."""


class Routes:
    """Makes routes; `asked` fills while it does."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._places: dict[tuple[str, str], tuple[Document, tuple[Step, ...], int | None]] = {}
        self.asked: Asked = {}

    def all(self) -> tuple[Route, ...]:
        """The routes of the files, in their order."""
        return tuple(self._route(document) for document in self._sources.documents.of("AIGatewayRoute", "HTTPRoute"))

    def make(self, targets: Targets) -> None:
        """Make everything the routes lead to."""
        for (kind, name), models in sorted(self.asked.items(), key=lambda item: item[0][0] == "Service"):
            document, path, port = self._places[kind, name]
            if kind == "Service" and name in targets.backends:
                self._sources.mistake(document, path, f"Service {name} has the name of an AIServiceBackend; rename one")
            elif kind == "Service":
                targets.service(name, models, document, path, port)
            elif kind == "InferencePool":
                if not targets.pool(name, models):
                    self._sources.mistake(document, (*path, "name"), not_found(kind, name, targets.pool_names()))
            elif not targets.ai_backend(name, models):
                known = self._sources.documents.names(kind)
                self._sources.mistake(document, (*path, "name"), not_found(kind, name, known))

    def _route(self, document: Document) -> Route:
        spec = document.spec
        schema = spec.get("schema", {}).get("name", "OpenAI")
        if schema != "OpenAI":
            what = f"{document.title} spec.schema.name {show(schema)}"
            self._sources.remarks.cannot(what, "requests are read by their paths")
        rules = tuple(self._rule(document, index, rule) for index, rule in enumerate(spec["rules"]))
        return Route(document.full_name, attached_to(self._sources, document), rules, self._costs(document))

    def _rule(self, document: Document, index: int, rule: Mapping[str, Any]) -> Rule:
        path: tuple[Step, ...] = ("spec", "rules", index)
        matches = tuple(_match(match) for match in rule.get("matches", []))
        matches = tuple(match for match in matches if match)
        if len(matches) < len(rule.get("matches", [])):
            matches = ()  # One that asks for nothing lets every request in.
        models = [item.value for match in matches for item in match if item.name == MODEL_HEADER and not item.regex]
        targets = self._targets(document, path, rule.get("backendRefs", []), models)
        timeout_s = None
        request = rule.get("timeouts", {}).get("request")
        if request is not None:
            timeout_s = seconds(request)
            if timeout_s is None:
                text = f"{show(request)} is no duration; allowed: such as 60s, 1m30s, 500ms, 0s for none"
                self._sources.mistake(document, (*path, "timeouts", "request"), text)
        return Rule(f"{document.full_name}/rule/{index}", matches, targets, timeout_s)

    def _targets(
        self, document: Document, path: tuple[Step, ...], references: list[Mapping[str, Any]], models: list[str]
    ) -> tuple[Target, ...]:
        targets = []
        for index, reference in enumerate(references):
            place = (*path, "backendRefs", index)
            kind = self._kind(document, place, reference)
            weight = reference.get("weight", 1)
            if not kind or weight == 0:
                continue
            name = full_name(reference, document)
            self._sources.check_grant(document, place, (document.kind, "HTTPRoute"), kind, name)
            self._places.setdefault((kind, name), (document, place, reference.get("port")))
            self.asked.setdefault((kind, name), []).extend(models)
            targets.append(Target(name, kind == "InferencePool", weight))
        if any(target.pool for target in targets) and len(targets) > 1:
            self._sources.mistake(
                document, path, "a rule with an InferencePool has no other backendRefs; use rules of their own"
            )
        if not targets and not self._sources.remarks.mistakes:
            self._sources.mistake(document, path, "no backendRefs with a weight over 0; requests have nowhere to go")
        return tuple(targets)

    def _kind(self, document: Document, path: tuple[Step, ...], reference: Mapping[str, Any]) -> str:
        """The kind of a backendRef, "" after a mistake."""
        if document.kind == "AIGatewayRoute":
            default, allowed = "AIServiceBackend", {"AIServiceBackend": (AI_GATEWAY,)}
        else:
            default, allowed = "Service", {"Service": ("",)}
        groups = {**allowed, "InferencePool": (INFERENCE, INFERENCE_X)}
        kind = reference.get("kind", default)
        group = reference.get("group", groups.get(kind, ("",))[0])
        if group in groups.get(kind, ()):
            return str(kind)
        known = ", ".join(f"{name} of {' or '.join(map(show, names))}" for name, names in groups.items())
        self._sources.mistake(document, path, f"{kind} of group {show(group)} is not allowed here; allowed: {known}")
        return ""

    def _costs(self, document: Document) -> tuple[Cost, ...]:
        costs: dict[str, Cost] = {}
        for index, item in enumerate(document.spec.get("llmRequestCosts", [])):
            path = ("spec", "llmRequestCosts", index)
            key, kind, cel = item["metadataKey"], item.get("type", "OutputToken"), item.get("cel", "")
            if key in costs:
                self._sources.mistake(document, path, f"metadataKey {show(key)} is there twice; give each cost its own")
            if (kind == "CEL") != bool(cel):
                self._sources.mistake(document, path, "cel belongs to type CEL, and type CEL asks for one")
            costs[key] = Cost(key, kind, cel)
        return tuple(costs.values())


def _match(match: Mapping[str, Any]) -> tuple[HeaderMatch, ...]:
    """The headers a match asks for; path and method are those of HTTP/2. Empty: it asks for nothing."""
    headers = [
        HeaderMatch(item["name"].lower(), item["value"], item.get("type") == "RegularExpression")
        for item in match.get("headers", [])
    ]
    path, method = match.get("path", {}), match.get("method")
    if path.get("value", "/") != "/" or path.get("type", "PathPrefix") != "PathPrefix":
        headers.append(
            HeaderMatch(":path", path_regex(path.get("type", "PathPrefix"), path.get("value", "/")), regex=True)
        )
    if method:
        headers.append(HeaderMatch(":method", method))
    return tuple(headers)


def path_regex(kind: str, value: str) -> str:
    """A regular expression for `:path`, query included, that holds where the path match does."""
    if kind == "RegularExpression":
        return rf"(?:{value})(?:\?.*)?"
    if kind == "Exact":
        return rf"{re.escape(value)}(?:\?.*)?"
    return rf"{re.escape(value.rstrip('/'))}(?:[/?].*)?"
