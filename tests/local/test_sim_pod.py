# SPDX-License-Identifier: Apache-2.0
"""The simulated pod over HTTP: answers in vLLM's shape, streams, errors, cache, clients that go away."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from epp.local.sim.command import DEFAULT_MODEL, main
from epp.local.sim.engine import EngineConfig
from epp.local.sim.server import Pod, PodConfig, make_server

CHAT: dict[str, Any] = {
    "model": DEFAULT_MODEL,
    "messages": [
        {"role": "system", "content": "You are a poet."},
        {"role": "user", "content": "Write a poem about clouds."},
    ],
}
FAST = EngineConfig(speed=1000.0)


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Pod, str, aiohttp.ClientSession]]:
    config = PodConfig(**{"name": "pod-a", "models": (DEFAULT_MODEL,), "engine": FAST, **options})
    pod = Pod(config)
    server = await asyncio.get_running_loop().create_server(make_server(pod), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with aiohttp.ClientSession() as session:
        yield pod, url, session
    server.close()
    await server.wait_closed()
    pod.driver.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0)


async def post(session: aiohttp.ClientSession, url: str, body: Any, path: str = "/v1/chat/completions") -> Any:
    data = io.BytesIO(body if isinstance(body, bytes) else orjson.dumps(body))
    async with session.post(url + path, data=data) as response:
        assert response.headers["x-inference-pod"] == "pod-a"
        return response.status, orjson.loads(await response.read())


async def events(session: aiohttp.ClientSession, url: str, body: Any, path: str = "/v1/chat/completions") -> list[Any]:
    async with session.post(url + path, json=body) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        blocks = (await response.read()).split(b"\n\n")
    assert blocks[-2:] == [b"data: [DONE]", b""]
    return [orjson.loads(block.removeprefix(b"data: ")) for block in blocks[:-2]]


async def test_headers_as_long_as_a_gateway_lets_pass_are_taken() -> None:
    async with (
        serving() as (_, url, session),
        session.post(url + "/v1/chat/completions", json=CHAT, headers={"x-user-id": "u" * 60_000}) as response,
    ):
        assert response.status == 200


async def test_a_chat_answer_has_the_fields_of_a_vllm_answer() -> None:
    async with serving() as (_, url, session):
        status, body = await post(session, url, CHAT)
    assert status == 200
    assert body["object"] == "chat.completion"
    assert body["id"].startswith("chatcmpl-")
    assert body["model"] == DEFAULT_MODEL
    for name in ("kv_transfer_params", "prompt_logprobs"):
        assert body[name] is None
    [choice] = body["choices"]
    assert (choice["finish_reason"], choice["stop_reason"], choice["logprobs"]) == ("stop", None, None)
    message = choice["message"]
    assert (message["role"], message["reasoning_content"], message["tool_calls"]) == ("assistant", None, [])
    usage = body["usage"]
    assert usage["prompt_tokens_details"] is None
    assert usage["completion_tokens"] == -(-len(message["content"]) // 4)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_the_same_seed_says_the_same_and_another_does_not() -> None:
    texts = []
    for seed in (1, 1, 2):
        async with serving(seed=seed) as (_, url, session):
            texts.append((await post(session, url, CHAT))[1]["choices"][0]["message"]["content"])
    assert texts[0] == texts[1] != texts[2]


async def test_a_repeated_prompt_is_cached_and_said_so() -> None:
    async with serving() as (_, url, session):
        first = (await post(session, url, CHAT))[1]["usage"]
        again = (await post(session, url, CHAT))[1]["usage"]
        salted = (await post(session, url, {**CHAT, "cache_salt": "tenant"}))[1]["usage"]
    assert first["prompt_tokens_details"] is None
    assert again["prompt_tokens_details"] == {"cached_tokens": 16}
    assert salted["prompt_tokens_details"] is None


async def test_the_next_turn_of_a_conversation_finds_the_answer_cached() -> None:
    async with serving() as (_, url, session):
        first = (await post(session, url, CHAT))[1]
        turns = [*CHAT["messages"], first["choices"][0]["message"], {"role": "user", "content": "Another one, please."}]
        second = (await post(session, url, {**CHAT, "messages": turns}))[1]["usage"]
    told = first["usage"]["total_tokens"]
    assert told - 32 <= second["prompt_tokens_details"]["cached_tokens"] <= told


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_the_token_limit_is_kept(name: str) -> None:
    async with serving() as (_, url, session):
        _, body = await post(session, url, {**CHAT, name: 3})
    assert body["usage"]["completion_tokens"] == 3
    assert body["choices"][0]["finish_reason"] == "length"
    assert len(body["choices"][0]["message"]["content"]) == 12


async def test_ignore_eos_gives_exactly_the_limit() -> None:
    async with serving() as (_, url, session):
        _, body = await post(session, url, {**CHAT, "max_tokens": 500, "ignore_eos": True})
    assert body["usage"]["completion_tokens"] == 500


async def test_a_stream_says_what_the_whole_answer_says() -> None:
    async with serving() as (_, url, session):
        whole = (await post(session, url, CHAT))[1]
        chunks = await events(session, url, {**CHAT, "stream": True})
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [c["choices"][0]["finish_reason"] for c in chunks[-2:]] == [None, "stop"]
    assert len(chunks) == 1 + whole["usage"]["completion_tokens"]
    assert not any("usage" in chunk for chunk in chunks)


async def test_stream_options_add_usage() -> None:
    body = {**CHAT, "stream": True, "max_tokens": 3}
    async with serving() as (_, url, session):
        at_end = await events(session, url, {**body, "stream_options": {"include_usage": True}})
        options = {"include_usage": True, "continuous_usage_stats": True}
        always = await events(session, url, {**body, "stream_options": options})
    assert at_end[-1]["choices"] == []
    assert at_end[-1]["usage"]["completion_tokens"] == 3
    assert not any("usage" in chunk for chunk in at_end[:-1])
    assert [chunk["usage"]["completion_tokens"] for chunk in always] == [0, 1, 2, 3, 3]
    assert always[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 16}


@pytest.mark.parametrize(
    ("prompt", "n", "choices", "prompt_tokens"),
    [("word " * 8, 1, 1, 10), (["a", "b"], 2, 4, 2), ([1, 2, 3], 1, 1, 3), ([[1], [2, 3]], 1, 2, 3)],
)
async def test_completions_take_every_form_of_prompt(prompt: Any, n: int, choices: int, prompt_tokens: int) -> None:
    async with serving() as (_, url, session):
        _, body = await post(session, url, {"model": DEFAULT_MODEL, "prompt": prompt, "n": n}, "/v1/completions")
    assert body["object"] == "text_completion"
    assert [choice["index"] for choice in body["choices"]] == list(range(choices))
    assert all(len(choice["text"]) == 64 for choice in body["choices"])
    assert body["usage"]["prompt_tokens"] == prompt_tokens
    assert body["usage"]["completion_tokens"] == 16 * choices


async def test_several_choices_stream_side_by_side() -> None:
    async with serving() as (_, url, session):
        body = {"model": DEFAULT_MODEL, "prompt": ["a", "b"], "stream": True, "max_tokens": 5}
        chunks = await events(session, url, body, "/v1/completions")
    assert [chunk["choices"][0]["index"] for chunk in chunks].count(1) == 5
    assert len(chunks) == 10


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/v1/chat/completions", b"{", 400, "JSON"),
        ("/v1/chat/completions", b"[]", 400, "object"),
        ("/v1/chat/completions", {"model": DEFAULT_MODEL}, 400, "messages"),
        ("/v1/chat/completions", {**CHAT, "messages": [1]}, 400, "role"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 0}, 400, "max_tokens"),
        ("/v1/chat/completions", {**CHAT, "max_tokens": 40_000}, 400, "maximum context length"),
        ("/v1/chat/completions", {**CHAT, "n": 65}, 400, "n must be"),
        ("/v1/chat/completions", {**CHAT, "stream_options": {"include_usage": True}}, 400, "stream_options"),
        ("/v1/chat/completions", {**CHAT, "model": "other"}, 404, "`other` does not exist"),
        ("/v1/completions", {"model": DEFAULT_MODEL}, 400, "prompt"),
        ("/v1/completions", {"model": DEFAULT_MODEL, "prompt": ""}, 400, "empty"),
        ("/v1/completions", {"model": DEFAULT_MODEL, "prompt": "w" * 140_000}, 400, "maximum context length"),
    ],
)
async def test_bad_requests_get_an_openai_error(path: str, body: Any, status: int, word: str) -> None:
    async with serving() as (_, url, session):
        got, answer = await post(session, url, body, path)
    assert got == status == answer["error"]["code"]
    assert word in answer["error"]["message"]


async def test_a_prompt_over_a_mebibyte_is_read() -> None:
    async with serving(max_model_len=600_000, engine=EngineConfig(num_blocks=40_000, speed=1e6)) as (_, url, session):
        body = {"model": DEFAULT_MODEL, "prompt": "w" * 2_000_000}
        status, answer = await post(session, url, body, "/v1/completions")
    assert status == 200
    assert answer["usage"]["prompt_tokens"] == 500_000


async def test_the_other_paths() -> None:
    async with serving(loras=("adapter",)) as (_, url, session):
        async with session.get(url + "/health") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with session.get(url + "/v1/models") as response:
            assert [card["id"] for card in (await response.json())["data"]] == [DEFAULT_MODEL, "adapter"]
        async with session.get(url + "/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain")
            assert response.headers["x-inference-pod"] == "pod-a"
            assert b"vllm:num_requests_running{" in await response.read()
        async with session.get(url + "/nothing") as response:
            assert response.status == 404
        async with session.get(url + "/v1/completions") as response:
            assert response.status == 405


async def test_a_client_that_goes_away_frees_its_slot() -> None:
    slow = EngineConfig(max_num_seqs=1, decode_step_s=5.0, prefill_tokens_per_s=1e9)
    async with serving(engine=slow) as (pod, url, session):
        gone = asyncio.ensure_future(post(session, url, CHAT))
        await until(lambda: bool(pod.engine.running))
        gone.cancel()
        await until(lambda: not pod.engine.running)
        assert pod.engine.blocks.held == 0
        async with session.get(url + "/metrics") as response:
            page = await response.text()
    assert f'vllm:request_success_total{{engine="0",finished_reason="abort",model_name="{DEFAULT_MODEL}"}} 1.0' in page


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--max-model-len", "99", "--num-gpu-blocks", "2"], "the cache holds 32 tokens"),
        (["--port", "70000"], "--port 70000"),
    ],
)
def test_wrong_flags_are_one_clear_line(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_taken_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
