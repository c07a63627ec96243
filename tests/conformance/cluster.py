# SPDX-License-Identifier: Apache-2.0
"""Pods and pools in a Kubernetes cluster, with the rights of the conformance tests' manifests: to read both, and nothing
else. The command line is that of the manifests; a kubeconfig in the environment stands for the pod's service account.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.apiserver.roles import CONFORMANCE
from tests.apiserver.server import ApiServer
from tests.conformance.fixture import NAMESPACE, POOLS
from tests.conformance.gateway import Pool


class Cluster:
    """A source of endpoints: the stand-in API server that `kubeconfig` leads to."""

    def __init__(self, server: ApiServer, kubeconfig: Path) -> None:
        self.server = server
        self._kubeconfig = kubeconfig

    def flags(self, pool: Pool) -> Sequence[str]:
        """Nothing: this is how the tests start a picker."""
        return ()

    def environ(self, pool: Pool) -> dict[str, str]:
        """Where the cluster is."""
        return {"KUBECONFIG": str(self._kubeconfig)}


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """The cluster, with every pool and its pods."""
    with ApiServer(namespace=NAMESPACE, service_account="default") as server:
        for pool in POOLS:
            server.apply([_pool(pool), *(_pod(pool, name, ip) for name, ip in pool.pods.items())])
        server.rules.allow_only(CONFORMANCE)
        yield Cluster(server, server.kubeconfig(folder / "kubeconfig"))


def _app(pool: Pool) -> dict[str, str]:
    return {"app": pool.names[0].rpartition("-")[0]}


def _pool(pool: Pool) -> dict[str, Any]:
    picker = {"name": f"{pool.name}-epp", "port": {"number": 9002}}
    if pool.fail_open:
        picker["failureMode"] = "FailOpen"
    spec = {
        "selector": {"matchLabels": _app(pool)},
        "targetPorts": [{"number": port} for port in pool.ports],
        "endpointPickerRef": picker,
    }
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": pool.name, "namespace": NAMESPACE},
        "spec": spec,
    }


def _pod(pool: Pool, name: str, ip: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": _app(pool)},
        "spec": {"containers": [{"name": "echoserver"}]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
