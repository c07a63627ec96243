# SPDX-License-Identifier: Apache-2.0
"""The parts of the document around scheduling: feature gates, data layer, parsers, flow control, detector.

Sections whose function does not exist are checked like the others, and a note says that they have no effect.
"""

from __future__ import annotations

from collections.abc import Iterable

from epp.config.configuration import Instance, Origin, Source
from epp.config.declared import Role, role_of
from epp.config.draft import Draft
from epp.config.findings import remedy, show
from epp.config.scalars import resolve
from epp.config.schema import DataLayer, DataSource, Document, FlowControl, Reference
from epp.config.typed import Lines
from epp.contract.plugins import Kind

GATES = ("flowControl", "haPopulateNonLeaderDatastore")
DEAD_GATES = ("dataLayer", "prepareDataPlugins", "enableLegacyMetrics")
DEFAULT_PARSERS = ("openai-parser", "anthropic-parser", "passthrough-parser")
SOURCE = "metrics-data-source"
EXTRACTOR = "core-metrics-extractor"

_ALWAYS_THERE = {
    "fairnessPolicyRef": "global-strict-fairness-policy",
    "orderingPolicyRef": "fcfs-ordering-policy",
    "usageLimitPolicyPluginRef": "static-usage-limit-policy",
}
"""Policies that a reference may name without declaring them."""


def check_gates(document: Document, draft: Draft) -> None:
    """Every entry is `name` or `name=true|false`; no gate changes anything here."""
    findings = draft.findings
    for index, node in enumerate(document.feature_gates):
        if not isinstance(node.value, str):
            text = f"featureGates[{index}]: {show(node.plain())} is not a string; allowed: a name or name=true|false"
            findings.mistake(node.line, text)
            continue
        name, equals, setting = node.value.partition("=")
        if name not in (*GATES, *DEAD_GATES):
            text = f"feature gate '{name}' is unknown or unregistered{remedy(name, (*GATES, *DEAD_GATES))}"
            findings.mistake(node.line, text)
            continue
        enabled = resolve(setting.lower()) if equals else True
        if not isinstance(enabled, bool):
            text = f"feature gate '{name}': {show(setting)} is not a boolean; allowed: true or false"
            findings.mistake(node.line, text)
        elif name in DEAD_GATES:
            findings.note(node.line, f"feature gate '{name}' is of earlier releases and has no effect")
        elif name == "flowControl" and enabled:
            findings.note(node.line, "feature gate 'flowControl' has no effect yet: requests are not queued")
        elif name != "flowControl":
            findings.note(node.line, f"feature gate '{name}' has no effect yet")


def data_layer_of(document: Document, draft: Draft) -> DataLayer:
    """`dataLayer`, or `data`, as it was called in 2025."""
    if document.data is not None:
        line = document.at["data"]
        if document.data_layer is not None:
            draft.findings.mistake(line, "'data' and 'dataLayer' are both given; keep 'dataLayer'")
        else:
            draft.findings.note(line, "'data' is an older name of 'dataLayer'")
    return document.data_layer or document.data or DataLayer()


def build_sources(layer: DataLayer, draft: Draft) -> tuple[Source, ...]:
    """The given data sources, and the metrics source unless there is one or it is not wanted."""
    sources = []
    for index, entry in enumerate(layer.sources):
        source = _source(entry, f"dataLayer.sources[{index}]", draft)
        if source is not None:
            sources.append(source)
    has_metrics = any(draft.instances[source.name].spec.type == SOURCE for source in sources)
    if layer.inject_defaults is not False and not has_metrics:
        added = _default_source(draft)
        if added is not None:
            sources.append(added)
    return tuple(sources)


def _source(entry: DataSource, where: str, draft: Draft) -> Source | None:
    found = _with_role(draft, entry, entry.plugin_ref, where, Role.SOURCE)
    extractors = []
    for index, reference in enumerate(entry.extractors):
        extractor = _with_role(draft, reference, reference.plugin_ref, f"{where}.extractors[{index}]", Role.EXTRACTOR)
        if extractor is not None:
            extractors.append(extractor.name)
    return Source(found.name, tuple(extractors), Origin.GIVEN) if found else None


def _default_source(draft: Draft) -> Source | None:
    """The metrics source with its extractor; instances that the document declares are used."""
    because = "metrics pages are read by default"
    source = next(iter(draft.of_type(SOURCE)), None) or draft.add(SOURCE, because)
    extractor = next(iter(draft.of_type(EXTRACTOR)), None) or draft.add(EXTRACTOR, because)
    if source is None or extractor is None:
        return None
    return Source(source.name, (extractor.name,), Origin.DEFAULT)


def _with_role(
    draft: Draft, at: Reference | DataSource, name: str, where: str, role: Role, more: Iterable[str] = ()
) -> Instance | None:
    def fits(instance: Instance) -> bool:
        return role_of(instance.entry.target) is role

    instance = draft.resolve(name, at.at["pluginRef"], where, fits, more)
    if instance is not None and not fits(instance):
        fitting = [*filter(fits, draft.instances.values())]
        known = [*(other.name for other in fitting), *more]
        text = f"{where}: '{name}' ({instance.spec.type}) is not {role.value}{remedy(name, known)}"
        draft.findings.mistake(at.at["pluginRef"], text)
        return None
    return instance


