# SPDX-License-Identifier: Apache-2.0
"""KServe's tutorial "LLMInferenceService with Inference Gateway Extension", word for word, behind real Envoy: its
command line, its configuration, its request, and the log lines it tells people to look at."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shlex import split

import pytest

from epp.local.envoy import CONTROL_HEADERS, DESTINATION_HEADER
from epp.transport.selfsigned import self_signed
from tests.e2e.client import chat, get, post
from tests.e2e.pod import ANSWER
from tests.e2e.stack import SEED_YAML, Epp, Stack, connection_manager, envoy, pods, serving

pytestmark = pytest.mark.envoy

ARGV = split(
    "--poolName qwen-instruct-inference-pool --poolNamespace kserve-test --zap-encoder json --grpcPort 9002"
    " --grpcHealthPort 9003 --secureServing --certPath /etc/ssl/certs"
    " --configFile /etc/config/endpoint-picker-config.yaml"
)
CURL = """curl -v -H "Content-Type: application/json" -H "x-user-id: user123" -d '{
        "model": "Qwen/Qwen2.5-0.5B-Instruct",
        "messages": [
              {
                  "role": "system",
                  "content": "You are a poet."
              },
              {
                  "role": "user",
                  "content": "Write a poem about clouds."
              }
          ]
   }'     "$GATEWAY_URL"/v1/chat/completions
