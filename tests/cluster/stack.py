# SPDX-License-Identifier: Apache-2.0
"""A small cluster: the API server's stand-in, pods of an InferencePool that really answer, pickers that find them.

A pod of the cluster is an object of the API server and a process on an address of its own, 127.0.N.M, all on one port,
as pods have it. `add` starts the process and then says Ready; `remove` is kubelet's way: the deletionTimestamp first,
then the process ends, then the object goes.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from epp.local.ports import free_port
from tests.apiserver.objects import inference_model, pod, pool_v1, pool_v1alpha2
from tests.apiserver.server import ApiServer
from tests.e2e.stack import SEED_YAML, Epp, PodPart, pods, serving

NAMESPACE = "kserve-test"
SERVICE = "qwen-instruct"
POOL = "qwen-instruct-inference-pool"
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
SELECTOR = {
    "app.kubernetes.io/name": SERVICE,
    "app.kubernetes.io/part-of": "llminferenceservice",
    "kserve.io/component": "workload",
}
LABELS = {
    **SELECTOR,
    "app.kubernetes.io/component": "llminferenceservice-workload",
    "llm-d.ai/role": "both",
    "pod-template-hash": "6899dd5fb8",
}
_SUBNETS = itertools.count(40)


class Cluster:
    """Starts empty of pods."""

    def __init__(self, server: ApiServer, parts: contextlib.ExitStack, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._parts = parts
        self._subnet = f"127.0.{next(_SUBNETS)}"
        self._hosts = itertools.count(1)
        self.port = free_port([f"{self._subnet}.1"], None, random.Random())
        self.running: dict[str, PodPart] = {}
        self.ips: dict[str, str] = {}

    def pools(self, *objects: dict[str, Any]) -> None:
        """Make the pool, as KServe since v0.17 does: in both groups. Or other ones."""
        self.server.apply(objects or (self.v1(), self.v1alpha2()))

    def v1(self, **changed: Any) -> dict[str, Any]:
        """The pool of today."""
        return pool_v1(POOL, SELECTOR, namespace=NAMESPACE, ports=[self.port], **changed)

    def v1alpha2(self) -> dict[str, Any]:
        """The pool of the tutorial."""
        return pool_v1alpha2(POOL, SELECTOR, namespace=NAMESPACE, port=self.port)

    def model(self) -> dict[str, Any]:
        """KServe v0.16's InferenceModel."""
        return inference_model(f"{SERVICE}-inference-model", POOL, MODEL, namespace=NAMESPACE)

    def add(self, count: int = 1) -> list[str]:
        """Start so many pods; their names."""
        names = []
        for _ in range(count):
            host = next(self._hosts)
            name, ip = f"{SERVICE}-kserve-6899dd5fb8-p{host:04d}", f"{self._subnet}.{host}"
            self.running[name] = self._parts.enter_context(pods(f"{ip}:{self.port}"))
            self.ips[name] = ip
            self.apply(name, ip)
            names.append(name)
        return names

    def apply(self, name: str, ip: str, *, ready: bool = True, restarts: int = 0) -> None:
        """Say what the cluster knows of a pod."""
        self.server.apply(
            pod(name, ip, LABELS, namespace=NAMESPACE, ready=ready, port=self.port, restart_count=restarts)
        )

    def remove(self, *names: str, grace_s: float = 0.5) -> None:
        """Take pods away; their processes end `grace_s` after the cluster was told."""
        for name in names:
            self.server.delete("pods", NAMESPACE, name, grace=True)
        time.sleep(grace_s)
        for name in names:
            self.running.pop(name).part.stop()
            self.server.finish("pods", NAMESPACE, name)
            del self.ips[name]

    def environ(self) -> dict[str, str]:
        """The environment of a picker."""
        path = self.folder / "kubeconfig"
        if not path.exists():
            self.server.kubeconfig(path, auth="token-file")
        return {"KUBECONFIG": str(path)}

    @contextlib.contextmanager
    def picker(self, *flags: str, env: dict[str, str] | None = None) -> Iterator[Epp]:
        """A picker of the pool, started as KServe v0.17 starts it, with `flags` besides. Its metrics are for all."""
        argv = ("--pool-name", POOL, "--pool-namespace", NAMESPACE, "--zap-encoder", "json")
        argv += ("--metrics-endpoint-auth=false",)
        text = () if any("config-" in flag for flag in flags) else ("--config-text", SEED_YAML)
        with serving(*argv, *text, *flags, env={**self.environ(), **(env or {})}) as epp:
            yield epp


@contextlib.contextmanager
def cluster(folder: Path, **options: Any) -> Iterator[Cluster]:
    """A cluster whose files are in `folder`; `options` are of `ApiServer`."""
    with contextlib.ExitStack() as parts:
        server = parts.enter_context(ApiServer(namespace=NAMESPACE, **options))
        yield Cluster(server, parts, folder)


def found(epp: Epp, count: int, since: int = 0) -> None:
    """Wait until the picker knows of `count` endpoints."""
    epp.say(f"endpoints found: {count}", since)


def eventually(true: Callable[[], object], what: str, patience_s: float = 20.0) -> None:
    """Wait until `true()` is."""
    deadline_s = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline_s, f"waited {patience_s:g} s in vain for {what}"
        time.sleep(0.02)
