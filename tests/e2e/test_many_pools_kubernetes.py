# SPDX-License-Identifier: Apache-2.0
"""Many pools of a cluster, behind real Envoy: the API server's objects say which there are, and how each is called."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from epp.service.pools.configs import ANNOTATION
from tests.apiserver.server import ApiServer
from tests.e2e.client import Answer, chat, post
from tests.e2e.stack import Epp, envoy, pods, serving
from tests.e2e.test_many_pools import RANDOM, routed

pytestmark = pytest.mark.envoy

NAMESPACE = "llm"
POOLS = "inferencepools.inference.networking.k8s.io"
WAYS: dict[str, tuple[str, Mapping[str, str]]] = {
    "qwen": ("outbound_.9002_._.qwen-epp.llm.svc.cluster.local", {}),
    "llama": ("llama-epp.llm.svc:9002", {}),
    "late": ("late-epp.llm.svc:9002", {}),
}


def pool(name: str, port: int, *, picker_port: int = 9002, annotation: str = "") -> dict[str, Any]:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "annotations": {ANNOTATION: annotation} if annotation else {},
        },
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "targetPorts": [{"number": port}],
            "endpointPickerRef": {"kind": "Service", "name": f"{name}-epp", "port": {"number": picker_port}},
        },
    }


def pod(app: str, ip: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{app}-{ip.replace('.', '-')}", "namespace": NAMESPACE, "labels": {"app": app}},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def cluster(folder: Path, *flags: str) -> Iterator[tuple[ApiServer, Epp, int]]:
    """An API server, a picker for all pools of the namespace, and the port that all pods have."""
    with pods("0.0.0.0:0") as served, ApiServer() as server:
        port = int(served.addresses[0].rpartition(":")[2])
        kubeconfig = server.kubeconfig(folder / "kubeconfig")
        names = ("--pool-name=*",) if not any(flag.startswith("--pool-name") for flag in flags) else ()
        with serving(
            f"--kubeconfig={kubeconfig}", f"--pool-namespace={NAMESPACE}", "--secure-serving=false",
            "--metrics-endpoint-auth=false", *names, *flags,
        ) as epp:  # fmt: skip
            yield server, epp, port


def ask(gateway_port: int, way: str) -> Answer:
    return post(gateway_port, chat("hello"), {"x-way": way, "x-do": "echo"})


def chosen(answer: Answer) -> str:
    assert answer.status == 200, answer
    return str(dict(answer.json()["headers"])["x-gateway-destination-endpoint"]).rpartition(":")[0]


def test_pools_of_a_namespace(tmp_path: Path) -> None:
    own = free_port()
    with cluster(tmp_path, f"--pool-ports={own}") as (server, epp, port):
        epp.say("pools known: 0")
        server.apply([
            pool("llama", port), pod("llama", "127.0.1.1"), pod("llama", "127.0.1.2"),
            pool("qwen", port, annotation=RANDOM), pod("qwen", "127.0.2.1"),
            pool("own", port, picker_port=own, annotation="plugins: nonsense"), pod("own", "127.0.3.1"),
        ])  # fmt: skip
        epp.say("serving ext_proc on port")
        epp.say(f"port {own} too")
        epp.say("llm/own/configuration: annotation llm-d.ai/endpoint-picker-config")
        with (
            envoy(epp.port, adapt=routed(WAYS), epp_tls=False) as gateway,
            envoy(own, adapt=routed({"own": ("10.0.0.1:80", {})}), epp_tls=False) as other,
        ):
            server.wait(lambda: ask(gateway.port, "llama").status == ask(gateway.port, "qwen").status == 200)
            for _ in range(4):
                assert chosen(ask(gateway.port, "llama")) in ("127.0.1.1", "127.0.1.2")
                assert chosen(ask(gateway.port, "qwen")) == "127.0.2.1"
                assert chosen(ask(other.port, "own")) == "127.0.3.1"
            assert ask(gateway.port, "late").status == 503
            server.apply([pool("late", port), pod("late", "127.0.4.1")])
            server.wait(lambda: ask(gateway.port, "late").status == 200)
            assert chosen(ask(gateway.port, "late")) == "127.0.4.1"
            server.patch(POOLS, NAMESPACE, "own", {"metadata": {"annotations": {ANNOTATION: RANDOM}}})
            epp.say("llm/own/configuration: well again")
            server.delete(POOLS, NAMESPACE, "late")
            server.wait(lambda: ask(gateway.port, "late").status == 503)
            assert chosen(ask(gateway.port, "qwen")) == "127.0.2.1"
            page = epp.metrics()
            assert {labels["pool"] for labels, _ in page.samples["inference_pool_ready_pods"]} == {
                "llm/llama", "llm/own", "llm/qwen",
            }  # fmt: skip
            assert page.sum("epp_pools") == 3
            server.delete(POOLS, NAMESPACE, "own")
            epp.say(f"port {own} is asked for by no pool any more")


def test_named_pools_one_of_them_missing(tmp_path: Path) -> None:
    with cluster(tmp_path, "--pool-name=llama", "--pool-name=nowhere") as (server, epp, port):
        server.apply([pool("llama", port), pod("llama", "127.0.1.1"), pool("qwen", port), pod("qwen", "127.0.2.1")])
        epp.say("pools-missing: no pool nowhere in namespace llm; create it, or mend --pool-name")
        with envoy(epp.port, adapt=routed(WAYS), epp_tls=False) as gateway:
            server.wait(lambda: ask(gateway.port, "llama").status == 200)
            assert chosen(ask(gateway.port, "llama")) == "127.0.1.1"
            assert epp.metrics().sum("epp_degraded", what="pools-missing") == 1
            assert epp.metrics().sum("epp_pools") == 1
