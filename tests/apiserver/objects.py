# SPDX-License-Identifier: Apache-2.0
"""Objects for tests, of the size and with the fields that real clusters have: pods of vLLM of about ten kilobytes,
pools of both groups, objectives, rewrites, models of the old API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from tests.apiserver.kinds import GIE, GIE_X, LLM_D
from tests.apiserver.managed import managed_fields

Body = dict[str, Any]
STARTED = "2026-08-06T09:12:44Z"
IMAGE = "ghcr.io/llm-d/llm-d-dev:v0.2.2"


def _hex(text: str, digits: int = 64) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _meta(name: str, namespace: str, **more: Any) -> Body:
    return {"name": name, "namespace": namespace, **more}


def condition(kind: str, true: bool, reason: str = "") -> Body:
    """A condition of a pod's status."""
    told = {"type": kind, "status": "True" if true else "False", "lastProbeTime": None, "lastTransitionTime": STARTED}
    return told | ({} if true else {"reason": reason, "message": "containers with unready status: [main]"})


def conditions(ready: bool) -> list[Body]:
    """The conditions of a running pod."""
    return [
        condition("PodReadyToStartContainers", True),
        condition("Initialized", True),
        condition("Ready", ready, "ContainersNotReady"),
        condition("ContainersReady", ready, "ContainersNotReady"),
        condition("PodScheduled", True),
    ]


def not_ready() -> Body:
    """A merge patch that makes a pod not Ready."""
    return {"status": {"conditions": conditions(False)}}


def ready() -> Body:
    """A merge patch that makes a pod Ready."""
    return {"status": {"conditions": conditions(True)}}


def restarted(count: int, name: str = "main") -> Body:
    """A merge patch after the container was restarted `count` times."""
    return {"status": {"containerStatuses": [_container_status(name, True, count)]}}


def _probe(path: str, port: int, delay_s: int, failures: int) -> Body:
    return {
        "failureThreshold": failures,
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "initialDelaySeconds": delay_s,
        "periodSeconds": 10,
        "successThreshold": 1,
        "timeoutSeconds": 5,
    }


def _container(name: str, port: int) -> Body:
    mounts = {"home": "/home", "dshm": "/dev/shm", "model-cache": "/models", "tls-certs": "/var/run/kserve/tls"}
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve", "/mnt/models"],
        "args": ["--served-model-name", "Qwen/Qwen2.5-0.5B-Instruct", "--port", str(port), "--disable-log-requests"],
        "env": [
            {"name": "HOME", "value": "/home"},
            {"name": "VLLM_LOGGING_LEVEL", "value": "INFO"},
            {"name": "HF_HUB_CACHE", "value": "/models"},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
        ],
        "ports": [{"containerPort": port, "protocol": "TCP"}],
        "resources": {
            "limits": {"cpu": "2", "memory": "16Gi", "nvidia.com/gpu": "1"},
            "requests": {"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": False,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "livenessProbe": _probe("/health", port, 120, 3),
        "readinessProbe": _probe("/health", port, 10, 60),
        "startupProbe": _probe("/health", port, 10, 360),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"mountPath": path, "name": volume} for volume, path in mounts.items()],
    }


def _container_status(name: str, ready: bool, restart_count: int) -> Body:
    status: Body = {
        "name": name,
        "image": IMAGE,
        "imageID": f"{IMAGE.partition(':')[0]}@sha256:{_hex(IMAGE)}",
        "containerID": f"containerd://{_hex(f'{name}{restart_count}')}",
        "ready": ready,
        "started": True,
        "restartCount": restart_count,
        "state": {"running": {"startedAt": STARTED}},
        "lastState": {},
        "resources": {"limits": {"cpu": "2", "memory": "16Gi"}, "requests": {"cpu": "1", "memory": "8Gi"}},
    }
    if restart_count:
        ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": STARTED, "finishedAt": STARTED}
        status["lastState"] = {"terminated": {**ended, "containerID": f"containerd://{_hex(name)}"}}
    return status


def _volumes() -> list[Body]:
    sources: list[Body] = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {
            "downwardAPI": {
                "items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]
            }
        },
    ]
    return [
        {"name": "home", "emptyDir": {}},
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "model-cache", "emptyDir": {}},
        {"name": "tls-certs", "secret": {"secretName": "qwen-instruct-kserve-self-signed-certs", "defaultMode": 420}},
        {"name": "kube-api-access-6xk2p", "projected": {"defaultMode": 420, "sources": sources}},
    ]


def _toleration(key: str) -> Body:
    return {"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300}


def pod(
    name: str,
    ip: str,
    labels: Mapping[str, str],
    *,
    namespace: str = "kserve-test",
    ready: bool = True,
    port: int = 8000,
    restart_count: int = 0,
    annotations: Mapping[str, str] | None = None,
    phase: str = "Running",
    container: str = "main",
) -> Body:
    """A pod of vLLM. `ip` may be IPv6; "" leaves the pod without an address."""
    owner = {
        "apiVersion": "apps/v1",
        "blockOwnerDeletion": True,
        "controller": True,
        "kind": "ReplicaSet",
        "name": name.rpartition("-")[0] or name,
        "uid": f"{_hex(name, 8)}-0000-4000-8000-{_hex(name, 12)}",
    }
    status: Body = {
        "phase": phase,
        "qosClass": "Burstable",
        "hostIP": "10.0.0.17",
        "hostIPs": [{"ip": "10.0.0.17"}],
        "startTime": STARTED,
        "observedGeneration": 1,
        "conditions": conditions(ready),
        "containerStatuses": [_container_status(container, ready, restart_count)],
    }
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    meta = _meta(name, namespace, labels=dict(labels), ownerReferences=[owner], generateName=f"{owner['name']}-")
    if annotations:
        meta["annotations"] = dict(annotations)
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {
            "containers": [_container(container, port)],
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "nodeName": "gpu-worker-17",
            "preemptionPolicy": "PreemptLowerPriority",
            "priority": 0,
            "restartPolicy": "Always",
            "schedulerName": "default-scheduler",
            "securityContext": {},
            "serviceAccount": "default",
            "serviceAccountName": "default",
            "terminationGracePeriodSeconds": 30,
            "tolerations": [_toleration(f"node.kubernetes.io/{trouble}") for trouble in ("not-ready", "unreachable")],
            "volumes": _volumes(),
        },
        "status": status,
    }
    meta["managedFields"] = managed_fields(body)
    return body


