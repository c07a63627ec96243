# SPDX-License-Identifier: Apache-2.0
"""Objects for tests, a listener that remembers, and a source that runs against the stand-in API server."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from epp.contract.discovery import EndpointSpec
from epp.contract.models import Models
from epp.discovery.kubernetes.objects import ServingPod
from epp.discovery.kubernetes.poolspec import PoolSpec
from epp.discovery.kubernetes.source import KubernetesSource, PoolTarget
from epp.kube.access import find_access
from epp.kube.api import Api
from tests.apiserver.server import ApiServer

NS = "kserve-test"
API = "kubernetes-api"
GIE, GIE_X, LLM_D = "inference.networking.k8s.io", "inference.networking.x-k8s.io", "llm-d.ai"


def pod_body(
    name: str = "a",
    *,
    labels: dict[str, str] | None = None,
    ip: str = "10.0.0.1",
    ready: bool = True,
    restarts: int = 0,
    uid: str = "",
    namespace: str = NS,
    annotations: dict[str, str] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    status = {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}] if ip else [],
        "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": str(ready)}],
        "containerStatuses": [{"name": "main", "restartCount": restarts}],
    }
    meta = {
        "name": name,
        "namespace": namespace,
        "labels": {"app": "vllm"} if labels is None else labels,
        "annotations": annotations or {},
        **({"uid": uid} if uid else {}),
        **metadata,
    }
    spec = {"containers": [{"name": "main", "ports": [{"containerPort": 8000}]}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": status}


def pod(name: str = "a", **fields: Any) -> ServingPod:
    return msgspec.convert(pod_body(name, **({"uid": "u-" + name} | fields)), ServingPod)


def pool_v1(
    name: str = "x", *, selector: dict[str, str] | None = None, ports: Sequence[int] = (8000,), **metadata: Any
) -> dict[str, Any]:
    return {
        "apiVersion": f"{GIE}/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": NS, **metadata},
        "spec": {
            "selector": {"matchLabels": selector or {"app": "vllm"}},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "epp", "kind": "Service", "port": {"number": 9002}},
        },
    }


def pool_x(name: str = "x", *, selector: dict[str, str] | None = None, port: int = 8000) -> dict[str, Any]:
    return {
        "apiVersion": f"{GIE_X}/v1alpha2",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": NS},
        "spec": {
            "selector": selector or {"app": "vllm"},
            "targetPortNumber": port,
            "extensionRef": {"name": "epp", "kind": "Service"},
        },
    }


def custom(kind: str, name: str, spec: dict[str, Any], *, group: str = LLM_D, created: str = "") -> dict[str, Any]:
    metadata = {"name": name, "namespace": NS} | ({"creationTimestamp": created} if created else {})
    return {"apiVersion": f"{group}/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}


async def hurry(seconds: float) -> None:
    """Waits as they are, but none over 20 ms."""
    await asyncio.sleep(min(seconds, 0.02))


class Recorder:
    """A listener, and a `tell`."""

    def __init__(self) -> None:
        self.pools: list[PoolSpec] = []
        self.snapshots: list[tuple[EndpointSpec, ...]] = []
        self.gones = 0
        self.seen: list[Models] = []
        self.wrong: dict[str, str] = {}
        self.history: list[tuple[str, str | None]] = []

    def pool(self, pool: PoolSpec) -> None:
        self.pools.append(pool)

    def endpoints(self, endpoints: Sequence[EndpointSpec]) -> None:
        self.snapshots.append(tuple(endpoints))

    def gone(self) -> None:
        self.gones += 1

    def models(self, models: Models) -> None:
        self.seen.append(models)

    def tell(self, what: str, line: str | None) -> None:
        if self.wrong.get(what) == line:
            return
        self.history.append((what, line))
        self.wrong.pop(what, None)
        if line is not None:
            self.wrong[what] = line

    @property
    def names(self) -> list[str] | None:
        return [spec.name for spec in self.snapshots[-1]] if self.snapshots else None


async def until(true: Callable[[], object], patience_s: float = 15.0) -> None:
    """Return when `true()` is."""
    end_s = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < end_s, "waited in vain"
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def client(server: ApiServer, reachable: Callable[[str | None], None] | None = None) -> AsyncIterator[Api]:
    access = find_access(server.environ, service_account=server.service_account)
    assert access is not None
    api = Api(access, reachable=reachable)
    try:
        yield api
    finally:
        await api.close()
        # A connection that was being made when its task was cancelled closes in its own time.
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(run: Callable[[], Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def following(
    server: ApiServer, target: PoolTarget | PoolSpec | None = None, seed: int = 7
) -> AsyncIterator[Recorder]:
    """A source that follows `target` (the pool `x`), with all it says."""
    recorder = Recorder()
    async with client(server, lambda line: recorder.tell(API, line)) as api:
        source = KubernetesSource(
            api, target or PoolTarget(NS, "x"), recorder, tell=recorder.tell, rng=random.Random(seed), sleep=hurry
        )
        async with running(source.run):
            yield recorder
