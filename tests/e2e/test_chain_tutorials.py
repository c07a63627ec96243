# SPDX-License-Identifier: Apache-2.0
"""Both tutorials in one gateway, their manifests and commands as they stand there: from the first answer to the 429,
and what a limit does not touch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chain import LLAMA, POOL, QWEN, TUTORIALS, Chain, chain, poem, until, within_one_hour
from tests.e2e.client import get, post

pytestmark = pytest.mark.envoy

CURLS = {
    QWEN: """curl -v -H "Content-Type: application/json" -H "x-user-id: user123" -d '{
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
""",
    LLAMA: """curl -v -H "Content-Type: application/json" -H "x-user-id: user123" -d '{
        "model": "llama3-1b",
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
     }'     localhost:8080/v1/chat/completions
""",
}


@pytest.fixture(scope="module")
def running() -> Iterator[Chain]:
    with chain("-f", *TUTORIALS) as up:
        yield up


def curl(running: Chain, model: str) -> tuple[str, dict[str, str], bytes]:
    """The tutorial's command: status line, headers as they came, body."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = CURLS[model].replace("localhost:8080", f"localhost:{running.port}")
    env = {**os.environ, "GATEWAY_URL": f"http://localhost:{running.port}"}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, timeout=30, check=True)
    lines = [line[2:] for line in done.stderr.decode().replace("\r", "").split("\n") if line.startswith("< ")]
    headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    return lines[0], headers, done.stdout