def pool_v1(
    name: str,
    selector: Mapping[str, str],
    *,
    namespace: str = "kserve-test",
    ports: Sequence[int] = (8000,),
    epp: str = "",
    failure_mode: str = "FailOpen",
    annotations: Mapping[str, str] | None = None,
) -> Body:
    """An InferencePool of inference.networking.k8s.io/v1, accepted by a gateway. `epp` names the picker's Service."""
    meta = _meta(name, namespace, **({"annotations": dict(annotations)} if annotations else {}))
    spec: Body = {"selector": {"matchLabels": dict(selector)}, "targetPorts": [{"number": port} for port in ports]}
    picker = {"group": "", "kind": "Service", "name": epp or f"{name}-epp", "port": {"number": 9002}}
    spec["endpointPickerRef"] = {**picker, "failureMode": failure_mode}
    return {
        "apiVersion": f"{GIE}/v1",
        "kind": "InferencePool",
        "metadata": meta,
        "spec": spec,
        "status": _accepted("parents"),
    }


def _accepted(field: str) -> Body:
    told = [
        {
            "type": kind,
            "status": "True",
            "reason": kind,
            "message": "",
            "lastTransitionTime": STARTED,
            "observedGeneration": 1,
        }
        for kind in ("Accepted", "ResolvedRefs")
    ]
    gateway = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "ai-gateway"}
    return {
        field: [
            {
                "controllerName": "gateway.envoyproxy.io/gatewayclass-controller",
                "parentRef": gateway,
                "conditions": told,
            }
        ]
    }


def pool_v1alpha2(
    name: str,
    selector: Mapping[str, str],
    *,
    namespace: str = "kserve-test",
    port: int = 8000,
    epp: str = "",
    failure_mode: str = "FailOpen",
) -> Body:
    """An InferencePool of inference.networking.x-k8s.io/v1alpha2: a flat selector, one port."""
    return {
        "apiVersion": f"{GIE_X}/v1alpha2",
        "kind": "InferencePool",
        "metadata": _meta(name, namespace),
        "spec": {
            "selector": dict(selector),
            "targetPortNumber": port,
            "extensionRef": {"group": "", "kind": "Service", "name": epp or f"{name}-epp", "failureMode": failure_mode},
        },
        "status": _accepted("parent"),
    }


def _ref(pool: str, group: str) -> Body:
    return {"group": group, "kind": "InferencePool", "name": pool}


def objective(
    name: str,
    pool: str,
    priority: int | None = None,
    *,
    namespace: str = "kserve-test",
    group: str = LLM_D,
    pool_group: str = GIE,
) -> Body:
    """An InferenceObjective of `group`; without a priority the field is absent."""
    spec: Body = {"poolRef": _ref(pool, pool_group)}
    if priority is not None:
        spec["priority"] = priority
    api_version = f"{group}/v1alpha2"
    return {"apiVersion": api_version, "kind": "InferenceObjective", "metadata": _meta(name, namespace), "spec": spec}


def rewrite(
    name: str,
    pool: str,
    rules: Sequence[tuple[Sequence[str], Mapping[str, int | None]]],
    *,
    namespace: str = "kserve-test",
    group: str = LLM_D,
    pool_group: str = GIE,
) -> Body:
    """An InferenceModelRewrite. A rule is (models that match, {target: weight or None}); no models match all."""
    told = []
    for models, targets in rules:
        rule: Body = {"targets": [{"modelRewrite": target} | _weight(weight) for target, weight in targets.items()]}
        if models:
            rule["matches"] = [{"model": {"type": "Exact", "value": model}} for model in models]
        told.append(rule)
    spec = {"poolRef": _ref(pool, pool_group), "rules": told}
    api_version = f"{group}/v1alpha2"
    return {
        "apiVersion": api_version,
        "kind": "InferenceModelRewrite",
        "metadata": _meta(name, namespace),
        "spec": spec,
    }


def _weight(weight: int | None) -> Body:
    return {} if weight is None else {"weight": weight}


def inference_model(
    name: str,
    pool: str,
    model: str,
    *,
    criticality: str | None = "Critical",
    targets: Mapping[str, int | None] | None = None,
    namespace: str = "kserve-test",
    created: str = "",
) -> Body:
    """An InferenceModel of inference.networking.x-k8s.io/v1alpha2. `created` sets its creation time: the oldest wins."""
    spec: Body = {"modelName": model, "poolRef": _ref(pool, GIE_X)}
    if criticality is not None:
        spec["criticality"] = criticality
    if targets:
        spec["targetModels"] = [{"name": target} | _weight(weight) for target, weight in targets.items()]
    meta = _meta(name, namespace, **({"creationTimestamp": created} if created else {}))
    return {"apiVersion": f"{GIE_X}/v1alpha2", "kind": "InferenceModel", "metadata": meta, "spec": spec}
