# SPDX-License-Identifier: Apache-2.0
"""BackendTLSPolicies: which Services and Backends are reached with TLS, and how their certificates are verified."""

from __future__ import annotations

from epp.config.findings import show
from epp.manifests.documents import Document, Step
from epp.manifests.gateways import targets_of
from epp.manifests.secrets import value_in
from epp.manifests.sources import Sources, not_found
from epp.manifests.topology import Tls

CA_KEY = "ca.crt"
_BEGIN = "-----BEGIN CERTIFICATE-----"


class TlsPolicies:
    """Policies by their targets."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._policies: dict[tuple[str, str], Document] = {}
        self._asked: list[str] = []
        for policy in sources.documents.of("BackendTLSPolicy"):
            for path, target in targets_of(policy):
                place = (target.get("kind", "Service"), f"{policy.namespace}/{target['name']}")
                other = self._policies.setdefault(place, policy)
                if other is not policy:
                    sources.warn(policy, path, f"{place[0]} {place[1]} has {other.title} already, which counts")

    def of(self, kind: str, name: str) -> Tls | None:
        """How `namespace/name` is reached; None: without TLS."""
        self._asked.append(name)
        policy = self._policies.get((kind, name))
        if policy is None:
            return None
        self._sources.used.add(policy.title)
        field = "validation" if "validation" in policy.spec else "tls"
        validation = policy.spec.get(field)
        if validation is None:
            self._sources.mistake(policy, ("spec",), "validation is missing")
            return None
        path: tuple[Step, ...] = ("spec", field)
        references = validation.get("caCertificateRefs", [])
        if bool(references) == (validation.get("wellKnownCACertificates") == "System"):
            text = "give either wellKnownCACertificates: System or caCertificateRefs"
            self._sources.mistake(policy, path, text)
            return None
        found = [
            self._ca(policy, (*path, "caCertificateRefs", index), reference.get("kind", "ConfigMap"), reference["name"])
            for index, reference in enumerate(references)
        ]
        return Tls(validation["hostname"], "\n".join(found))

    def tell_unused(self) -> None:
        """Tell every target that no backend of a route is reached by. To be asked when all backends are made."""
        for (kind, name), policy in self._policies.items():
            if policy.title not in self._sources.used:
                same = [other for other in self._asked if other.partition("/")[2] == name.partition("/")[2]]
                why = f"; {same[0]} is of another namespace, and a policy holds for its own alone" if same else ""
                text = f"no backend that a route leads to is reached by {kind} {name}{why}; it has no effect"
                self._sources.warn(policy, ("spec",), text)

    def _ca(self, policy: Document, path: tuple[Step, ...], kind: str, bare: str) -> str:
        """The certificates of one reference, "" after a mistake."""
        sources, name = self._sources, f"{policy.namespace}/{bare}"
        if kind not in ("ConfigMap", "Secret"):
            sources.mistake(policy, path, f"kind {show(kind)} is not allowed here; allowed: ConfigMap, Secret")
            return ""
        document = sources.find(kind, name)
        if document is None:
            sources.mistake(policy, path, not_found(kind, name, sources.documents.names(kind)))
            return ""
        if kind == "Secret":
            text = value_in(sources, document, CA_KEY)
        else:
            text = document.plain().get("data", {}).get(CA_KEY)
        if text is None or _BEGIN not in text:
            sources.mistake(policy, path, f"{kind} {name} has no certificate in key {CA_KEY}; put PEM text there")
            return ""
        return str(text).strip() + "\n"
