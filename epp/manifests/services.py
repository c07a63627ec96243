# SPDX-License-Identifier: Apache-2.0
"""KServe's services, reduced to what is served, by how many pods, and how the picker of the pool is set up.

An LLMInferenceService takes what it does not say itself from its baseRefs, the last one first. Its pool is called
`<service>-inference-pool` unless `router.scheduler.pool.ref` names another; without `router.scheduler` there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from epp.config.findings import remedy
from epp.manifests.documents import Document
from epp.manifests.naming import child_name, expand
from epp.manifests.pickertext import within
from epp.manifests.sources import Sources, not_found
from epp.manifests.topology import PickerText

POOL_PORT = 8000
_BY_NAME = frozenset({"containers", "volumes", "env", "ports"})
_SERVED = ("--served-model-name", "--served_model_name")
_MODEL_NAME = ("--model_name", "--model-name")
_CONFIG_TEXT = ("--config-text", "--configText", "-config-text", "-configText")
_CONFIG_FILE = ("--config-file", "--configFile", "-config-file", "-configFile")


@dataclass(frozen=True, slots=True)
class Served:
    """A service of models: `services` are the names of its Kubernetes Services, `pool` that of its InferencePool ("":
    none), all `namespace/name`."""

    document: Document
    models: tuple[str, ...]
    replicas: int
    services: tuple[str, ...]
    pool: str = ""
    port: int = POOL_PORT
    picker_config: PickerText | None = None


def served(sources: Sources) -> tuple[Served, ...]:
    """Every LLMInferenceService and InferenceService of the files."""
    llm = [_llm(sources, document) for document in sources.documents.of("LLMInferenceService")]
    return (*llm, *(_predictor(document) for document in sources.documents.of("InferenceService")))


def _predictor(document: Document) -> Served:
    predictor = document.spec["predictor"]
    containers = [predictor.get("model", {}), *predictor.get("containers", [])]
    words = [word for container in containers for word in (*container.get("command", []), *container.get("args", []))]
    name = next(iter(flag_values(words, _MODEL_NAME)), document.name)
    service = child_name(document.name, "-predictor")
    replicas = max(1, predictor.get("minReplicas", 1))
    return Served(document, (name,), replicas, (f"{document.namespace}/{service}",))


def _llm(sources: Sources, document: Document) -> Served:
    spec = merged_spec(sources, document)
    model = spec.get("model", {})
    base = model.get("name") or document.name
    adapters = [item["name"] for item in model.get("lora", {}).get("adapters", []) if item.get("name")]

    def fill(text: str) -> str:
        return expand(text, name=document.name, namespace=document.namespace, model=base)

    words = [fill(word) for word in _main_words(spec.get("template", {}))]
    names = list(flag_values(words, _SERVED)) or [base]
    scheduler = spec.get("router", {}).get("scheduler")
    pool, port = "", POOL_PORT
    if scheduler is not None:
        reference = scheduler.get("pool", {}).get("ref", {}).get("name")
        pool = f"{document.namespace}/{reference or child_name(document.name, '-inference-pool')}"
        port = pool_port(scheduler.get("pool", {}).get("spec", {}))
    replicas = spec.get("replicas", spec.get("scaling", {}).get("minReplicas", 1))
    config = _picker_config(sources, document, scheduler or {})
    return Served(
        document,
        tuple(dict.fromkeys([*names, *adapters])),
        max(1, replicas),
        (f"{document.namespace}/{child_name(document.name, '-kserve-workload-svc')}",),
        pool,
        port,
        replace(config, text=fill(config.text)) if config is not None else None,
    )


def pool_port(spec: Mapping[str, Any]) -> int:
    """The port of a pool's pods, by either form of its spec."""
    ports = spec.get("targetPorts", [])
    return int(ports[0]["number"] if ports else spec.get("targetPortNumber", POOL_PORT))


def merged_spec(sources: Sources, document: Document) -> dict[str, Any]:
    """The spec with what its baseRefs add. A base that is not in the files is told, and left out if KServe ships it."""
    spec: dict[str, Any] = {}
    for index, reference in enumerate(document.spec.get("baseRefs", [])):
        name = f"{document.namespace}/{reference['name']}"
        base = sources.find("LLMInferenceServiceConfig", name)
        if base is not None:
            spec = merge(spec, base.spec)
            continue
        known = sources.documents.names("LLMInferenceServiceConfig")
        text = not_found("LLMInferenceServiceConfig", name, known)
        if reference["name"].startswith("kserve-config-llm-"):
            sources.warn(document, ("spec", "baseRefs", index), f"{text}; it is a preset of KServe, and left out")
        else:
            sources.mistake(document, ("spec", "baseRefs", index), text)
    merged: dict[str, Any] = merge(spec, document.spec)
    return merged


