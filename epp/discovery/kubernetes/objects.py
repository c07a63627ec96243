# SPDX-License-Identifier: Apache-2.0
"""What we read of pods and of the inference kinds; what else is in them is skipped unparsed.

Every field has a neutral default where its absence makes sense, so an object is only refused for a field that it must
have, or one of a wrong type.
"""

from __future__ import annotations

from typing import Any

import msgspec

from epp.kube.objects import Meta, PodStatus


class ContainerPort(msgspec.Struct, frozen=True, rename="camel"):
    """A port that a container says it listens on."""

    container_port: int = 0


class Resources(msgspec.Struct, frozen=True):
    """What a container may use. Names of extended resources have a domain, `nvidia.com/gpu`."""

    limits: dict[str, Any] | None = None
    claims: list[Any] | None = None


class Container(msgspec.Struct, frozen=True):
    """One container of a pod."""

    name: str = ""
    ports: list[ContainerPort] | None = None
    resources: Resources | None = None


class ServingPodSpec(msgspec.Struct, frozen=True):
    """`spec` of a pod. Init containers, and so sidecars of that kind, are not read."""

    containers: list[Container] | None = None


class ServingPod(msgspec.Struct, frozen=True):
    """A pod, with what tells whether its model server is still the same process."""

    metadata: Meta
    spec: ServingPodSpec = ServingPodSpec()
    status: PodStatus = PodStatus()


class PoolPort(msgspec.Struct, frozen=True):
    """A port of a pool, or of the picker's service."""

    number: int = 0


class PoolSelector(msgspec.Struct, frozen=True, rename="camel"):
    """`spec.selector` of a pool, v1."""

    match_labels: dict[str, str] | None = None


class PickerRef(msgspec.Struct, frozen=True):
    """`spec.endpointPickerRef`, v1."""

    name: str = ""
    port: PoolPort | None = None


class PoolV1Spec(msgspec.Struct, frozen=True, rename="camel"):
    """`spec` of an InferencePool, inference.networking.k8s.io/v1."""

    selector: PoolSelector | None = None
    target_ports: list[PoolPort] | None = None
    app_protocol: str = "http"
    endpoint_picker_ref: PickerRef | None = None


class PoolV1(msgspec.Struct, frozen=True):
    """An InferencePool, inference.networking.k8s.io/v1."""

    metadata: Meta
    spec: PoolV1Spec = PoolV1Spec()


class ExtensionRef(msgspec.Struct, frozen=True, rename="camel"):
    """`spec.extensionRef`, v1alpha2."""

    name: str = ""
    port_number: int | None = None


class PoolV1Alpha2Spec(msgspec.Struct, frozen=True, rename="camel"):
    """`spec` of an InferencePool, inference.networking.x-k8s.io/v1alpha2."""

    selector: dict[str, str] | None = None
    target_port_number: int = 0
    extension_ref: ExtensionRef | None = None


class PoolV1Alpha2(msgspec.Struct, frozen=True):
    """An InferencePool, inference.networking.x-k8s.io/v1alpha2."""

    metadata: Meta
    spec: PoolV1Alpha2Spec = PoolV1Alpha2Spec()


class PoolRef(msgspec.Struct, frozen=True):
    """Which pool an object is about. Without a group, the kind's own default holds."""

    name: str = ""
    group: str | None = None


class ObjectiveSpec(msgspec.Struct, frozen=True, rename="camel"):
    """`spec` of an InferenceObjective."""

    pool_ref: PoolRef
    priority: int | None = None


class Objective(msgspec.Struct, frozen=True):
    """An InferenceObjective."""

    metadata: Meta
    spec: ObjectiveSpec


class ModelMatch(msgspec.Struct, frozen=True):
    """The model that a client names."""

    value: str
    type: str = "Exact"


class Match(msgspec.Struct, frozen=True):
    """A condition of a rewrite rule; without a model it holds for every request."""

    model: ModelMatch | None = None


class RewriteTarget(msgspec.Struct, frozen=True, rename="camel"):
    """A model to ask for instead."""

    model_rewrite: str
    weight: int | None = None


class RewriteRule(msgspec.Struct, frozen=True):
    """One rule: any match suffices, no matches hold for every request."""

    matches: list[Match] | None = None
    targets: list[RewriteTarget] | None = None


class RewriteSpec(msgspec.Struct, frozen=True, rename="camel"):
    """`spec` of an InferenceModelRewrite."""

    pool_ref: PoolRef
    rules: list[RewriteRule] | None = None


class Rewrite(msgspec.Struct, frozen=True):
    """An InferenceModelRewrite."""

    metadata: Meta
    spec: RewriteSpec


class TargetModel(msgspec.Struct, frozen=True):
    """A model to ask for instead, of an InferenceModel."""

    name: str
    weight: int | None = None


class InferenceModelSpec(msgspec.Struct, frozen=True, rename="camel"):
    """`spec` of an InferenceModel."""

    model_name: str
    pool_ref: PoolRef
    criticality: str | None = None
    target_models: list[TargetModel] | None = None


class InferenceModel(msgspec.Struct, frozen=True):
    """An InferenceModel."""

    metadata: Meta
    spec: InferenceModelSpec
