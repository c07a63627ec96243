# SPDX-License-Identifier: Apache-2.0
"""Not one token lost or counted twice: clients, pods, limits and metrics agree. And what requests cost whose client
goes away."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.e2e.accounting import CHAT, KINDS, LIMIT, MESSAGES, RESPONSES, account, body_of, kind_and_model, manifests
from tests.e2e.chain import LLAMA, QWEN, TUTORIALS, Chain, chain, poem, until, within_one_hour
from tests.e2e.client import JSON, Answer, head, post, receive

pytestmark = pytest.mark.envoy


def test_every_token_of_every_user_is_charged_once(tmp_path: Path) -> None:
    with chain("-f", *manifests(tmp_path), speed=100.0) as up:
        result = asyncio.run(account(up, users=6, connections=4, requests=2 * len(KINDS)))
    assert result.failed == []
    assert result.differences() == []
    assert result.requests >= 6 * 4 * 2 * len(KINDS)
    assert {kind_and_model(0, turn) for turn in range(2 * len(KINDS))} == set(product(range(len(KINDS)), (QWEN, LLAMA)))
    assert len(result.charged) == 12
    assert all(result.pods[model] > result.cached[model] > 5000 for model in (QWEN, LLAMA))


def test_odd_requests_cost_what_their_pods_counted(tmp_path: Path) -> None:
    """Every form in which a client might get tokens for nothing, and answers that cost nothing indeed."""
    long = {"messages": [{"role": "user", "content": "x" * 50_000}], "max_tokens": 2}
    with chain("-f", *manifests(tmp_path)) as up:
        for model in (QWEN, LLAMA):
            requests: dict[str, tuple[bytes, dict[str, str]]] = {
                "not-asked": (poem(model, stream=True, stream_options={"include_usage": False}), {}),
                "null": (poem(model, stream=True, stream_options=None), {}),
                "at-each-token": (
                    poem(model, stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
                    {},
                ),
                "packed": (gzip.compress(poem(model)), {"content-encoding": "gzip"}),
                "packed-stream": (gzip.compress(poem(model, stream=True)), {"content-encoding": "gzip"}),
                "model-last": (json.dumps({**long, "stream": True, "model": model}).encode(), {}),
                "model-twice": (poem(model).replace(b"{", b'{"model": "another", ', 1), {}),
                "choices": (poem(model, n=3, stream=True, max_tokens=5), {}),
                "refused": (poem(model, n=1000), {}),
                "accepts-packed": (poem(model), {"accept-encoding": "gzip"}),
            }
            charged = 0
            for user, (body, headers) in requests.items():
                answer = post(up.port, body, {"x-user-id": user, **headers})
                assert answer.status == (400 if user == "refused" else 200), user
                assert answer.complete
            before = sum_of(up.pods(), model)
            for user in requests:
                paid = until(lambda user=user, model=model: spent(up, model, user), 1.0) if user != "refused" else 0  # type: ignore[misc]
                assert (paid > 0) == (user != "refused"), user
                charged += paid
            assert charged == before


def test_odd_messages_and_responses_cost_what_their_pods_counted(tmp_path: Path) -> None:
    """Usage that a client has repeated is not the answer's, packed bodies are counted, and refusals cost nothing."""
    false = {"parameters": {"usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}}
    with chain("-f", *manifests(tmp_path)) as up:
        for model in (QWEN, LLAMA):
            for path in (MESSAGES, RESPONSES):
                charged = 0
                whole = body_of(path, model, "Write a poem. " * 30, {"max_tokens": 9, "max_output_tokens": 9})
                streamed = {**whole, "stream": True}
                repeated = {"tools": [{"type": "function", "name": "usage", **false}]}
                for body, packed, status in (
                    ({**whole, **repeated}, False, 200),
                    ({**streamed, **repeated}, False, 200),
                    (streamed, True, 200),
                    ({**streamed, "max_tokens": 0, "max_output_tokens": 0}, False, 400),
                ):
                    before, data = sum_of(up.pods(), model), json.dumps(body).encode()
                    encoding = {"content-encoding": "gzip"} if packed else {}
                    answer = post(
                        up.port, gzip.compress(data) if packed else data, {"x-user-id": path, **encoding}, path
                    )
                    assert (answer.status, answer.complete) == (status, True), body
                    cost = sum_of(up.pods(), model) - before
                    assert (cost > 100) == (status == 200)
                    charged += cost
                    until(lambda model=model, path=path, wanted=charged: spent(up, model, path) == wanted)  # type: ignore[misc]


def spent(up: Chain, model: str, user: str) -> int:
    """What a user was charged, asked without being charged: a request that the pod refuses."""
    return LIMIT - int(up.ask(model, user, n=1000).get("x-ratelimit-remaining"))


def sum_of(pods: dict[str, dict[str, dict[str, dict[str, int]]]], model: str) -> int:
    """Tokens that pods counted for a model."""
    books = [state["models"][model] for state in pods.values() if model in state["models"]]
    return sum(book["prompt_tokens"] + book["output_tokens"] for book in books)


def test_an_answer_that_its_client_does_not_wait_for_costs_nothing(tmp_path: Path) -> None:
    """As with Envoy AI Gateway: the end of an answer tells its tokens, and there is none."""
    with chain("-f", *manifests(tmp_path), speed=0.25) as up:
        for model in (QWEN, LLAMA):
            for number, (path, stream) in enumerate(product((CHAT, MESSAGES, RESPONSES), (True, False))):
                options = {"max_tokens": 400, "max_output_tokens": 400, "ignore_eos": True, "stream": stream}
                body = json.dumps(body_of(path, model, "Write a poem.", options)).encode()
                fields = {**JSON, "x-user-id": "leaver", "content-length": str(len(body))}
                with socket.create_connection(("127.0.0.1", up.port)) as sock:
                    sock.sendall(head("POST", path, fields) + body)
                    if stream:
                        some: Answer = receive(sock, until=lambda answer: answer.body.count(b"data:") > 6)
                        assert some.status == 200
                    else:
                        until(lambda model=model: running(up.pods(), model))  # type: ignore[misc]
                wanted = number + 1
                until(lambda model=model, wanted=wanted: aborted(up.pods(), model) == wanted)  # type: ignore[misc]
            answer = up.ask(model, "leaver", max_tokens=1)
            assert (answer.status, answer.get("x-ratelimit-remaining")) == (200, str(LIMIT))


def aborted(pods: dict[str, dict[str, dict[str, dict[str, int]]]], model: str) -> int:
    """Requests for a model whose client went away."""
    return sum(state["models"][model]["aborted"] for state in pods.values() if model in state["models"])


def running(pods: dict[str, dict[str, dict[str, int]]], model: str) -> bool:
    """Some pod is at work."""
    return any(state["engine"]["running"] for state in pods.values() if model in state["models"])


@pytest.fixture
def redis_port(tmp_path: Path) -> Iterator[int]:
    """Debian's Redis, with a password."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    argv = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "sesame"]
    server = subprocess.Popen([*argv, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)

    def listening() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return False
        return True

    try:
        until(listening)
        yield port
    finally:
        server.kill()
        server.wait(10)


def test_with_redis_counters_outlive_the_service_and_the_password_is_nowhere(redis_port: int) -> None:
    within_one_hour()
    with chain("-f", *TUTORIALS, env={"REDIS_URL": f"redis://:sesame@127.0.0.1:{redis_port}"}) as up:
        while up.ask(QWEN).status == 200:
            pass
        since = len(up.lines)
        os.kill(up.child("epp ratelimit"), signal.SIGKILL)
        up.wait(lambda line: "the rate limit service is back" in line, since=since)
        assert "memory" not in "\n".join(up.lines[since:])
        over = until(lambda: (answer := up.ask(QWEN)).status == 429 and answer)
        assert over.get("x-ratelimit-remaining") == "0"
        assert up.ask(LLAMA).status == 200
        assert "sesame" not in "\n".join([*up.lines, *up.children().values(), json.dumps(up.report)])


def test_sliding_windows_limit_too() -> None:
    within_one_hour()
    with chain("-f", *TUTORIALS, "--window", "sliding") as up:
        answers = [up.ask(QWEN) for _ in range(14)]
        statuses = [answer.status for answer in answers]
        assert statuses == sorted(statuses)
        assert set(statuses) == {200, 429}