@pytest.mark.parametrize("model", [QWEN, LLAMA])
def test_the_command_again_and_again_until_the_429(running: Chain, model: str) -> None:
    within_one_hour()
    charged, answers = 0, 0
    while True:
        status, headers, body = curl(running, model)
        if status != "HTTP/1.1 200 OK":
            break
        usage = json.loads(body)["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        assert headers["x-ratelimit-limit"] == "1000, 1000;w=3600"
        assert headers["x-ratelimit-remaining"] == str(1000 - charged)
        charged, answers = charged + usage["total_tokens"], answers + 1
        assert answers < 50
    assert status == "HTTP/1.1 429 Too Many Requests", (headers, body, running.lines[-5:])
    # One more is let in as long as what was counted is not above the limit.
    assert charged > 1000 >= charged - usage["total_tokens"]
    date, request_id, reset = headers.pop("date"), headers.pop("x-request-id"), int(headers.pop("x-ratelimit-reset"))
    assert headers == {
        "x-envoy-ratelimited": "true",
        "x-ratelimit-limit": "1000, 1000;w=3600",
        "x-ratelimit-remaining": "0",
        "content-length": "0",
    }
    assert body == b""
    assert date
    assert request_id
    assert abs(reset - (3600 - time.time() % 3600)) < 60


def test_another_user_and_the_other_model_are_not_touched(running: Chain) -> None:
    within_one_hour()
    while running.ask(QWEN, "ann").status == 200:
        pass
    assert running.ask(QWEN, "ann").status == 429
    for model, user in ((QWEN, "bob"), (LLAMA, "ann")):
        answer = running.ask(model, user)
        assert (answer.status, answer.get("x-ratelimit-remaining")) == (200, "1000")
    # The limit is told apart by user: without one, Envoy Gateway does not limit, and says nothing of limits.
    anonymous = running.ask(QWEN, "")
    assert (anonymous.status, anonymous.get("x-ratelimit-limit")) == (200, "")


def test_streams_cost_the_same_and_do_not_show_what_was_not_asked_for(running: Chain) -> None:
    within_one_hour()
    for model in (QWEN, LLAMA):
        whole = running.ask(model, "whole").json()["usage"]["total_tokens"]
        hidden = running.ask(model, "stream", stream=True)
        shown = running.ask(model, "stream", stream=True, stream_options={"include_usage": True})
        assert hidden.complete
        assert hidden.body.endswith(b"data: [DONE]\n\n")
        assert b'"usage"' not in hidden.body
        assert b'"usage"' in shown.body
        assert running.ask(model, "stream").get("x-ratelimit-remaining") == str(1000 - 2 * whole)


def test_an_unknown_model_is_answered_as_envoy_ai_gateway_does(running: Chain) -> None:
    answer = running.ask("gpt-nowhere")
    assert answer.status == 404
    assert answer.body == (
        b"No matching route found. It is likely that the model specified your request is not configured in the Gateway."
    )


def test_what_is_no_request_for_a_model_is_refused_at_the_gate(running: Chain) -> None:
    assert get(running.port, "/nowhere").status == 404
    assert get(running.port, "/sim/state").status == 404
    assert post(running.port, b"{").status == 400
    assert post(running.port, b'{"messages": []}').status == 400
    listed = get(running.port, "/v1/models").json()
    assert sorted(model["id"] for model in listed["data"]) == sorted([QWEN, LLAMA])


def test_a_client_cannot_choose_model_pod_or_listener_by_headers(running: Chain) -> None:
    spoofed = {
        "x-ai-eg-model": LLAMA,
        "x-gateway-destination-endpoint": "127.0.0.1:1",
        "x-epp-listener": "80",
        "x-envoy-original-path": "/x",
        "x-user-id": "spoof",
    }
    answer = post(running.port, poem(QWEN), spoofed)
    assert answer.status == 200
    assert answer.json()["model"] == QWEN
    assert answer.get("x-inference-pod").startswith("qwen-instruct-kserve-")


def test_the_pool_goes_through_its_picker_and_the_backend_does_not(running: Chain) -> None:
    name = "inference_objective_request_total"
    before = running.page("endpoint picker").sum(name)
    pods = {running.ask(QWEN, f"u{turn}").get("x-inference-pod") for turn in range(3)}
    assert running.ask(LLAMA, "plain").get("x-inference-pod").startswith("envoy-ai-gateway-openai-kserve-")
    assert len(pods) == 1
    assert pods <= set(running.report["pools"][POOL])
    assert until(lambda: running.page("endpoint picker").sum(name) == before + 3)


def test_no_port_is_open_to_others(running: Chain) -> None:
    pids = {*running.children(), running.process.pid}
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                match = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
            except FileNotFoundError:
                continue
            if match:
                inodes.add(match[1])
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                listening.append(fields[1].rpartition(":")[0])
    assert len(listening) >= 12
    # 127.x.y.z, its bytes in the order of the machine.
    assert all(re.fullmatch(r"[0-9A-F]{6}7F", address) for address in listening), listening


SHORT = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec: {gatewayClassName: x, listeners: [{name: http, protocol: HTTP, port: 80}]}
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIGatewayRoute
metadata: {name: r}
spec:
  parentRefs: [{name: g, kind: Gateway, group: gateway.networking.k8s.io}]
  rules:
    - matches: [{headers: [{type: Exact, name: x-ai-eg-model, value: m}]}]
      backendRefs: [{name: b}]
  llmRequestCosts: [{metadataKey: llm_total_token, type: TotalToken}]
---
apiVersion: aigateway.envoyproxy.io/v1beta1
kind: AIServiceBackend
metadata: {name: b}
spec: {schema: {name: OpenAI}, backendRef: {name: s, kind: Service, group: "", port: 80}}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: s}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: p, annotations: {epp/absent-header: reject}}
spec:
  targetRefs: [{name: g, kind: Gateway, group: gateway.networking.k8s.io}]
  rateLimit:
    type: Global
    global:
      rules:
        - clientSelectors: [{headers: [{name: x-user-id, type: Distinct}]}]
          limit: {requests: 200, unit: UNIT}
          cost:
            request: {from: Number, number: 0}
            response: {from: Metadata, metadata: {namespace: io.envoy.ai_gateway, key: llm_total_token}}
"""


def test_after_the_window_it_works_again_and_nobody_goes_without_a_name(tmp_path: Path) -> None:
    manifest = tmp_path / "short.yaml"
    manifest.write_text(SHORT.replace("UNIT", "Second"))
    with chain("-f", manifest) as up:
        for _ in range(3):
            over = until(lambda: (answer := up.ask("m")).status == 429 and answer, 20.0)
            assert over.get("x-ratelimit-limit") == "200, 200;w=1"
            assert over.get("x-ratelimit-reset") in ("0", "1")
            fresh = until(lambda: (answer := up.ask("m")).status == 200 and answer, 5.0)
            assert int(fresh.get("x-ratelimit-remaining")) <= 200
        assert up.ask("m", "").status == 400