def merge(below: Any, above: Any, key: str = "") -> Any:
    """`above` laid over `below`: mappings field by field, containers, volumes and the like by their names, anything
    else replaced."""
    if isinstance(below, dict) and isinstance(above, dict):
        both = dict(below)
        for name, value in above.items():
            both[name] = merge(below[name], value, name) if name in below else value
        return both
    if key in _BY_NAME and isinstance(below, list) and isinstance(above, list):
        rows = {_name(item, index): item for index, item in enumerate(below)}
        for index, item in enumerate(above):
            name = _name(item, index)
            rows[name] = merge(rows[name], item) if name in rows else item
        return list(rows.values())
    return above


def _name(item: Any, index: int) -> object:
    return item.get("name", index) if isinstance(item, dict) else index


def _main_words(template: Mapping[str, Any]) -> list[str]:
    """Command and arguments of the container `main`, or of the first one."""
    containers = template.get("containers", [])
    main = next((item for item in containers if item.get("name") == "main"), containers[0] if containers else {})
    return [*main.get("command", []), *main.get("args", [])]


def flag_values(words: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    """The values of a flag in a command line: `--flag=value`, or the words after it up to the next flag."""
    taking = False
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in names:
            taking = not equals
            if equals:
                yield value
        elif word.startswith("-"):
            taking = False
        elif taking:
            yield word


def _picker_config(sources: Sources, document: Document, scheduler: Mapping[str, Any]) -> PickerText | None:
    """The EndpointPickerConfig of a service's scheduler: given in place, by reference, or by its arguments."""
    path = ("spec", "router", "scheduler")
    given = scheduler.get("config", {})
    if given.get("inline"):
        return within(given["inline"], _with_bases(sources, document))
    if given.get("ref"):
        return _from_config_map(sources, document, path, given["ref"].get("name", ""), given["ref"].get("key", ""))
    template = scheduler.get("template", {})
    words = _main_words(template)
    # Of a repeated flag the last one counts.
    for text in [*flag_values(words, _CONFIG_TEXT)][-1:]:
        return within(text, _with_bases(sources, document))
    for file in [*flag_values(words, _CONFIG_FILE)][-1:]:
        return _from_volume(sources, document, path, template, file)
    return None


def _from_volume(
    sources: Sources, document: Document, path: tuple[str, ...], template: Mapping[str, Any], file: str
) -> PickerText | None:
    mounts = [mount for item in template.get("containers", []) for mount in item.get("volumeMounts", [])]
    places = [mount for mount in mounts if file.startswith(mount.get("mountPath", "?").rstrip("/") + "/")]
    mount = max(places, key=lambda item: len(item["mountPath"]), default=None)
    volumes = {item.get("name"): item for item in template.get("volumes", [])}
    source = volumes.get(mount["name"], {}).get("configMap") if mount is not None else None
    if mount is None or source is None:
        sources.mistake(
            document, path, f"--config-file {file} is in no volume of a ConfigMap; mount one, or use config.ref"
        )
        return None
    inside = file[len(mount["mountPath"].rstrip("/")) + 1 :]
    renamed = {item.get("path"): item.get("key") for item in source.get("items", [])}
    return _from_config_map(sources, document, path, source.get("name", ""), renamed.get(inside, inside))


def _with_bases(sources: Sources, document: Document) -> list[Document]:
    """Where its spec may come from: itself first, then its bases, the last one first."""
    names = [f"{document.namespace}/{reference['name']}" for reference in document.spec.get("baseRefs", [])]
    found = [sources.find("LLMInferenceServiceConfig", name) for name in reversed(names)]
    return [document, *(base for base in found if base is not None)]


def _from_config_map(
    sources: Sources, document: Document, path: tuple[str, ...], name: str, key: str
) -> PickerText | None:
    full = f"{document.namespace}/{name}"
    found = sources.find("ConfigMap", full)
    if found is None:
        known = sources.documents.names("ConfigMap")
        sources.mistake(
            document, path, f"its picker is configured by a ConfigMap: {not_found('ConfigMap', full, known)}"
        )
        return None
    data = found.plain().get("data", {})
    if not key and len(data) == 1:
        return within(str(next(iter(data.values()))), (found,))
    if key not in data:
        sources.mistake(document, path, f"ConfigMap {full} has no key '{key}'{remedy(key, data)}")
        return None
    return within(str(data[key]), (found,))
