# SPDX-License-Identifier: Apache-2.0
"""Documents to a topology: every reference followed, every default filled in, what leads nowhere told by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from epp.config.findings import nearest, show
from epp.contract.aigateway import COST_NAMESPACE, MODEL_HEADER
from epp.manifests.costs import check_expressions
from epp.manifests.documents import Documents, EndpointList, Remarks
from epp.manifests.gateways import listeners_of
from epp.manifests.limits import LimitPolicy, Match
from epp.manifests.policies import policies_of
from epp.manifests.read import checked_address
from epp.manifests.routes import Routes
from epp.manifests.secrets import DIRECTORY
from epp.manifests.sources import EndpointBook, Sources
from epp.manifests.targets import Targets
from epp.manifests.topology import HeaderMatch, Listener, Route, Topology

_MOST_NAMES = 12
_WITH_ENDPOINTS = (
    "InferencePool ", "LLMInferenceService ", "InferenceService ", "AIServiceBackend ", "Service ", "Backend "
)  # fmt: skip
"""How titles of documents begin that can be given endpoints."""
_TOLD_IF_UNUSED = {
    "InferencePool": "no route leads to it; it is not started",
    "LLMInferenceService": "no route leads to it; it is not started",
    "InferenceService": "no route leads to it; it is not started",
    "AIServiceBackend": "no route leads to it",
    "Backend": "no backend refers to it",
    "BackendSecurityPolicy": "no backend that a route leads to uses it",
    "Gateway": "no route is attached to it",
}


def resolve(
    documents: Documents,
    *,
    pools: Mapping[str, Sequence[str]] | None = None,
    environ: Mapping[str, str] | None = None,
    stand_in: str = "",
) -> Topology:
    """Everything the documents ask for. Raises ManifestErrors with all that is wrong.

    * pools: real endpoints `host:port` by the name of a pool, backend or service, before those in the files
    * environ: where keys are looked for (the process's if None), see `epp.manifests.secrets`
    * stand_in: what takes the place of a key that is not to be found, with a warning; "" for none, a mistake
    """
    remarks = _copy(documents.remarks)
    lists = [*_given(pools or {}, remarks), *documents.endpoints]
    environ = os.environ if environ is None else environ
    secrets_dir = Path(environ[DIRECTORY]) if environ.get(DIRECTORY) else None
    sources = Sources(documents, remarks, EndpointBook(lists), environ, secrets_dir, stand_in)
    routes = Routes(sources)
    made = routes.all()
    targets = Targets(sources)
    check_expressions(sources)
    routes.make(targets)
    targets.tell_unused()
    listeners, limits = listeners_of(sources), policies_of(sources)
    _tell_unused(sources, targets)
    _tell_doubled(sources, listeners, made)
    _tell_odd_limits(sources, limits, made, listeners)
    remarks.raise_mistakes()
    return Topology(
        listeners,
        made,
        tuple(targets.pools.values()),
        tuple(targets.backends.values()),
        limits,
        tuple(remarks.unsupported),
        documents.files,
        tuple(remarks.warnings),
    )


def resolve_limits(documents: Documents) -> Topology:
    """What the limits need alone: listeners, routes and policies. Nothing is asked of backends or keys, so that a
    policy's file is enough. Raises ManifestErrors."""
    remarks = _copy(documents.remarks)
    sources = Sources(documents, remarks, EndpointBook(()))
    kinds = ("AIGatewayRoute", "HTTPRoute") if documents.of("Gateway") else ()
    made = Routes(replace(sources, documents=_only(documents, "Gateway", "ReferenceGrant", *kinds))).all()
    listeners, limits = listeners_of(sources), policies_of(sources)
    _tell_odd_limits(sources, limits, made, listeners)
    remarks.raise_mistakes()
    unsupported, warnings = tuple(remarks.unsupported), tuple(remarks.warnings)
    return Topology(listeners, made, (), (), limits, unsupported, documents.files, warnings)


def _copy(remarks: Remarks) -> Remarks:
    return Remarks(list(remarks.mistakes), list(remarks.warnings), list(remarks.unsupported))


def _only(documents: Documents, *kinds: str) -> Documents:
    return replace(documents, items=documents.of(*kinds))


def _given(pools: Mapping[str, Sequence[str]], remarks: Remarks) -> Iterable[EndpointList]:
    for name, addresses in pools.items():
        try:
            yield EndpointList("--pool", name, tuple(map(checked_address, addresses)))
        except ValueError as error:
            remarks.mistake(f"--pool {name}", str(error))


def _tell_unused(sources: Sources, targets: Targets) -> None:
    served = {title for title in sources.used if title.startswith(_WITH_ENDPOINTS)}
    for document in sources.documents.items:
        why = _TOLD_IF_UNUSED.get(document.kind)
        if why is not None and document.title not in sources.used:
            sources.warn(document, (), why)
    known = [*targets.pools, *targets.backends, *(title.partition(" ")[2] for title in served)]
    names = [name for full in known for name in (full, full.partition("/")[2])]
    for entry in sources.endpoints.unused():
        meant = nearest(entry.name, names)
        guess = f"; did you mean '{meant}'?" if meant else f"; allowed: {_some(names)}"
        text = (
            f"endpoints of {show(entry.name)}: no pool, backend or service that a route leads to has this name{guess}"
        )
        sources.remarks.mistake(entry.place, text)


def _some(names: Sequence[str]) -> str:
    """The names without a namespace, of many the first."""
    short = list(dict.fromkeys(name for name in names if "/" not in name))
    return ", ".join([*short[:_MOST_NAMES], *(["..."] if len(short) > _MOST_NAMES else [])]) or "none"


def _tell_doubled(sources: Sources, listeners: Sequence[Listener], routes: Sequence[Route]) -> None:
    """List the matches that an earlier rule has as well, on the same port and host: requests never come to the later
    one."""
    for port, host in sorted({(listener.port, listener.hostname) for listener in listeners}):
        here = [listener for listener in listeners if (listener.port, listener.hostname) == (port, host)]
        first: dict[frozenset[HeaderMatch], str] = {}
        for rule in (rule for route in routes if any(map(route.is_on, here)) for rule in route.rules):
            for match in rule.matches or ((),):
                other = first.setdefault(frozenset(match), rule.name)
                if other != rule.name:
                    asked = ", ".join(f"{item.name}: {item.value}" for item in match) or "every request"
                    sources.remarks.cannot(f"{rule.name} {asked}", f"{other} has the same match and comes first")


def _tell_odd_limits(
    sources: Sources, limits: Sequence[LimitPolicy], routes: Sequence[Route], listeners: Sequence[Listener]
) -> None:
    keys = {cost.key for route in routes for cost in route.costs}
    matches = [item for route in routes for rule in route.rules for match in rule.matches for item in match]
    models = {item.value for item in matches if item.name == MODEL_HEADER and not item.regex}
    for policy in limits:
        document = sources.documents.find("BackendTrafficPolicy", policy.name)
        if document is None or not routes:
            continue
        for rule in policy.rules:
            for charge in (rule.at_request, rule.at_response):
                if charge is not None and charge.namespace == COST_NAMESPACE and charge.key not in keys:
                    guess = _guess(charge.key, keys)
                    text = f"no route's llmRequestCosts have {show(charge.key)}{guess}; nothing is counted"
                    sources.warn(document, ("spec", "rateLimit"), text)
            for selector in rule.selectors:
                asked = selector.header == MODEL_HEADER and selector.match is Match.EXACT and not selector.invert
                if asked and models and selector.value not in models:
                    guess = _guess(selector.value, models)
                    text = f"no route has model {show(selector.value)}{guess}; this rule limits nothing"
                    sources.warn(document, ("spec", "rateLimit"), text)
        places = [item for item in listeners if item.gateway in policy.gateways]
        if len(places) > 1 and any(rule.shared for rule in policy.rules):
            what = f"{document.title} rules[].shared"
            sources.remarks.cannot(what, "it is shared by the routes of one listener; each listener counts for itself")
    _tell_same_target(sources, limits)


def _tell_same_target(sources: Sources, limits: Sequence[LimitPolicy]) -> None:
    first: dict[str, str] = {}
    for policy in limits:
        for name in (*policy.gateways, *policy.routes):
            other = first.setdefault(name, policy.name)
            if other != policy.name:
                sources.remarks.cannot(
                    f"BackendTrafficPolicy {policy.name} for {name}", f"{other} has it already, and counts"
                )


def _guess(name: str, known: Iterable[str]) -> str:
    meant = nearest(name, known)
    return f"; did you mean '{meant}'?" if meant else ""