def choose_discovery(layer: DataLayer, draft: Draft) -> str | None:
    """The instance that finds endpoints, or None when flags say where they are."""
    found = None
    if layer.discovery is not None:
        where, line = "dataLayer.discovery", layer.discovery.at["pluginRef"]
        found = draft.resolve(layer.discovery.plugin_ref, line, where, _discovers)
        if found is not None and not _discovers(found):
            names = [instance.name for instance in draft.of_kind(Kind.DISCOVERY)]
            text = f"{where}: '{found.name}' ({found.spec.type}) does not discover endpoints{remedy(found.name, names)}"
            draft.findings.mistake(line, text)
            found = None
    for instance in draft.of_kind(Kind.DISCOVERY):
        if instance is not found:
            text = (
                f"plugin '{instance.name}' ({instance.spec.type}) has no effect; dataLayer.discovery does not name it"
            )
            draft.findings.warn(instance.line, text)
    _check_peers(layer, draft)
    return found.name if found else None


def _discovers(instance: Instance) -> bool:
    return instance.is_a(Kind.DISCOVERY)


def _never(_instance: Instance) -> bool:
    """For references to kinds of plugin that do not exist yet."""
    return False


def _check_peers(layer: DataLayer, draft: Draft) -> None:
    if layer.peer_discovery is not None:
        line = layer.peer_discovery.at["pluginRef"]
        draft.resolve(layer.peer_discovery.plugin_ref, line, "dataLayer.peerDiscovery", _never)
        draft.findings.note(line, "dataLayer.peerDiscovery has no effect yet: replicas do not know each other")
    if layer.cross_replica_syncer_plugin_ref:
        line = layer.at["crossReplicaSyncerPluginRef"]
        draft.resolve(layer.cross_replica_syncer_plugin_ref, line, "dataLayer.crossReplicaSyncerPluginRef", _never)
    for key in ("crossReplicaSyncerPluginRef", "crossReplicaSyncInterval"):
        if key in layer.at.keys:
            draft.findings.note(layer.at[key], f"dataLayer.{key} has no effect yet: replicas do not know each other")


def choose_parsers(document: Document, draft: Draft) -> tuple[tuple[str, ...], Origin]:
    """Parsers in order; a reference to a type that is not declared declares it."""
    handler = document.request_handler
    references = [(r, f"requestHandler.parsers[{i}]") for i, r in enumerate(handler.parsers if handler else ())]
    if document.parser is not None:
        line = document.at["parser"]
        if references:
            draft.findings.note(line, "'parser' has no effect beside requestHandler.parsers")
        else:
            draft.findings.note(line, "'parser' is deprecated; list it under requestHandler.parsers")
            references = [(document.parser, "parser")]
    if references:
        found = [_parser(reference, where, draft) for reference, where in references]
        return tuple(parser for parser in found if parser), Origin.GIVEN
    names = []
    for type_name in DEFAULT_PARSERS:
        instance = next(iter(draft.of_type(type_name)), None) or draft.add(type_name, "no parsers are configured")
        if instance is not None:
            names.append(instance.name)
    return tuple(names), Origin.DEFAULT


def _parser(reference: Reference, where: str, draft: Draft) -> str | None:
    name = reference.plugin_ref
    if name and name not in draft.instances and name not in draft.broken and name in draft.catalog:
        added = draft.add(name, f"{where} names its type")
        name = added.name if added else name
    found = _with_role(draft, reference, name, where, Role.PARSER, DEFAULT_PARSERS)
    return found.name if found else None


def check_flow_control(document: Document, draft: Draft) -> None:
    """References and bands; nothing of it has an effect yet."""
    flow = document.flow_control
    if flow is not None:
        _check_bands(flow, draft)
        _check_policy(flow.usage_limit_policy_plugin_ref, "usageLimitPolicyPluginRef", "flowControl", flow.at, draft)
        text = "flowControl has no effect yet, but for its saturationDetector: requests are not queued"
        draft.findings.note(document.at["flowControl"], text)


def _check_bands(flow: FlowControl, draft: Draft) -> None:
    bands = [("defaultPriorityBand", flow.default_priority_band)]
    bands.append(("defaultNegativePriorityBand", flow.default_negative_priority_band))
    bands.extend((f"priorityBands[{i}]", band) for i, band in enumerate(flow.priority_bands))
    lines: dict[int, int] = {}
    for name, band in bands:
        if band is None:
            continue
        where = f"flowControl.{name}"
        _check_policy(band.fairness_policy_ref, "fairnessPolicyRef", where, band.at, draft)
        _check_policy(band.ordering_policy_ref, "orderingPolicyRef", where, band.at, draft)
        if not name.startswith("priorityBands"):
            continue
        priority = band.priority or 0
        if priority in lines:
            text = f"{where}: duplicate priority band {priority}, first on line {lines[priority]}"
            draft.findings.mistake(band.at["priority"], text)
        lines.setdefault(priority, band.at["priority"])


def _check_policy(name: str, key: str, where: str, at: Lines, draft: Draft) -> None:
    """A reference that may be absent, name a declared plugin, or name what is always there."""
    always = _ALWAYS_THERE[key]
    if name and name != always:
        draft.resolve(name, at[key], f"{where}.{key}" if where else key, _never, (always,))
