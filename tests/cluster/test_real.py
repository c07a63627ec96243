# SPDX-License-Identifier: Apache-2.0
"""A pool's life before a real kube-apiserver, with KServe's rights and no others."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from epp.local.ports import free_port
from tests.apiserver.kinds import GIE_X
from tests.apiserver.objects import objective, pool_v1
from tests.apiserver.roles import KSERVE_ROLES
from tests.cluster.real import NAMESPACE, SCRAPER, real
from tests.cluster.stack import eventually, found
from tests.e2e.client import chat, post
from tests.e2e.stack import SEED_YAML, Epp, envoy, pods, serving

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(300)]

LABELS = {"app": "vllm"}
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/epp-{NAMESPACE}-p.llm-d.ai"


def used(port: int, count: int = 40) -> set[str]:
    """Which pods answer."""
    answers = [post(port, chat(f"{time.monotonic()} {n} " * 30)) for n in range(count)]
    assert {answer.status for answer in answers} == {200}
    return {answer.get("x-inference-pod").rpartition(":")[0] for answer in answers}


def scraped(epp: Epp, token: str) -> tuple[int, str]:
    """The metrics page."""
    page = urllib.request.Request(f"http://127.0.0.1:{epp.metrics_port}/metrics")
    page.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(page, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_a_pools_life(tmp_path: Path) -> None:
    ips = [f"127.0.30.{n}" for n in range(1, 6)]
    port = free_port(ips, None, random.Random())
    argv = ("--pool-name=p", f"--pool-namespace={NAMESPACE}", "--config-text", SEED_YAML, "--ha-enable-leader-election")
    with real(tmp_path) as server, pods(*[f"{ip}:{port}" for ip in ips]):
        server.prepare(KSERVE_ROLES["v0.20"])
        env = {"KUBECONFIG": str(server.kubeconfig()), "POD_NAME": "one"}
        with serving(*argv, "--drain-timeout=1s", env=env) as epp, envoy(epp.port) as gateway:
            epp.say("inferencepool kserve-test/p is not there")
            assert post(gateway.port, chat("nobody")).status == 503
            for n, ip in enumerate(ips[:4]):
                server.add_pod(f"pod-{n}", ip, LABELS, port)
            server.make(pool_v1("p", LABELS, ports=[port], epp="p-epp"))
            found(epp, 4)
            assert used(gateway.port) <= set(ips[:4])
            server.report("pod-0", ips[0], LABELS, ready=False)
            eventually(lambda: ips[0] not in used(gateway.port, 8), "the unready pod to be left out")
            since = len(epp.lines)
            server.must("DELETE", f"/api/v1/namespaces/{NAMESPACE}/pods/pod-3", {"gracePeriodSeconds": 0})
            found(epp, 2, since)
            assert (scraped(epp, SCRAPER)[0], scraped(epp, "nobody's")[0]) == (200, 401)
            assert server.must("GET", LEASE)["spec"]["holderIdentity"].startswith("one_")
            # It dies, requests go on, and what happened meanwhile is seen when it is back.
            server.stop_api()
            assert used(gateway.port) <= set(ips[1:3])
            server.start_api()
            server.report("pod-0", ips[0], LABELS)
            server.add_pod("pod-4", ips[4], LABELS, port)
            found(epp, 4, since)
            server.make(objective("urgent", "p", 5, group=GIE_X))
            eventually(lambda: prioritised(gateway.port, epp), "the objective to be known")
            since = len(epp.lines)
            server.must("DELETE", f"/apis/inference.networking.k8s.io/v1/namespaces/{NAMESPACE}/inferencepools/p")
            found(epp, 0, since)
            assert post(gateway.port, chat("nobody")).status == 503
            epp.signal(15)
            assert epp.ended() == 0
            assert server.must("GET", LEASE)["spec"]["holderIdentity"] == ""
        complaints = [json.loads(line)["msg"] for line in epp.complaints()]
        # A server that has just started is busy for a moment, and refuses what its cache of roles does not know yet.
        expected = ("no answer", "is not there", ": 403 ", ": 429 ")
        assert all(any(word in text for word in expected) for text in complaints), complaints


def prioritised(port: int, epp: Epp) -> bool:
    """Whether a request that names the objective has its priority."""
    assert post(port, chat("now"), {"x-gateway-inference-objective": "urgent"}).status == 200
    return 'priority="5"' in scraped(epp, SCRAPER)[1]
