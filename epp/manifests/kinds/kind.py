# SPDX-License-Identifier: Apache-2.0
"""What is known of a kind, and the shapes that many kinds share."""

from __future__ import annotations

from dataclasses import dataclass, field

from epp.manifests.fields import Fields, Items, Shape, Text, Texts, Unsupported, Whole, harmless

GATEWAY_API = "gateway.networking.k8s.io"
ENVOY_GATEWAY = "gateway.envoyproxy.io"
AI_GATEWAY = "aigateway.envoyproxy.io"
INFERENCE = "inference.networking.k8s.io"
INFERENCE_X = "inference.networking.x-k8s.io"
KSERVE = "serving.kserve.io"

NAME = Text(may_be_empty=False)
PORT = Whole(1, 65535)
DEFAULTS = "Envoy's defaults hold"

METADATA: dict[str, Shape] = harmless(
    "clusterName creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName "
    "generation managedFields ownerReferences resourceVersion selfLink uid"
) | {"name": Text(), "namespace": Text(), "annotations": Texts(), "labels": Texts()}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its API group (the first of several is the current one) and versions, and the fields beside apiVersion,
    kind, metadata and status. `nothing`: said when such an object is listed as having no effect."""

    groups: tuple[str, ...]
    versions: tuple[str, ...]
    fields: dict[str, Shape]
    namespaced: bool = True
    nothing: str = ""
    annotations: tuple[str, ...] = field(default=())
    required: tuple[str, ...] = ("spec",)


def reference(*, section: bool = False) -> Fields:
    """A reference to an object of a group, kind and name, possibly to a section of it."""
    fields: dict[str, Shape] = {"group": Text(), "kind": Text(), "name": NAME, "namespace": Text()}
    if section:
        fields |= {"sectionName": Text(), "port": Unsupported("it is attached to all listeners of the name")}
    return Fields(fields, ("name",))


TARGETS: dict[str, Shape] = {
    "targetRef": reference(section=True),
    "targetRefs": Items(reference(section=True)),
    "targetSelectors": Unsupported("no target is selected by its labels; name it in targetRefs"),
}
