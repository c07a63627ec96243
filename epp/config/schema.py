# SPDX-License-Identifier: Apache-2.0
"""The fields of an EndpointPickerConfig document: the union of what every release of the Go EPP accepted.

Reading is strict: a name that is not here is a mistake. Absent values keep their zero value; what must be present and
what refers to what is checked later, when everything is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from epp.config.document import Node
from epp.config.findings import Findings, remedy, show
from epp.config.typed import KEY, Reader, Section, document_names
from epp.contract.units import Duration, Quantity

KIND = "EndpointPickerConfig"
API_VERSION = "llm-d.ai/v1alpha1"
OLD_API_VERSION = "inference.networking.x-k8s.io/v1alpha1"


@dataclass(frozen=True, slots=True)
class PluginEntry(Section):
    """One of `plugins`."""

    type: str = ""
    name: str = ""
    parameters: Node | None = None


@dataclass(frozen=True, slots=True)
class Reference(Section):
    """Names one of `plugins`."""

    plugin_ref: str = ""


@dataclass(frozen=True, slots=True)
class ProfilePlugin(Section):
    """One of a profile's `plugins`."""

    plugin_ref: str = ""
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class ProfileEntry(Section):
    """One of `schedulingProfiles`."""

    name: str = ""
    plugins: tuple[ProfilePlugin, ...] = ()


@dataclass(frozen=True, slots=True)
class DataSource(Section):
    """One of `dataLayer.sources`."""

    plugin_ref: str = ""
    extractors: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class DataLayer(Section):
    """`dataLayer`, called `data` in 2025."""

    inject_defaults: bool | None = None
    sources: tuple[DataSource, ...] = ()
    discovery: Reference | None = None
    peer_discovery: Reference | None = None
    cross_replica_syncer_plugin_ref: str = ""
    cross_replica_sync_interval: Duration | None = None


@dataclass(frozen=True, slots=True)
class PriorityBand(Section):
    """One of `flowControl.priorityBands`, or a template for bands made on demand."""

    priority: int | None = None
    max_bytes: Quantity | None = None
    max_requests: Quantity | None = None
    fairness_policy_ref: str = ""
    ordering_policy_ref: str = ""


@dataclass(frozen=True, slots=True)
class Detector(Section):
    """`saturationDetector`: a reference, or the thresholds that older releases had here."""

    plugin_ref: str = ""
    queue_depth_threshold: int | None = None
    kv_cache_util_threshold: float | None = None
    metrics_staleness_threshold: Duration | None = None


@dataclass(frozen=True, slots=True)
class FlowControl(Section):
    """`flowControl`."""

    max_bytes: Quantity | None = None
    max_requests: Quantity | None = None
    default_request_ttl: Duration | None = field(default=None, metadata={KEY: "defaultRequestTTL"})
    no_endpoint_request_ttl: Duration | None = field(default=None, metadata={KEY: "noEndpointRequestTTL"})
    default_priority_band: PriorityBand | None = None
    default_negative_priority_band: PriorityBand | None = None
    priority_bands: tuple[PriorityBand, ...] = ()
    usage_limit_policy_plugin_ref: str = ""
    saturation_detector: Reference | None = None
    enable_eviction: bool = False


@dataclass(frozen=True, slots=True)
class RequestHandler(Section):
    """`requestHandler`."""

    parsers: tuple[Reference, ...] = ()


@dataclass(frozen=True, slots=True)
class Document(Section):
    """The whole document. `feature_gates` are nodes, so that each knows its line."""

    api_version: str = ""
    kind: str = ""
    feature_gates: tuple[Node, ...] = ()
    plugins: tuple[PluginEntry, ...] = ()
    scheduling_profiles: tuple[ProfileEntry, ...] = ()
    data_layer: DataLayer | None = None
    data: DataLayer | None = None
    flow_control: FlowControl | None = None
    request_handler: RequestHandler | None = None
    saturation_detector: Detector | None = None
    parser: Reference | None = None


def read_document(node: Node, findings: Findings) -> Document | None:
    """The document in `node`, without what cannot be read in it; None when it is no mapping."""
    if node.value is not None and not isinstance(node.value, dict):
        allowed = ", ".join(document_names(Document))
        findings.mistake(node.line, f"{show(node.plain())} is not a configuration; allowed: a mapping with {allowed}")
        return None
    document = Reader(findings).record(node, Document, partial=True)
    if document is not None:
        _check_kind(document, findings)
    return document


def _check_kind(document: Document, findings: Findings) -> None:
    """Absent is fine, as in the Go EPP; another kind or version is not."""
    version, kind = document.api_version, document.kind
    if version == OLD_API_VERSION:
        findings.note(
            document.at["apiVersion"], f"apiVersion {version} is deprecated; the current one is {API_VERSION}"
        )
    if version not in ("", API_VERSION, OLD_API_VERSION):
        text = f"no kind {show(kind or KIND)} is registered for apiVersion {show(version)}"
        findings.mistake(document.at["apiVersion"], text + remedy(version, (API_VERSION, OLD_API_VERSION)))
    if kind not in ("", KIND):
        findings.mistake(document.at["kind"], f"no kind {show(kind)} is registered{remedy(kind, (KIND,))}")
