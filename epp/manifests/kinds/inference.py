# SPDX-License-Identifier: Apache-2.0
"""Kinds of the Gateway API Inference Extension: pools, and the picker's configuration as a document of its own."""

from __future__ import annotations

from epp.manifests.fields import Fields, Harmless, Items, Shape, Text, Unsupported, harmless
from epp.manifests.kinds.core import REPLICAS
from epp.manifests.kinds.kind import INFERENCE, INFERENCE_X, PORT, Kind

PICKER_CONFIG = "EndpointPickerConfig"
_PICKER = Fields(
    harmless("failureMode")
    | {"group": Text(), "kind": Text(), "name": Text(), "port": Harmless(), "portNumber": Harmless()}
)

POOL_SPEC: dict[str, Shape] = {
    "selector": Harmless(),
    "targetPorts": Items(Fields({"number": PORT}, ("number",)), 1),
    "targetPortNumber": PORT,
    "endpointPickerRef": _PICKER,
    "extensionRef": _PICKER,
    "appProtocol": Unsupported("pods are spoken to in HTTP/1.1", unless=("http",)),
}

_GROUPS = (INFERENCE, INFERENCE_X)
_PRIORITY = "requests have the priority that their header names, or none"

KINDS: dict[str, Kind] = {
    "InferencePool": Kind(_GROUPS, ("v1", "v1alpha2"), {"spec": Fields(POOL_SPEC)}, annotations=(REPLICAS,)),
    "InferenceObjective": Kind(
        (INFERENCE_X, INFERENCE, "llm-d.ai"), ("v1alpha2", "v1alpha1"), {"spec": Harmless()}, nothing=_PRIORITY
    ),
    "InferenceModel": Kind((INFERENCE_X, INFERENCE), ("v1alpha2", "v1alpha1"), {"spec": Harmless()}, nothing=_PRIORITY),
    "InferenceModelRewrite": Kind(
        (INFERENCE_X, "llm-d.ai", INFERENCE),
        ("v1alpha2", "v1alpha1"),
        {"spec": Harmless()},
        nothing="the model's name stays the one the client sent",
    ),
    # Its fields are checked by the picker itself, with its plugins at hand.
    PICKER_CONFIG: Kind(
        (INFERENCE_X, INFERENCE, "llm-d.ai"),
        ("v1alpha1", "v1"),
        harmless(
            "plugins schedulingProfiles saturationDetector featureGates data dataLayer flowControl parser "
            "requestHandler"
        ),
        required=(),
    ),
}