"""
BODY = CURL[CURL.index("'") + 1 : CURL.rindex("'")].encode()
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
LABELS = {
    "app.kubernetes.io/component": "llminferenceservice-workload",
    "app.kubernetes.io/name": "qwen-instruct",
    "app.kubernetes.io/part-of": "llminferenceservice",
    "kserve.io/component": "workload",
    "llm-d.ai/role": "both",
    "pod-template-hash": "6899dd5fb8",
}
ENDPOINT = (
    "{NamespacedName:kserve-test/qwen-instruct-kserve-6899dd5fb8-%s Address:%s"
    " Labels:map[app.kubernetes.io/component:llminferenceservice-workload app.kubernetes.io/name:qwen-instruct"
    " app.kubernetes.io/part-of:llminferenceservice kserve.io/component:workload llm-d.ai/role:both"
    " pod-template-hash:6899dd5fb8]}"
)
NAMES = ("tqwn8", "k5x2p", "zz9ab", "m0m0m")


def cluster(folder: Path, addresses: list[str]) -> list[str]:
    """What the cluster mounts and knows: certificate, configuration and pods; and the flags that say where."""
    certs, config, endpoints = folder / "certs", folder / "endpoint-picker-config.yaml", folder / "endpoints.json"
    certs.mkdir()
    for name, content in zip(("tls.crt", "tls.key"), self_signed(), strict=True):
        (certs / name).write_bytes(content)
    config.write_text(SEED_YAML)
    entries = [
        {
            "name": f"qwen-instruct-kserve-6899dd5fb8-{name}",
            "namespace": "kserve-test",
            "address": address.rpartition(":")[0],
            "port": address.rpartition(":")[2],
            "labels": LABELS,
        }
        for name, address in zip(NAMES, addresses, strict=True)
    ]
    endpoints.write_text(json.dumps({"endpoints": entries}))
    here = {
        "9002": "0",
        "9003": "0",
        "/etc/ssl/certs": str(certs),
        "/etc/config/endpoint-picker-config.yaml": str(config),
    }
    return [*(here.get(word, word) for word in ARGV), "--bind-address=", f"--endpoints-file={endpoints}"]


@contextlib.contextmanager
def tutorial(folder: Path, transport: str) -> Iterator[Stack]:
    """Four pods, the service as the tutorial starts it, and the gateway."""
    with pods(*[f"127.0.1.{n}:0" for n in range(1, 5)]) as served:
        flags = cluster(folder, served.addresses)
        with serving(*flags, f"--transport={transport}") as epp, envoy(epp.port) as gateway:
            yield Stack(epp, gateway, served)


@pytest.fixture(scope="module", params=["ngh2", "grpcio"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with tutorial(tmp_path_factory.mktemp("cluster"), request.param) as stack:
        yield stack


def pod_of(epp: Epp, request_id: str) -> str:
    return str(epp.handled(request_id)["decision"]["address"])


def test_the_tutorials_own_command_gets_the_pods_very_bytes(running: Stack) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    env = {**os.environ, "GATEWAY_URL": f"http://localhost:{running.port}"}
    done = subprocess.run(["sh", "-c", CURL], env=env, capture_output=True, timeout=30, check=True)
    assert done.stdout == ANSWER
    assert b"< HTTP/1.1 200 OK" in done.stderr
    assert b"< x-went-into-resp-headers: true" in done.stderr
    assert running.epp.complaints() == []


def test_one_prompt_three_times_goes_to_one_pod_and_the_log_says_so(running: Stack) -> None:
    epp, seen = running.epp, []
    for turn in range(3):
        request_id = f"turn-{turn}"
        answer = post(running.port, BODY, {"x-user-id": "user123", "x-request-id": request_id})
        assert (answer.status, answer.body, answer.get("x-went-into-resp-headers")) == (200, ANSWER, "true")
        record = epp.handled(request_id)
        address = pod_of(epp, request_id)
        assert answer.get("x-inference-pod") == address
        name = NAMES[running.pods.addresses.index(address)]
        assert {
            "level": "info",
            "msg": "Request handled",
            "x-request-id": request_id,
            "model": MODEL,
            "resolvedTargetModel": MODEL,
            "criticality": "Critical",
            "targetModel": MODEL,
            "endpoint": ENDPOINT % (name, address.rpartition(":")[0]),
        }.items() <= record.items()
        seen.append(address)
    assert len(set(seen)) == 1
    scores = epp.handled("turn-2")["decision"]["profiles"][0]["picked"]["scores"]
    # The whole prompt is known there, and nobody waits anywhere: 1 and 0.5 by the scorers' formulas.
    assert scores["prefix-cache-scorer"] == {"raw": 1.0, "clamped": 1.0, "weight": 2.0, "weighted": 2.0}
    assert scores["load-aware-scorer"] == {"raw": 0.5, "clamped": 0.5, "weight": 1.0, "weighted": 0.5}


def test_other_prompts_use_the_other_pods(running: Stack) -> None:
    pods_used = {post(running.port, chat(f"{n} is a number " * 8)).get("x-inference-pod") for n in range(64)}
    assert pods_used == set(running.pods.addresses)


def test_headers_a_client_must_not_send_do_not_arrive(running: Stack) -> None:
    elsewhere = running.pods.addresses[0]
    spoofed = dict.fromkeys(CONTROL_HEADERS, elsewhere)
    for turn in range(8):
        answer = post(running.port, chat(f"spoof {turn}"), {**spoofed, "x-do": "echo", "x-request-id": f"spoof-{turn}"})
        arrived = [(name, value) for name, value in answer.json()["headers"] if name in CONTROL_HEADERS]
        assert arrived == [(DESTINATION_HEADER, pod_of(running.epp, f"spoof-{turn}"))]
        assert answer.get("x-inference-pod") == arrived[0][1]


def test_a_gateway_that_does_not_clean_headers_is_overruled(running: Stack) -> None:
    """The picker's own part: the destination is overwritten, addresses a worker would follow are removed."""

    def forget(document: dict[str, object]) -> None:
        del connection_manager(document)["early_header_mutation_extensions"]

    with envoy(running.epp.port, adapt=forget) as careless:
        spoofed = {DESTINATION_HEADER: "127.0.0.1:1", "x-prefiller-host-port": "127.0.0.1:1"}
        answer = post(careless.port, chat("spoof"), {**spoofed, "x-do": "echo", "x-request-id": "careless"})
        arrived = [(name, value) for name, value in answer.json()["headers"] if name in spoofed]
        assert arrived == [(DESTINATION_HEADER, pod_of(running.epp, "careless"))]


def test_the_pools_name_and_the_requests_are_on_the_metrics_page(running: Stack) -> None:
    before = running.epp.metrics()
    assert post(running.port, BODY).status == 200
    page = running.epp.settled()
    for name in ("llm_d_epp_request_total", "inference_objective_request_total", "inference_model_request_total"):
        assert page.sum(name, model_name=MODEL) == before.sum(name, model_name=MODEL) + 1
    for name, tokens in (("input", 24), ("output", 178)):
        family = f"inference_model_{name}_tokens_sum"
        assert page.sum(family, model_name=MODEL) == before.sum(family, model_name=MODEL) + tokens
    assert page.sum("inference_pool_ready_pods", name="qwen-instruct-inference-pool") == 4


def test_models_are_listed_through_the_gateway(running: Stack) -> None:
    assert get(running.port, "/v1/models").status == 200
