# SPDX-License-Identifier: Apache-2.0
"""Anthropic's messages and OpenAI's responses of a simulated pod: vLLM's shapes, exact counts, faults, errors; and what
the reader of usage makes of them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

from epp.contract.requests import Usage
from epp.local.sim.faults import Error, Reset, Stall
from epp.local.sim.openai import chat_prompt
from epp.local.sim.text import count_tokens
from epp.plugins.costs.rules import tokens_of
from epp.requests.usage import UsageReader
from tests.local.test_sim_pod import CHAT, DEFAULT_MODEL, post, serving, until

MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
TEXT = "Write a poem about clouds. " * 20
ASKS: dict[str, dict[str, Any]] = {
    MESSAGES: {"model": DEFAULT_MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": TEXT}]},
    RESPONSES: {"model": DEFAULT_MODEL, "max_output_tokens": 8, "input": TEXT},
}
PROMPT_TOKENS = count_tokens(chat_prompt([{"role": "user", "content": TEXT}], None))
both = pytest.mark.parametrize("path", ASKS)


async def raw(session: aiohttp.ClientSession, url: str, body: Any, path: str) -> bytes:
    async with session.post(url + path, json=body) as response:
        assert response.status == 200
        return await response.read()


def told(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each is named as its type says."""
    found = []
    for event in data.split(b"\n\n")[:-1]:
        name, line = event.split(b"\n")
        found.append(orjson.loads(line.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    return found


def read(data: bytes) -> Usage | None:
    """Read in small pieces."""
    reader = UsageReader()
    for at in range(0, len(data), 7):
        reader.feed(data[at : at + 7])
    return reader.result()


async def test_a_message_has_the_fields_of_vllm() -> None:
    async with serving() as (_, url, session):
        status, body = await post(session, url, ASKS[MESSAGES], MESSAGES)
    assert status == 200
    text = body["content"][0]["text"]
    assert count_tokens(text.encode()) == 8
    assert body.pop("id").startswith("chatcmpl-")
    assert body == {
        "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}], "model": DEFAULT_MODEL,
        "stop_reason": "max_tokens", "usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 8},
    }  # fmt: skip


async def test_a_response_has_the_fields_of_vllm() -> None:
    ask = {**ASKS[RESPONSES], "instructions": "Be brief.", "metadata": {"a": "b"}}
    async with serving() as (_, url, session):
        status, body = await post(session, url, ask, RESPONSES)
        long = (await post(session, url, {**ask, "max_output_tokens": 400}, RESPONSES))[1]
    assert (status, body["object"], body["model"]) == (200, "response", DEFAULT_MODEL)
    assert (body["instructions"], body["metadata"], body["tools"]) == ("Be brief.", {"a": "b"}, [])
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert (long["status"], long["incomplete_details"]) == ("completed", None)
    assert (body["output"][0]["type"], body["output"][0]["role"]) == ("message", "assistant")
    assert body["output"][0]["content"][0]["type"] == "output_text"
    usage = body["usage"]
    assert usage["output_tokens"] == count_tokens(body["output"][0]["content"][0]["text"].encode()) == 8
    assert usage["total_tokens"] == usage["input_tokens"] + 8
    assert (usage["input_tokens_details"]["cached_tokens"], usage["output_tokens_details"]["reasoning_tokens"]) == (
        0,
        0,
    )
    assert long["usage"]["input_tokens_details"]["cached_tokens"] > 0


async def test_a_streamed_message_has_the_events_of_vllm() -> None:
    async with serving() as (_, url, session):
        whole = (await post(session, url, ASKS[MESSAGES], MESSAGES))[1]
        events = told(await raw(session, url, {**ASKS[MESSAGES], "stream": True}, MESSAGES))
    kinds = [event["type"] for event in events]
    assert kinds == [
        "message_start", "content_block_start", *["content_block_delta"] * 8, "content_block_stop", "message_delta",
        "message_stop",
    ]  # fmt: skip
    assert events[0]["message"]["usage"] == {"input_tokens": PROMPT_TOKENS, "output_tokens": 0}
    assert "".join(event["delta"]["text"] for event in events[2:10]) == whole["content"][0]["text"]
    assert events[-2]["delta"] == {"stop_reason": "max_tokens"}
    usage = events[-2]["usage"]
    assert usage["cache_read_input_tokens"] > 0
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == PROMPT_TOKENS
    assert (usage["cache_creation_input_tokens"], usage["output_tokens"]) == (0, 8)


async def test_a_streamed_response_has_the_events_of_vllm() -> None:
    async with serving() as (_, url, session):
        whole = (await post(session, url, ASKS[RESPONSES], RESPONSES))[1]
        events = told(await raw(session, url, {**ASKS[RESPONSES], "stream": True}, RESPONSES))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created", "in_progress", "output_item.added", "content_part.added", *["output_text.delta"] * 8,
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[0]["response"]["usage"], events[0]["response"]["status"]) == (None, "in_progress")
    text = "".join(event["delta"] for event in events[4:12])
    last = events[-1]["response"]
    assert text == events[12]["text"] == last["output"][0]["content"][0]["text"]
    assert text == whole["output"][0]["content"][0]["text"]
    assert (last["status"], last["usage"]["output_tokens"]) == ("incomplete", 8)
    assert last["usage"]["input_tokens_details"]["cached_tokens"] > 0


@both
@pytest.mark.parametrize("stream", [False, True])
async def test_the_reader_of_usage_finds_what_the_pod_booked(path: str, stream: bool) -> None:
    """Also where the cache counts, which the two tell differently."""
    async with serving() as (pod, url, session):
        for _ in range(2):
            before = pod.accounts.by_model()[DEFAULT_MODEL].told()
            tokens = tokens_of(read(await raw(session, url, {**ASKS[path], "stream": stream}, path)) or Usage())
            assert tokens is not None
            await until(lambda: pod.accounts.total().open == 0)
            after = pod.accounts.by_model()[DEFAULT_MODEL].told()
            booked = {name: after[name] - count for name, count in before.items()}
            assert (tokens.input, tokens.output, tokens.cached_input) == (
                booked["prompt_tokens"], booked["output_tokens"], booked["cached_tokens"],
            )  # fmt: skip
            assert tokens.total == tokens.input + tokens.output == PROMPT_TOKENS + 8
        assert tokens.cached_input > 0


async def test_one_conversation_is_the_same_prompt_in_every_api() -> None:
    """So that they share the cache."""
    system, user = (message["content"] for message in CHAT["messages"])
    messages = {"model": DEFAULT_MODEL, "max_tokens": 2, "system": system, "messages": CHAT["messages"][1:]}
    blocks = {**messages, "system": [{"type": "text", "text": system}]}
    async with serving() as (_, url, session):
        chat = (await post(session, url, CHAT))[1]["usage"]["prompt_tokens"]
        for body in (messages, blocks):
            usage = (await post(session, url, body, MESSAGES))[1]["usage"]
            assert usage["input_tokens"] + usage["cache_read_input_tokens"] == chat
        for given in (user, [{"role": "user", "content": [{"type": "input_text", "text": user}]}]):
            body = {"model": DEFAULT_MODEL, "max_output_tokens": 2, "instructions": system, "input": given}
            assert (await post(session, url, body, RESPONSES))[1]["usage"]["input_tokens"] == chat


@pytest.mark.parametrize(
    ("path", "change", "status", "words"),
    [
        (MESSAGES, {"max_tokens": None}, 400, "max_tokens is required"),
        (MESSAGES, {"max_tokens": 0}, 400, "max_tokens must be at least 1"),
        (MESSAGES, {"messages": []}, 400, "messages must be a list"),
        (MESSAGES, {"model": "another"}, 404, "does not exist"),
        (MESSAGES, {"max_tokens": 10**6}, 400, "maximum context length"),
        (RESPONSES, {"input": ""}, 400, "input must be"),
        (RESPONSES, {"input": ["x"]}, 400, "input must be"),
        (RESPONSES, {"model": "another"}, 404, "does not exist"),
        (RESPONSES, {"background": True}, 400, "background can only be used"),
        (RESPONSES, {"previous_response_id": "resp_1"}, 404, "resp_1"),
    ],
)
async def test_wrong_requests_are_rejected_in_the_shape_of_their_api(
    path: str, change: dict[str, Any], status: int, words: str
) -> None:
    async with serving() as (pod, url, session):
        answered, body = await post(session, url, {**ASKS[path], **change}, path)
        assert pod.accounts.total().rejected == 1
    assert answered == status
    assert words in body["error"]["message"]
    assert body["error"]["type"] == ("NotFoundError" if status == 404 else "BadRequestError")
    assert body.get("type") == ("error" if path == MESSAGES else None)


@both
async def test_faults_strike_these_too(path: str) -> None:
    streamed = {**ASKS[path], "stream": True}
    async with serving() as (pod, url, session):
        pod.faults.put(Error(status=503, count=1))
        assert [(await post(session, url, ASKS[path], path))[0] for _ in range(2)] == [503, 200]
        pod.faults.put(Reset(after_chunks=2, count=1))
        with pytest.raises(aiohttp.ClientError):
            await raw(session, url, streamed, path)
        pod.faults.put(Stall(after_chunks=3, count=1))
        deltas = 0
        async with session.post(url + path, json=streamed) as response, asyncio.timeout(10):
            while deltas < 3:
                line = await response.content.readline()
                deltas += line.startswith(b"event:") and line.endswith(b"_delta\n" if path == MESSAGES else b".delta\n")
        await until(lambda: pod.accounts.total().open == 0)
        books = pod.accounts.total()
    assert (books.answered, books.faulted, books.aborted) == (1, 2, 1)
    assert books.output_tokens == 8
