# SPDX-License-Identifier: Apache-2.0
"""Which plugin says when the pool is saturated: the one that the document names, in `flowControl.saturationDetector`
or, as once, in `saturationDetector`; one made of the thresholds that older releases had there; or a declared plugin of
the default's name.
"""

from __future__ import annotations

from epp.config.configuration import Instance
from epp.config.document import Node
from epp.config.draft import Draft
from epp.config.findings import remedy
from epp.config.schema import Detector, Document
from epp.config.typed import Lines
from epp.contract.plugins import Kind

DEFAULT = "utilization-detector"


def choose_detector(document: Document, draft: Draft) -> str | None:
    """The instance that says when the pool is saturated; None for the default one, with the service's thresholds."""
    flow, old = document.flow_control, document.saturation_detector
    named = []
    if flow is not None and flow.saturation_detector is not None:
        given = flow.saturation_detector
        named.append(_named(given.plugin_ref, given.at, "flowControl.saturationDetector", draft))
    if old is not None:
        if old.plugin_ref:
            draft.findings.note(old.at["pluginRef"], "saturationDetector is deprecated; name it under flowControl")
            named.append(_named(old.plugin_ref, old.at, "saturationDetector", draft))
        else:
            named.append(_of_thresholds(old, draft))
    declared = draft.instances.get(DEFAULT)
    named.append(declared.name if declared is not None and _detects(declared) else None)
    return next((name for name in named if name), None)


def _named(name: str, at: Lines, where: str, draft: Draft) -> str | None:
    if not name or (name == DEFAULT and name not in draft.instances and name not in draft.broken):
        return None
    instance = draft.resolve(name, at["pluginRef"], where, _detects, (DEFAULT,))
    if instance is None or _detects(instance):
        return instance.name if instance is not None else None
    known = [*(other.name for other in draft.of_kind(Kind.DETECTOR)), DEFAULT]
    text = f"{where}: '{name}' ({instance.spec.type}) is no saturation detector{remedy(name, known)}"
    draft.findings.mistake(at["pluginRef"], text)
    return None


def _of_thresholds(old: Detector, draft: Draft) -> str | None:
    """A detector with the thresholds in the document itself; None when there are none."""
    given = {
        "queueDepthThreshold": old.queue_depth_threshold,
        "kvCacheUtilThreshold": old.kv_cache_util_threshold,
        "metricsStalenessThreshold": old.metrics_staleness_threshold,
    }
    nodes = {name: Node(old.at[name], value) for name, value in given.items() if value is not None}
    if not nodes:
        return None
    lines = {name: node.line for name, node in nodes.items()}
    added = draft.add(DEFAULT, "saturationDetector has thresholds", Node(old.at.own, {**nodes}, lines))
    return added.name if added is not None else None


def _detects(instance: Instance) -> bool:
    return instance.is_a(Kind.DETECTOR)
