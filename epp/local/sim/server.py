# SPDX-License-Identifier: Apache-2.0
"""The HTTP face of a simulated pod: vLLM's paths, on aiohttp's bare server (no router, no middleware).

A request becomes one sequence per choice; a client that goes away frees its slots at once. Every answer names the pod
in `x-inference-pod`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import xxhash
from aiohttp import web

from epp.local.sim.blocks import TOKEN_BYTES, chain_hashes
from epp.local.sim.driver import Driver
from epp.local.sim.engine import Engine, EngineConfig, Progress, SequenceState, Work
from epp.local.sim.metrics import PageConfig, PodMetrics
from epp.local.sim.openai import Answer, ApiError, Ask, TokenCount, read_ask
from epp.local.sim.text import compose, count_tokens

POD_HEADER = "x-inference-pod"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEEPALIVE_S = 3600.0


@dataclass(frozen=True, slots=True)
class PodConfig:
    """One pod. `models` are served names, the first is the one on the metrics page; `loras` are adapter names."""

    name: str
    models: tuple[str, ...]
    loras: tuple[str, ...] = ()
    output_tokens: int = 64
    max_model_len: int = 32_768
    seed: int = 0
    old_kv_name: bool = False
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(slots=True)
class _Choice:
    """One text being generated."""

    text: str
    tokens: int
    reason: str
    sequence: SequenceState | None = None
    told: int = 0


class Pod:
    """Answers requests. `clock` is monotonic seconds; make it on the loop that serves."""

    def __init__(self, config: PodConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self._clock = clock
        self._started_s = time.time()
        self.metrics = PodMetrics(
            PageConfig(
                model=config.models[0],
                max_model_len=config.max_model_len,
                block_size_tokens=config.engine.block_size_tokens,
                num_blocks=config.engine.num_blocks,
                max_loras=len(config.loras),
                old_kv_name=config.old_kv_name,
                created_s=self._started_s,
            )
        )
        self.engine = Engine(config.engine, self.metrics)
        self.driver = Driver(self.engine, clock, asyncio.get_running_loop())
        self._headers = {POD_HEADER: config.name}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.path
        if path in ("/metrics", "/metrics/") and request.method == "GET":
            return self._metrics()
        if path == "/health" and request.method == "GET":
            return web.Response(headers=self._headers)
        started_s = self._clock()
        try:
            if path == "/v1/models" and request.method == "GET":
                response: web.StreamResponse = self._json(self._models())
            elif path in ("/v1/chat/completions", "/v1/completions"):
                response = await self._generate(request, chat=path == "/v1/chat/completions")
            else:
                response = self._json(b'{"detail":"Not Found"}', 404)
        except ApiError as error:
            response = self._json(error.body(), error.status)
        self.metrics.http_answered(path, self._clock() - started_s)
        return response

    def _json(self, body: bytes, status: int = 200) -> web.Response:
        return web.Response(body=body, status=status, content_type="application/json", headers=self._headers)

    def _metrics(self) -> web.Response:
        self.driver.catch_up()
        headers = {**self._headers, "Content-Type": METRICS_TYPE}
        return web.Response(body=self.metrics.page(self.engine, time.time()), headers=headers)

    def _models(self) -> bytes:
        root = self.config.models[0]
        cards: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": int(self._started_s),
                "owned_by": "vllm",
                "root": root,
                "parent": root if name in self.config.loras else None,
                "max_model_len": None if name in self.config.loras else self.config.max_model_len,
                "permission": [],
            }
            for name in (*self.config.models, *self.config.loras)
        ]
        return orjson.dumps({"object": "list", "data": cards})

    async def _generate(self, request: web.BaseRequest, *, chat: bool) -> web.StreamResponse:
        if request.method != "POST":
            return self._json(b'{"detail":"Method Not Allowed"}', 405)
        # Not request.read(): it has a limit of 1 MiB, and prompts may be longer.
        ask = read_ask(await request.content.read(), chat=chat)
        if ask.model not in self.config.models and ask.model not in self.config.loras:
            raise ApiError(404, f"The model `{ask.model}` does not exist.", "model")
        choices = [self._choice(ask, index) for index in range(len(ask.prompts))]
        answer = Answer(ask, request.headers.get("x-request-id") or str(uuid.uuid4()), int(time.time()))
        work = [self._work(ask, choice, prompt) for choice, prompt in zip(choices, ask.prompts, strict=True)]
        changed = asyncio.Event()
        finished = 0

        def on_progress(progress: Progress) -> None:
            nonlocal finished
            finished += progress.finished
            if ask.stream or finished == len(choices):
                changed.set()

        try:
            for choice, item in zip(choices, work, strict=True):
                choice.sequence = self.driver.submit(item, on_progress)
            if ask.stream:
                response = await self._stream(request, ask, answer, choices, changed)
            else:
                await changed.wait()
                reasons = [choice.reason for choice in choices]
                response = self._json(answer.whole([c.text for c in choices], reasons, _count(ask, choices)))
        except BaseException:
            self.metrics.request_ended("abort", ask.n, ask.max_tokens)
            raise
        finally:
            for choice in choices:
                if choice.sequence is not None:
                    self.driver.abort(choice.sequence)
        self.metrics.request_ended(choices[0].reason, ask.n, ask.max_tokens)
        return response

    def _choice(self, ask: Ask, index: int) -> _Choice:
        """Decide what will be said, and how long it is."""
        prompt = ask.prompts[index]
        prompt_tokens = count_tokens(prompt)
        room = min(self.config.max_model_len, self.engine.max_context_tokens) - prompt_tokens
        wanted = 1 if ask.max_tokens is None else ask.max_tokens
        if wanted > room:
            length = self.config.max_model_len
            raise ApiError(
                400,
                f"This model's maximum context length is {length} tokens. However, you requested {wanted} output "
                f"tokens and your prompt contains {prompt_tokens} tokens. Please reduce one of them.",
            )
        limit = room if ask.max_tokens is None else ask.max_tokens
        key = f"{xxhash.xxh3_64_hexdigest(prompt)}/{index}"
        least = limit if ask.ignore_eos and ask.max_tokens is not None else min(limit, self.config.output_tokens)
        text = compose(self.config.seed, key, least)
        tokens = count_tokens(text.encode())
        if tokens > limit or (ask.ignore_eos and ask.max_tokens is not None):
            return _Choice(text[: limit * TOKEN_BYTES], limit, "length")
        return _Choice(text, tokens, "stop")

    def _work(self, ask: Ask, choice: _Choice, prompt: bytes) -> Work:
        adapter = ask.model if ask.model in self.config.loras else ""
        block_tokens = self.config.engine.block_size_tokens
        hashes = chain_hashes(prompt + choice.text.encode(), block_tokens, f"{adapter}/{ask.cache_salt}".encode())
        return Work(
            prompt_tokens=count_tokens(prompt),
            output_tokens=choice.tokens,
            block_hashes=hashes,
            prompt_blocks=len(prompt) // (block_tokens * TOKEN_BYTES),
            watched=ask.stream,
            adapter=adapter,
        )

    async def _stream(
        self, request: web.BaseRequest, ask: Ask, answer: Answer, choices: list[_Choice], changed: asyncio.Event
    ) -> web.StreamResponse:
        headers = {**self._headers, "Content-Type": "text/event-stream; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        open_choices = list(enumerate(choices))
        await response.prepare(request)
        while open_choices:
            await changed.wait()
            changed.clear()
            events = [self._news(ask, answer, index, choice, choices) for index, choice in open_choices]
            open_choices = [(i, choice) for i, choice in open_choices if choice.told < choice.tokens]
            if not open_choices:
                events.append(answer.closing(_count(ask, choices)))
            await response.write(b"".join(events))
        await response.write_eof()
        return response

    def _news(self, ask: Ask, answer: Answer, index: int, choice: _Choice, choices: list[_Choice]) -> bytes:
        """Events for the tokens of one choice that the client has not seen, one event a token."""
        sequence = choice.sequence
        generated = 0 if sequence is None else sequence.generated
        events = []
        while choice.told < generated:
            if choice.told == 0:
                events.append(answer.opening(index, _count(ask, choices)))
            start = choice.told * TOKEN_BYTES
            choice.told += 1
            reason = choice.reason if choice.told == choice.tokens else None
            events.append(answer.chunk(index, choice.text[start : start + TOKEN_BYTES], reason, _count(ask, choices)))
        return b"".join(events)


def _count(ask: Ask, choices: list[_Choice]) -> TokenCount:
    sequences = [choice.sequence for choice in choices if choice.sequence is not None]
    prompts = sequences[:: ask.n]
    told = sum(choice.told for choice in choices) if ask.stream else sum(choice.tokens for choice in choices)
    return TokenCount(
        prompt=sum(s.work.prompt_tokens for s in prompts),
        completion=told,
        cached=sum(s.cached_tokens for s in prompts),
    )


def make_server(pod: Pod) -> web.Server:
    """aiohttp's server around `pod`; handlers are cancelled when their client goes away."""
    return web.Server(
        pod.handle,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
    )
