# SPDX-License-Identifier: Apache-2.0
"""`/v1/embeddings` of a simulated pod: prompts are computed by the engine like any other, vectors follow from the text.

Usage has prompt tokens alone, as vLLM tells it. The engine's work for one text is its prompt and one token.
"""

from __future__ import annotations

import asyncio
import base64
import struct
import time
import uuid
from collections.abc import Mapping
from typing import Any

import orjson
import xxhash
from aiohttp import web

from epp.local.sim.accounts import Accounts, Entry
from epp.local.sim.blocks import chain_hashes
from epp.local.sim.driver import Driver
from epp.local.sim.engine import Progress, SequenceState, Work
from epp.local.sim.faults import Error, Faults, Hang
from epp.local.sim.generation import PodConfig
from epp.local.sim.hangup import never
from epp.local.sim.openai import ApiError, read_object, texts
from epp.local.sim.text import count_tokens

EMBEDDINGS_PATH = "/v1/embeddings"
_DIMENSIONS = 16
_MOST_DIMENSIONS = 4096


class Embeddings:
    """Answers requests for embeddings, and books them like requests to generate. `headers` are on every answer."""

    def __init__(
        self, config: PodConfig, driver: Driver, faults: Faults, accounts: Accounts, headers: Mapping[str, str]
    ) -> None:
        self._config = config
        self._driver = driver
        self._faults = faults
        self._accounts = accounts
        self._headers = headers

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; raises what ends the connection."""
        entry = self._accounts.begin()
        try:
            body = await self._answer(await request.content.read(), entry)
            response = await self._deliver(request, body)
            entry.settle("answered")
            return response
        except ApiError as error:
            entry.settle("rejected")
            return await self._deliver(request, error.body(), error.status)
        finally:
            self._accounts.end(entry)

    async def _deliver(self, request: web.BaseRequest, body: bytes, status: int = 200) -> web.StreamResponse:
        """Write a whole answer; returns when the system has it."""
        response = web.Response(body=body, status=status, content_type="application/json", headers=self._headers)
        await response.prepare(request)
        await response.write_eof()
        return response

    async def _answer(self, body: bytes, entry: Entry) -> bytes:
        data = read_object(body)
        model = data.get("model")
        if model not in (*self._config.models, *self._config.loras):
            raise ApiError(404, f"The model `{model}` does not exist.", "model")
        prompts = texts(data.get("input"), "input")
        size, encoded = data.get("dimensions") or _DIMENSIONS, data.get("encoding_format") == "base64"
        if not isinstance(size, int) or not 1 <= size <= _MOST_DIMENSIONS:
            raise ApiError(400, f"dimensions must be 1 to {_MOST_DIMENSIONS}, got {size!r}", "dimensions")
        entry.model = model
        fault = self._faults.strike(Error)
        if fault is not None:
            entry.settle("faulted")
            raise ApiError(fault.status, "a fault was asked for")
        if self._faults.strike(Hang) is not None:
            await never()
        tokens = await self._compute(prompts)
        entry.prompt_tokens = tokens
        vectors = [_vector(prompt, size, encoded) for prompt in prompts]
        return orjson.dumps(
            {
                "id": f"embd-{uuid.uuid4()}",
                "object": "list",
                "created": int(time.time()),
                "model": model,
                "data": [{"index": i, "object": "embedding", "embedding": v} for i, v in enumerate(vectors)],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
            }
        )

    async def _compute(self, prompts: list[bytes]) -> int:
        """Run the prompts through the engine; their tokens."""
        work = [self._work(prompt) for prompt in prompts]
        left, done = len(work), asyncio.Event()

        def on_progress(progress: Progress) -> None:
            nonlocal left
            left -= progress.finished
            if not left:
                done.set()

        sequences: list[SequenceState] = []
        try:
            sequences += [self._driver.submit(item, on_progress) for item in work]
            await done.wait()
        finally:
            for sequence in sequences:
                self._driver.abort(sequence)
        return sum(item.prompt_tokens for item in work)

    def _work(self, prompt: bytes) -> Work:
        tokens = count_tokens(prompt)
        longest = min(self._config.max_model_len, self._driver.engine.max_context_tokens) - 1
        if tokens > longest:
            raise ApiError(400, f"This model's maximum context length is {longest} tokens, the input has {tokens}.")
        block_tokens = self._config.engine.block_size_tokens
        return Work(tokens, 1, chain_hashes(prompt, block_tokens, b"embedding/"), watched=True)


def _vector(prompt: bytes, size: int, encoded: bool) -> Any:
    """Numbers from -1 to 1 that are the same for the same text."""
    values = [xxhash.xxh3_64_intdigest(prompt, seed=i) / (1 << 63) - 1.0 for i in range(size)]
    return base64.b64encode(struct.pack(f"<{size}f", *values)).decode() if encoded else values
