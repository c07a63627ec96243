# SPDX-License-Identifier: Apache-2.0
"""The gateway process on real Envoy, before simulated pods: routing by the model in the body, and exact costs."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import JSON, Answer, ask, chunked, get, head, post
from tests.e2e.stack import PATIENCE_S
from tests.gateway.chain import CONFIG, LIMIT_BYTES, Chain, GatewayPart, books, chain, gateway

pytestmark = pytest.mark.envoy

NO_ROUTE = b"No matching route found."


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chain, GatewayPart]]:
    folder = tmp_path_factory.mktemp("gateway")
    config = folder / "gateway.json"
    config.write_text(json.dumps(CONFIG))
    with gateway(config) as process, chain(folder, process.port) as started:
        yield started, process


@pytest.fixture
def envoy(running: tuple[Chain, GatewayPart]) -> Chain:
    return running[0]


def chat(model: str, content: str = "hello", **more: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], **more}).encode()


def names(port: int) -> dict[str, int]:
    """How many requests a pod has begun and answered, and its tokens."""
    told = books(port)
    return {key: told[key] for key in ("begun", "answered", "prompt_tokens", "output_tokens")}


def test_the_body_decides_the_route(envoy: Chain) -> None:
    for model, port in (("pooled", envoy.pooled_port), ("plain", envoy.plain_port)):
        before = names(port)["answered"]
        # A client cannot steer by the header.
        for steer in ("plain", "pooled", "nobody"):
            answer = post(envoy.port, chat(model), {"x-ai-eg-model": steer, "x-request-id": f"steer-{model}-{steer}"})
            assert (answer.status, answer.json()["model"]) == (200, model)
            assert envoy.entry(f"steer-{model}-{steer}")["route"] == model
        assert names(port)["answered"] == before + 3


def test_an_unknown_model_is_envoys_404(envoy: Chain) -> None:
    for model in ("nobody", "modèle", "a b"):
        answer = post(envoy.port, chat(model), {"x-ai-eg-model": "plain"})
        assert (answer.status, answer.body) == (404, NO_ROUTE)


@pytest.mark.parametrize(
    ("body", "path", "status", "code"),
    [
        (b"{", "/v1/chat/completions", 400, "invalid_json"),
        (b"{}", "/v1/chat/completions", 400, "model_missing"),
        (b"", "/v1/chat/completions", 400, "body_missing"),
        (chat("plain"), "/v1/nothing", 404, "path_unknown"),
        (b'{"model": "a\\nb"}', "/v1/completions", 400, "model_invalid"),
    ],
)
def test_refusals(envoy: Chain, body: bytes, path: str, status: int, code: str) -> None:
    answer = post(envoy.port, body, path=path)
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert answer.get("content-type") == "application/json"


def test_the_list_of_models_is_answered_without_any_pod(envoy: Chain) -> None:
    answer = get(envoy.port, "/v1/models")
    assert [model["id"] for model in answer.json()["data"]] == ["pooled", "plain", "hidden"]
    assert get(envoy.port, "/v1/models/plain").json()["id"] == "plain"
    assert get(envoy.port, "/v1/models/nobody").status == 404
    assert get(envoy.port, "/v1/chat/completions").status == 405


def costs(envoy: Chain, request_id: str) -> tuple[int, int, int]:
    entry = envoy.entry(request_id)
    return tuple(int(entry[f"llm_{name}_token"] or 0) for name in ("input", "output", "total"))  # type: ignore[return-value]


def test_costs_are_the_pods_own_counts(envoy: Chain) -> None:
    before = names(envoy.plain_port)
    total = [0, 0, 0]
    asked = {"stream_options": {"include_usage": True}}
    for number, (model, more) in enumerate(
        [("plain", {}), ("plain", {"stream": True, **asked}), ("hidden", {}), ("hidden", {"stream": True})] * 3
    ):
        body = chat(model, f"number {number} " * (number + 1), **more)
        answer = post(envoy.port, body, {"x-request-id": f"cost-{number}", "accept-encoding": "gzip"})
        assert (answer.status, answer.complete) == (200, True)
        total = [a + b for a, b in zip(total, costs(envoy, f"cost-{number}"), strict=True)]
    after = names(envoy.plain_port)
    prompt, output = (after[key] - before[key] for key in ("prompt_tokens", "output_tokens"))
    assert total == [prompt, output, prompt + output]
    assert prompt > 0
    assert output > 0


def test_not_one_token_is_lost_or_counted_twice(envoy: Chain) -> None:
    before = names(envoy.plain_port)
    kinds = [("plain", {}), ("hidden", {"stream": True}), ("hidden", {}), ("pooled", {"stream": True})]

    def one(number: int) -> None:
        model, more = kinds[number % len(kinds)]
        if number % 10 == 9:
            # A client that leaves with its request half sent: nobody is asked, nothing is booked.
            fields = {**JSON, "content-length": "500", "x-request-id": f"many-{number}"}
            with socket.create_connection(("127.0.0.1", envoy.port), timeout=PATIENCE_S) as client:
                client.sendall(head("POST", "/v1/chat/completions", fields) + b'{"model": "plain"')
            return
        answer = post(envoy.port, chat(model, f"{number} " * 9, **more), {"x-request-id": f"many-{number}"})
        assert (answer.status, answer.complete) == (200, True)

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(one, range(300)))
    after = names(envoy.plain_port)
    booked = [costs(envoy, f"many-{number}") for number in range(300)]
    for place, key in enumerate(("prompt_tokens", "output_tokens")):
        assert sum(one[place] for one in booked) == after[key] - before[key]
    assert all(booked[number] == (0, 0, 0) for number in range(9, 300, 10))


def test_clients_that_leave_at_the_last_event_are_charged(envoy: Chain) -> None:
    before = names(envoy.plain_port)
    body = chat("hidden", stream=True)
    for number in range(100):
        fields = {**JSON, "content-length": str(len(body)), "x-request-id": f"done-{number}"}
        with socket.create_connection(("127.0.0.1", envoy.port), timeout=PATIENCE_S) as client:
            client.sendall(head("POST", "/v1/chat/completions", fields) + body)
            seen = b""
            while b"data: [DONE]" not in seen:
                piece = client.recv(4096)
                assert piece
                seen += piece
    booked = [costs(envoy, f"done-{number}") for number in range(100)]
    after = names(envoy.plain_port)
    assert all(total for _, _, total in booked)
    for place, key in enumerate(("prompt_tokens", "output_tokens")):
        assert sum(one[place] for one in booked) == after[key] - before[key]


def events(answer: Answer) -> list[dict[str, Any]]:
    found = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    assert found[-1] == "[DONE]"
    return [json.loads(one) for one in found[:-1]]


def test_what_was_injected_is_hidden_from_the_client(envoy: Chain) -> None:
    answer = post(envoy.port, chat("hidden", stream=True), {"x-request-id": "hidden-1"})
    assert [event for event in events(answer) if "usage" in event or not event["choices"]] == []
    assert costs(envoy, "hidden-1")[2] > 0
    told = post(envoy.port, chat("hidden", stream=True, stream_options={"include_usage": True}))
    assert events(told)[-1]["usage"]["total_tokens"] > 0


def test_without_injection_a_stream_that_is_not_asked_costs_nothing(envoy: Chain) -> None:
    answer = post(envoy.port, chat("plain", stream=True), {"x-request-id": "silent-1"})
    assert answer.status == 200
    assert costs(envoy, "silent-1") == (0, 0, 0)


def test_a_pools_costs_are_not_written_here(envoy: Chain) -> None:
    assert post(envoy.port, chat("pooled"), {"x-request-id": "pooled-1"}).status == 200
    assert costs(envoy, "pooled-1") == (0, 0, 0)


def test_errors_of_the_pod_cost_nothing(envoy: Chain) -> None:
    answer = post(envoy.port, b'{"model": "plain"}', {"x-request-id": "error-1"})
    assert 400 <= answer.status < 500
    assert costs(envoy, "error-1") == (0, 0, 0)


@pytest.mark.parametrize("model", ["plain", "pooled"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_of_5_megabytes(envoy: Chain, model: str, in_chunks: bool) -> None:
    body = chat(model, "word " * 1_000_000)
    if in_chunks:
        request = head("POST", "/v1/chat/completions", {**JSON, "transfer-encoding": "chunked"})
        answer = ask(envoy.port, request + chunked([body[:100], body[100:]], {"x-trailer": "1"}))
    else:
        answer = post(envoy.port, body)
    assert answer.status == 200
    assert answer.json()["usage"]["prompt_tokens"] > 900_000


def test_a_body_over_the_limit(envoy: Chain) -> None:
    answer = post(envoy.port, chat("plain", "x" * LIMIT_BYTES))
    assert (answer.status, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_metrics(running: tuple[Chain, GatewayPart]) -> None:
    envoy, process = running
    post(envoy.port, chat("plain"), {"x-user-id": "alice", "x-request-id": "metered"})
    prompt, output, _ = costs(envoy, "metered")
    page = process.page()
    assert f'epp_llm_tokens_total{{model="plain",tenant="alice",type="input"}} {prompt}' in page
    assert f'epp_llm_tokens_total{{model="plain",tenant="alice",type="output"}} {output}' in page
    assert 'epp_gateway_requests_total{model="plain",outcome="complete"}' in page


def test_killed_and_started_again(tmp_path: Path) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps(CONFIG))
    with contextlib.ExitStack() as parts:
        first = parts.enter_context(gateway(config))
        envoy = parts.enter_context(chain(tmp_path, first.port))
        assert post(envoy.port, chat("plain")).status == 200
        first.signal(signal.SIGKILL)
        first.ended()
        assert post(envoy.port, chat("plain")).status >= 500
        parts.enter_context(gateway(config, first.port))
        deadline_s = time.monotonic() + PATIENCE_S
        while post(envoy.port, chat("plain")).status != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert post(envoy.port, chat("hidden", stream=True), {"x-request-id": "again"}).status == 200
        assert costs(envoy, "again")[2] > 0


def test_told_to_stop_it_finishes_what_is_open(tmp_path: Path) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps(CONFIG))
    body = chat("plain")
    with gateway(config) as process, chain(tmp_path, process.port) as envoy:
        assert post(envoy.port, body).status == 200
        with socket.create_connection(("127.0.0.1", envoy.port), timeout=PATIENCE_S) as client:
            fields = {**JSON, "content-length": str(len(body)), "x-request-id": "last", "connection": "close"}
            client.sendall(head("POST", "/v1/chat/completions", fields) + body[:5])
            deadline_s = time.monotonic() + PATIENCE_S
            while "epp_gateway_streams_open 1" not in process.page():
                assert time.monotonic() < deadline_s
                time.sleep(0.02)
            process.signal(signal.SIGTERM)
            process.wait(lambda line: "stopping" in line)
            client.sendall(body[5:])
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200")
        assert costs(envoy, "last")[2] > 0
        assert process.ended() == 0


def test_a_changed_configuration_is_taken_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps(CONFIG))
    with gateway(config) as process, chain(tmp_path, process.port) as envoy:
        config.write_text('{"listeners": 5}')
        process.wait(lambda line: "the changed one is wrong" in line)
        assert len(get(envoy.port, "/v1/models").json()["data"]) == 3
        config.write_text(json.dumps({"listeners": {"80": {"models": {"only": {"target": "pool"}}}}}))
        process.wait(lambda line: "changed and is in use" in line)
        assert [model["id"] for model in get(envoy.port, "/v1/models").json()["data"]] == ["only"]
