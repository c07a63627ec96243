# SPDX-License-Identifier: Apache-2.0
"""Every kind that is known, a module for each group, and the check of an object against its kind.

core           Namespace, Secret, ConfigMap, Service, ReferenceGrant, GatewayClass, ...
gateway        Gateway, HTTPRoute, BackendTLSPolicy
aigateway      AIGatewayRoute, AIServiceBackend, BackendSecurityPolicy
envoygateway   Backend, BackendTrafficPolicy, ClientTrafficPolicy
inference      InferencePool, EndpointPickerConfig, ...
kserve         LLMInferenceService, LLMInferenceServiceConfig, InferenceService
pods           the fields of pods and containers
kind           what is known of a kind; shapes that several share
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from epp.config.findings import nearest, show
from epp.manifests.documents import Document, Remarks
from epp.manifests.fields import Check, Fields, Shape, harmless
from epp.manifests.kinds import aigateway, core, envoygateway, gateway, inference, kserve
from epp.manifests.kinds.kind import METADATA, Kind

KINDS: Mapping[str, Kind] = MappingProxyType(
    core.KINDS | gateway.KINDS | aigateway.KINDS | envoygateway.KINDS | inference.KINDS | kserve.KINDS
)
UNNAMED = frozenset({inference.PICKER_CONFIG})
"""Kinds whose objects need no name."""
_OURS = "epp/"


def is_namespaced(kind: str) -> bool:
    """Whether objects of the kind live in a namespace; unknown kinds do."""
    known = KINDS.get(kind)
    return known is None or known.namespaced


def check(document: Document, remarks: Remarks) -> None:
    """Everything that can be said about one object alone."""
    kind = KINDS.get(document.kind)
    if kind is None:
        meant = nearest(document.kind, KINDS)
        guess = f"; did you mean '{meant}'?" if meant and document.group in KINDS[meant].groups else ""
        if guess:
            remarks.mistake(document.at("kind"), f"unknown kind {show(document.kind)}{guess}")
        else:
            remarks.cannot(document.title, "objects of this kind are not read")
        return
    if document.group not in kind.groups:
        known = f"{kind.groups[0]}/{kind.versions[0]}".removeprefix("/")
        given = f"{document.group}/{document.version}".removeprefix("/")
        remarks.mistake(document.at("apiVersion"), f"{document.title}: apiVersion is {show(given)}, allowed: {known}")
        return
    if document.version not in kind.versions:
        text = f"{document.title}: version {show(document.version)} is unknown; it is read as {kind.versions[0]}"
        remarks.warn(document.at("apiVersion"), text)
    if kind.nothing:
        remarks.cannot(document.title, kind.nothing)
    common: dict[str, Shape] = {**harmless("apiVersion kind status"), "metadata": Fields(METADATA)}
    Check(document, remarks).take(document.node, Fields(common | kind.fields, kind.required), ())
    _check_annotations(document, kind, remarks)


def _check_annotations(document: Document, kind: Kind, remarks: Remarks) -> None:
    for name in document.annotations:
        place = document.at("metadata", "annotations", name)
        if name.startswith(_OURS) and name not in kind.annotations:
            meant = nearest(name, kind.annotations)
            guess = f"; did you mean '{meant}'?" if meant else ""
            remarks.warn(place, f"{document.title}: unknown annotation {show(name)}{guess}; it has no effect")
