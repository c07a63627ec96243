# SPDX-License-Identifier: Apache-2.0
"""Gateways to listeners, and who may be attached to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epp.config.findings import show
from epp.manifests.documents import Document, Step
from epp.manifests.kinds.kind import GATEWAY_API
from epp.manifests.sources import Sources, full_name, not_found
from epp.manifests.topology import Listener


def listeners_of(sources: Sources) -> tuple[Listener, ...]:
    """The HTTP listeners of all Gateways. One for HTTPS is served in plain HTTP, one of another protocol left out."""
    headers = _headers(sources)
    listeners = []
    for gateway in sources.documents.of("Gateway"):
        seen: set[str] = set()
        for index, item in enumerate(gateway.spec["listeners"]):
            name, protocol = item["name"], item["protocol"]
            if name in seen:
                path = ("spec", "listeners", index, "name")
                sources.mistake(gateway, path, f"two listeners are called {show(name)}; give each a name of its own")
            seen.add(name)
            what = f"{gateway.title} spec.listeners[{index}].protocol {show(protocol)}"
            if protocol == "HTTPS":
                sources.remarks.cannot(what, "it is served in plain HTTP, on the loopback address")
            elif protocol != "HTTP":
                sources.remarks.cannot(what, "the listener is left out; HTTP is served")
                continue
            place = (gateway.full_name, f"{gateway.full_name}/{name}")
            settings = {**headers.get(place[0], {}), **headers.get(place[1], {})}
            listeners.append(
                Listener(
                    gateway.full_name,
                    name,
                    item["port"],
                    item.get("hostname", ""),
                    envoy_headers=settings.get("enableEnvoyHeaders", True),
                    rate_limit_headers=not settings.get("disableRateLimitHeaders", False),
                )
            )
    return tuple(listeners)


def _headers(sources: Sources) -> dict[str, Mapping[str, Any]]:
    """What ClientTrafficPolicies say of headers, by Gateway or listener; the first policy of a target counts."""
    found: dict[str, Mapping[str, Any]] = {}
    for policy in sources.documents.of("ClientTrafficPolicy"):
        for _, target in targets_of(policy):
            name = f"{policy.namespace}/{target['name']}"
            if sources.find("Gateway", name) is None:
                known = sources.documents.names("Gateway")
                sources.warn(policy, ("spec",), f"{not_found('Gateway', name, known)}; it has no effect")
                continue
            section = target.get("sectionName")
            found.setdefault(f"{name}/{section}" if section else name, policy.spec.get("headers", {}))
    return found


def targets_of(policy: Document) -> tuple[tuple[tuple[Step, ...], Mapping[str, Any]], ...]:
    """The targets of a policy, each with its path: `targetRefs`, or the older `targetRef`."""
    spec = policy.spec
    single = [(("spec", "targetRef"), spec["targetRef"])] if "targetRef" in spec else []
    many = [(("spec", "targetRefs", index), item) for index, item in enumerate(spec.get("targetRefs", []))]
    return (*single, *many)


def attached_to(sources: Sources, route: Document) -> tuple[str, ...]:
    """The gateways a route is attached to: `namespace/name`, with a section `namespace/name/listener`."""
    names = []
    for field in ("parentRefs", "targetRefs"):
        for index, reference in enumerate(route.spec.get(field, [])):
            name = _parent(sources, route, ("spec", field, index), reference)
            if name:
                names.append(name)
    if not names and not sources.remarks.mistakes:
        sources.warn(route, ("spec",), "it is attached to no Gateway; name one in parentRefs")
    return tuple(dict.fromkeys(names))


def _parent(sources: Sources, route: Document, path: tuple[Step, ...], reference: Mapping[str, Any]) -> str:
    group, kind = reference.get("group", GATEWAY_API), reference.get("kind", "Gateway")
    if (group, kind) != (GATEWAY_API, "Gateway"):
        sources.mistake(
            route, path, f"{kind} of group {show(group)} is not allowed here; allowed: Gateway of {GATEWAY_API}"
        )
        return ""
    name = full_name(reference, route)
    gateway = sources.find("Gateway", name)
    if gateway is None:
        known = sources.documents.names("Gateway")
        sources.mistake(route, (*path, "name"), not_found("Gateway", name, known))
        return ""
    section = reference.get("sectionName")
    listeners = {item["name"]: item for item in gateway.spec["listeners"]}
    if section and section not in listeners:
        text = f"Gateway {name} has no listener {show(section)}; allowed: {', '.join(listeners)}"
        sources.mistake(route, (*path, "sectionName"), text)
        return ""
    asked = [listeners[section]] if section else list(listeners.values())
    if gateway.namespace != route.namespace and not any(map(_lets_all_in, asked)):
        text = (
            f"Gateway {name} lets in routes of its own namespace alone (allowedRoutes); a cluster would refuse this one"
        )
        sources.warn(route, path, text)
    return f"{name}/{section}" if section else name


def _lets_all_in(listener: Mapping[str, Any]) -> bool:
    allowed = listener.get("allowedRoutes", {}).get("namespaces", {}).get("from", "Same")
    return allowed in ("All", "Selector")
