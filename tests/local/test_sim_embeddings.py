# SPDX-License-Identifier: Apache-2.0
"""Embeddings of a simulated pod: vLLM's shape, exact counts, faults."""

from __future__ import annotations

import base64
import struct

import pytest

from epp.local.sim.faults import Error
from tests.local.test_sim_pod import DEFAULT_MODEL, post, serving

PATH = "/v1/embeddings"


async def test_vectors_follow_from_the_text_and_prompts_alone_are_counted() -> None:
    async with serving() as (pod, url, session):
        status, body = await post(session, url, {"model": DEFAULT_MODEL, "input": ["12345678", "abcd", "abcd"]}, PATH)
        again = (await post(session, url, {"model": DEFAULT_MODEL, "input": [1, 2, 3], "dimensions": 4}, PATH))[1]
        books = pod.accounts.by_model()[DEFAULT_MODEL]
    assert (status, body["object"], body["model"]) == (200, "list", DEFAULT_MODEL)
    vectors = [item["embedding"] for item in body["data"]]
    assert vectors[1] == vectors[2] != vectors[0]
    assert all(-1 <= number <= 1 for vector in vectors for number in vector)
    assert body["usage"] == {"prompt_tokens": 4, "total_tokens": 4, "completion_tokens": 0}
    assert (len(again["data"][0]["embedding"]), again["usage"]["prompt_tokens"]) == (4, 3)
    assert (books.answered, books.prompt_tokens, books.output_tokens, books.open) == (2, 7, 0, 0)


async def test_base64_holds_the_same_numbers() -> None:
    async with serving() as (_, url, session):
        plain = (await post(session, url, {"model": DEFAULT_MODEL, "input": "abcd"}, PATH))[1]
        coded = {"model": DEFAULT_MODEL, "input": "abcd", "encoding_format": "base64"}
        packed = (await post(session, url, coded, PATH))[1]
    numbers = struct.unpack("<16f", base64.b64decode(packed["data"][0]["embedding"]))
    assert numbers == pytest.approx(plain["data"][0]["embedding"], abs=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"no", 400, "not JSON"),
        (b"[]", 400, "must be a JSON object"),
        ({"model": "another", "input": "x"}, 404, "does not exist"),
        ({"model": DEFAULT_MODEL}, 400, "input must be a string"),
        ({"model": DEFAULT_MODEL, "input": ""}, 400, "input must not be empty"),
        ({"model": DEFAULT_MODEL, "input": "x", "dimensions": 0.5}, 400, "dimensions must be 1 to 4096"),
        ({"model": DEFAULT_MODEL, "input": "x" * 4 * 40_000}, 400, "maximum context length"),
    ],
)
async def test_wrong_requests_are_rejected_and_booked_so(body: object, status: int, words: str) -> None:
    async with serving() as (pod, url, session):
        answered, told = await post(session, url, body, PATH)
        assert (answered, pod.accounts.total().rejected) == (status, 1)
    assert words in told["error"]["message"]


async def test_faults_strike_here_too() -> None:
    async with serving() as (pod, url, session):
        pod.faults.put(Error(status=503, count=1))
        body = {"model": DEFAULT_MODEL, "input": "x"}
        assert [(await post(session, url, body, PATH))[0] for _ in range(2)] == [503, 200]
        assert (pod.accounts.total().faulted, pod.accounts.total().answered) == (1, 1)
