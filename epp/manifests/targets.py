# SPDX-License-Identifier: Apache-2.0
"""What routes send requests to: pools behind an endpoint picker, and plain backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from epp.config.findings import show
from epp.manifests.documents import Document, Step
from epp.manifests.gateways import targets_of
from epp.manifests.kinds.core import REPLICAS
from epp.manifests.kinds.inference import PICKER_CONFIG
from epp.manifests.pickertext import whole
from epp.manifests.secrets import key_of
from epp.manifests.services import Served, pool_port, served
from epp.manifests.sources import Sources, full_name, not_found, replicas_of
from epp.manifests.tls import TlsPolicies
from epp.manifests.topology import ApiKey, Backend, PickerText, Pool, Tls

_SPOKEN = ("OpenAI", "Anthropic")


class Targets:
    """Pools and backends of the files, made when a route asks for them."""

    def __init__(self, sources: Sources) -> None:
        self.pools: dict[str, Pool] = {}
        self.backends: dict[str, Backend] = {}
        self._sources = sources
        self._served = served(sources)
        self._tls = TlsPolicies(sources)
        self._policies = self._key_policies()
        self._keys: dict[str, ApiKey | None] = {}
        self._shared_config = self._one_config()

    def pool_names(self) -> list[str]:
        """Every pool there is, `namespace/name`."""
        documents = self._sources.documents.names("InferencePool")
        return list(dict.fromkeys([*documents, *(item.pool for item in self._served if item.pool)]))

    def pool(self, name: str, asked: Iterable[str]) -> bool:
        """Make the pool; `asked`: models that routes ask it for. False if there is none of the name."""
        document = self._sources.find("InferencePool", name)
        service = next((item for item in self._served if item.pool == name), None)
        if document is None and service is None:
            return False
        names = [name] if service is None else [name, service.document.full_name]
        port = pool_port(document.spec) if document is not None else service.port if service is not None else 0
        if document is not None and len(document.spec.get("targetPorts", [])) > 1:
            what = f"{document.title} spec.targetPorts"
            self._sources.remarks.cannot(what, f"only the first port, {port}, is used")
        if service is not None:
            replicas = service.replicas
        else:
            replicas = replicas_of(self._sources, document, REPLICAS) if document is not None else 1
        given = service.picker_config if service is not None else None
        models = self._models(service, asked)
        endpoints = self._sources.endpoints.find(*names)
        key = self._key("InferencePool", name)
        self.pools[name] = Pool(name, models, port, replicas, endpoints, given or self._shared_config, key)
        return True

    def ai_backend(self, name: str, asked: Iterable[str]) -> bool:
        """Make the backend of an AIServiceBackend; False if there is none of the name."""
        document = self._sources.find("AIServiceBackend", name)
        if document is None:
            return False
        spec = document.spec
        schema, reference = spec["schema"], spec["backendRef"]
        if schema["name"] not in _SPOKEN:
            what = f"{document.title} spec.schema.name {show(schema['name'])}"
            self._sources.remarks.cannot(what, "requests go to it as they came, untranslated")
        path: tuple[Step, ...] = ("spec", "backendRef")
        kind, address = reference.get("kind", "Service"), full_name(reference, document)
        kinds = ("AIServiceBackend", "AIGatewayRoute", "HTTPRoute")
        if kind not in ("Service", "Backend"):
            self._sources.mistake(document, path, f"kind {show(kind)} is not allowed here; allowed: Service, Backend")
            return True
        self._sources.check_grant(document, path, kinds, kind, address)
        place = (document, path)
        made = self._backend(name, kind, address, asked, place, [document.full_name], reference.get("port"))
        if made is not None:
            version = schema.get("version", "") if schema["name"] == "OpenAI" else ""
            prefix = self._prefix(made, schema.get("prefix") or version, document)
            reference = spec.get("backendSecurityPolicyRef")
            key = self._key("AIServiceBackend", name, reference, document)
            self.backends[name] = Backend(
                name, made.models, made.replicas, made.endpoints, schema["name"], prefix, made.tls, key
            )
        return True

    def service(
        self, name: str, asked: Iterable[str], document: Document, path: tuple[Step, ...], port: int | None
    ) -> None:
        """Make the backend of a Service that a route names directly."""
        made = self._backend(name, "Service", name, asked, (document, path), [], port)
        if made is not None:
            self.backends[name] = made

    def tell_unused(self) -> None:
        """Tell the policies that hold for nothing. To be asked when everything is made."""
        self._tls.tell_unused()

    def _prefix(self, made: Backend, text: str, document: Document) -> str:
        prefix = "/" + text.strip("/")
        if prefix in ("/", "/v1"):
            return ""
        if not made.endpoints:
            self._sources.remarks.cannot(
                f"{document.title} spec.schema prefix {show(prefix)}", "simulated pods serve /v1"
            )
            return ""
        return prefix

    def _backend(
        self,
        name: str,
        kind: str,
        address: str,
        asked: Iterable[str],
        place: tuple[Document, tuple[Step, ...]],
        others: Sequence[str],
        port: int | None,
    ) -> Backend | None:
        """The backend behind a Service or Backend; None after a mistake."""
        sources, (document, path) = self._sources, place
        found = sources.find(kind, address)
        service = None
        if kind == "Service":
            service = next((item for item in self._served if address in item.services), None)
        names = [*others, address] if service is None else [*others, address, service.document.full_name]
        endpoints = sources.endpoints.find(*names)
        if not endpoints and found is not None:
            endpoints = _listed(sources, found, port)
        if not endpoints and found is None and service is None:
            known = sources.documents.names(kind)
            known += [part for item in self._served for part in item.services] if kind == "Service" else []
            remedy = f"add it, or say where it is: endpoints: {{{address}: [host:port]}}"
            sources.mistake(document, path, f"{not_found(kind, address, known)}; {remedy}")
            return None
        tls: Tls | None = self._tls.of(kind, address)
        if tls is not None and not endpoints:
            sources.remarks.cannot(f"TLS to {kind} {address}", "simulated pods are spoken to in plain HTTP")
            tls = None
        replicas = service.replicas if service is not None else 1
        if service is None and found is not None and kind == "Service":
            replicas = replicas_of(sources, found, REPLICAS)
        return Backend(name, self._models(service, asked), replicas, endpoints, tls=tls)

    def _models(self, service: Served | None, asked: Iterable[str]) -> tuple[str, ...]:
        wanted = tuple(dict.fromkeys(asked))
        if service is None:
            return wanted
        self._sources.used.add(service.document.title)
        for model in wanted:
            if model not in service.models:
                text = f"a route asks it for model {show(model)}; it serves {', '.join(service.models)}"
                self._sources.warn(service.document, ("spec",), text)
        return service.models

    def _key_policies(self) -> Mapping[tuple[str, str], Document]:
        found: dict[tuple[str, str], Document] = {}
        for policy in self._sources.documents.of("BackendSecurityPolicy"):
            for path, target in targets_of(policy):
                place = (target.get("kind", "AIServiceBackend"), f"{policy.namespace}/{target['name']}")
                other = found.setdefault(place, policy)
                if other is not policy:
                    text = f"{place[0]} {place[1]} has a key by {other.title} already; one policy for each backend"
                    self._sources.mistake(policy, path, text)
        return found

    def _key(
        self, kind: str, name: str, reference: Mapping[str, str] | None = None, document: Document | None = None
    ) -> ApiKey | None:
        policy = self._policies.get((kind, name))
        if reference is not None and document is not None:
            policy_name = full_name(reference, document)
            policy = self._sources.documents.find("BackendSecurityPolicy", policy_name)
            if policy is None:
                known = self._sources.documents.names("BackendSecurityPolicy")
                path = ("spec", "backendSecurityPolicyRef")
                self._sources.mistake(document, path, not_found("BackendSecurityPolicy", policy_name, known))
        if policy is None:
            return None
        self._sources.used.add(policy.title)
        if policy.full_name not in self._keys:
            self._keys[policy.full_name] = key_of(self._sources, policy)
        return self._keys[policy.full_name]

    def _one_config(self) -> PickerText | None:
        """The EndpointPickerConfig that is a document of its own: for all pools that have none."""
        documents = self._sources.documents.of(PICKER_CONFIG)
        if len(documents) > 1:
            text = f"there is another one at {documents[0].at()}; one holds for all pools without a configuration"
            self._sources.mistake(documents[1], (), text)
        if not documents:
            return None
        self._sources.used.add(documents[0].title)
        return whole(documents[0])


def _listed(sources: Sources, document: Document, port: int | None) -> tuple[str, ...]:
    """The addresses a Backend or a Service of type ExternalName names itself; () if pods are to be simulated."""
    spec = document.spec
    if document.kind == "Service":
        if spec.get("type") != "ExternalName" or not spec.get("externalName"):
            return ()
        ports = [item["port"] for item in spec.get("ports", [])]
        return (f"{spec['externalName']}:{port or (ports[0] if ports else 80)}",)
    if spec.get("type") == "DynamicResolver":
        sources.mistake(document, ("spec", "type"), "DynamicResolver is not allowed here; list its endpoints")
    addresses = []
    for item in spec.get("endpoints", []):
        if "fqdn" in item:
            addresses.append(f"{item['fqdn']['hostname']}:{item['fqdn']['port']}")
        elif "ip" in item:
            host = item["ip"]["address"]
            addresses.append(f"{f'[{host}]' if ':' in host else host}:{item['ip']['port']}")
    if not addresses and spec.get("type") != "DynamicResolver":
        sources.mistake(document, ("spec",), "it has no endpoints that can be used; give fqdn or ip")
    return tuple(addresses)
