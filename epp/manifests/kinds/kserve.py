# SPDX-License-Identifier: Apache-2.0
"""Kinds of KServe: services of models, reduced to what is served, by how many pods, and how the picker is set up."""

from __future__ import annotations

from epp.manifests.fields import Fields, Harmless, Items, Shape, Text, Texts, Unsupported, Whole, harmless, unsupported
from epp.manifests.kinds.inference import POOL_SPEC
from epp.manifests.kinds.kind import KSERVE, NAME, Kind
from epp.manifests.kinds.pods import CONTAINER, POD, POD_FIELDS

ONE_ROLE = "all pods are of one kind"
BY_ROUTES = "requests reach it by the routes in the files"

_MODEL = Fields(
    {
        "uri": Text(),
        "name": Text(),
        "criticality": Unsupported("requests have the priority that their header names, or none"),
        "lora": Fields(
            harmless("maxRank maxAdapters maxCpuAdapters")
            | {"adapters": Items(Fields(harmless("uri framework criticality lora") | {"name": Text()}))}
        ),
        "storage": Harmless(),
    }
)

_SCHEDULER = Fields(
    {
        "pool": Fields({"spec": Fields(POOL_SPEC), "ref": Fields({"name": Text()})}),
        "template": POD,
        "config": Fields({"inline": Harmless(), "ref": Fields(harmless("optional") | {"name": Text(), "key": Text()})}),
        "labels": Texts(),
        "annotations": Texts(),
        "replicas": Unsupported("one picker is started", unless=(1,)),
        "tokenizer": Unsupported("no tokenizer is started"),
    }
)

_ROUTER = Fields(
    {
        "scheduler": _SCHEDULER,
        "route": Unsupported(BY_ROUTES),
        "gateway": Unsupported(BY_ROUTES),
        "ingress": Unsupported(BY_ROUTES),
    }
)

LLM_SPEC: dict[str, Shape] = harmless("runtime trustRemoteCode storageInitializer rolloutStrategy") | {
    "model": _MODEL,
    "replicas": Whole(),
    "scaling": Fields(harmless("wva keda") | {"minReplicas": Whole(), "maxReplicas": Harmless()}),
    "parallelism": Harmless(),
    "labels": Texts(),
    "annotations": Texts(),
    "template": POD,
    "router": _ROUTER,
    "baseRefs": Items(Fields({"name": NAME}, ("name",))),
    "prefill": Unsupported(ONE_ROLE),
    "worker": Unsupported("a simulated pod stands for a whole group"),
    "tracing": Unsupported("nothing is traced"),
}

_PREDICTOR: dict[str, Shape] = (
    POD_FIELDS
    | {
        "model": Fields(
            CONTAINER.fields
            | harmless("modelFormat protocolVersion runtime runtimeVersion storage storageUri storageUris modelClass")
        ),
        "containers": Items(CONTAINER),
        "minReplicas": Whole(),
    }
    | harmless(
        "annotations batcher canaryTrafficPercent containerConcurrency deploymentStrategy labels logger maxReplicas "
        "scaleMetric scaleMetricType scaleTarget autoScaling timeout sklearn xgboost tensorflow pytorch triton onnx "
        "huggingface pmml lightgbm paddle"
    )
    | unsupported("a simulated pod stands for a whole group", "workerSpec")
)

_INFERENCE_SERVICE = Fields(
    {
        "predictor": Fields(_PREDICTOR),
        "transformer": Unsupported("requests go to the predictor"),
        "explainer": Unsupported("requests go to the predictor"),
    },
    ("predictor",),
)

_LLM_VERSIONS = ("v1alpha2", "v1alpha1")

KINDS: dict[str, Kind] = {
    "LLMInferenceService": Kind((KSERVE,), _LLM_VERSIONS, {"spec": Fields(LLM_SPEC)}),
    "LLMInferenceServiceConfig": Kind((KSERVE,), _LLM_VERSIONS, {"spec": Fields(LLM_SPEC)}),
    "InferenceService": Kind((KSERVE,), ("v1beta1",), {"spec": _INFERENCE_SERVICE}),
    "ServingRuntime": Kind(
        (KSERVE,), ("v1alpha1",), {"spec": Harmless()}, nothing="no model server is started from it"
    ),
}
