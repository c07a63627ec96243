# SPDX-License-Identifier: Apache-2.0
"""One request to generate, from its body to the last byte of its answer, and what became of it in the books."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NoReturn

import xxhash
from aiohttp import web

from epp.local.sim.accounts import Accounts, Entry
from epp.local.sim.apis import APIS, Api, Writer
from epp.local.sim.blocks import TOKEN_BYTES, chain_hashes
from epp.local.sim.driver import Driver
from epp.local.sim.engine import EngineConfig, Progress, SequenceState, Work
from epp.local.sim.faults import Error, Faults, Hang, Reset, Stall
from epp.local.sim.hangup import never, reset
from epp.local.sim.metricsface import FilterPath
from epp.local.sim.openai import ApiError, Ask, TokenCount
from epp.local.sim.pages import EnginePage
from epp.local.sim.text import compose, count_tokens

EngineName = Literal["vllm", "sglang", "trtllm"]


@dataclass(frozen=True, slots=True)
class PodConfig:
    """One pod. `models` are served names, the first is the one on the metrics page; `loras` are adapter names.

    `shown_as` is the engine whose metrics page it has; `metrics_filter` the path of that page that filters by `name[]`.
    """

    name: str
    models: tuple[str, ...]
    loras: tuple[str, ...] = ()
    output_tokens: int = 64
    max_model_len: int = 32_768
    seed: int = 0
    shown_as: EngineName = "vllm"
    old_kv_name: bool = False
    metrics_filter: FilterPath = "off"
    engine: EngineConfig = field(default_factory=EngineConfig)


@dataclass(slots=True)
class _Choice:
    """One text being generated."""

    text: str
    tokens: int
    reason: str
    sequence: SequenceState | None = None
    told: int = 0


class Generation:
    """Answers requests to generate. `headers` are on every answer."""

    def __init__(
        self,
        config: PodConfig,
        driver: Driver,
        metrics: EnginePage,
        faults: Faults,
        accounts: Accounts,
        headers: Mapping[str, str],
    ) -> None:
        self._config = config
        self._driver = driver
        self._metrics = metrics
        self._faults = faults
        self._accounts = accounts
        self._headers = headers

    async def answer(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """Answer one request to a path of `APIS`; raises what ends the connection."""
        entry = self._accounts.begin()
        try:
            return await self._answer(request, APIS[path], entry)
        finally:
            self._accounts.end(entry)

    async def _answer(self, request: web.BaseRequest, api: Api, entry: Entry) -> web.StreamResponse:
        try:
            if request.method != "POST":
                entry.settle("rejected")
                return await self._deliver(request, b'{"detail":"Method Not Allowed"}', 405)
            # Not request.read(): it has a limit of 1 MiB, and prompts may be longer.
            ask = api.read(await request.content.read())
            if ask.model not in self._config.models and ask.model not in self._config.loras:
                raise ApiError(404, f"The model `{ask.model}` does not exist.", "model")
            entry.model = ask.model
            error = self._faults.strike(Error)
            if error is not None:
                entry.settle("faulted")
                refusal = ApiError(error.status, "a fault was asked for")
                return await self._deliver(request, api.error(refusal), refusal.status)
            if self._faults.strike(Hang) is not None:
                await never()
            return await self._generate(request, api, ask, entry)
        except ApiError as error:
            entry.settle("rejected")
            return await self._deliver(request, api.error(error), error.status)

    async def _deliver(self, request: web.BaseRequest, body: bytes, status: int = 200) -> web.StreamResponse:
        """Write a whole answer; returns when the system has it."""
        response = web.Response(body=body, status=status, content_type="application/json", headers=self._headers)
        await response.prepare(request)
        await response.write_eof()
        return response

    async def _generate(self, request: web.BaseRequest, api: Api, ask: Ask, entry: Entry) -> web.StreamResponse:
        choices = [self._choice(ask, index) for index in range(len(ask.prompts))]
        answer = api.writer(ask, request.headers.get("x-request-id") or str(uuid.uuid4()), int(time.time()))
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
                choice.sequence = self._driver.submit(item, on_progress)
            if ask.stream:
                response = await self._stream(request, ask, answer, choices, changed, entry)
            else:
                await changed.wait()
                if self._faults.strike(Reset) is not None:
                    await _reset(request, entry)
                reasons = [choice.reason for choice in choices]
                response = await self._deliver(
                    request, answer.whole([c.text for c in choices], reasons, _count(ask, choices))
                )
            entry.settle("answered")
        except BaseException:
            self._metrics.request_ended("abort", ask.n, ask.max_tokens)
            raise
        finally:
            for choice in choices:
                if choice.sequence is not None:
                    self._driver.abort(choice.sequence)
            _book(entry, ask, choices)
        self._metrics.request_ended(choices[0].reason, ask.n, ask.max_tokens)
        return response

    def _choice(self, ask: Ask, index: int) -> _Choice:
        """Decide what will be said, and how long it is."""
        prompt = ask.prompts[index]
        prompt_tokens = count_tokens(prompt)
        room = min(self._config.max_model_len, self._driver.engine.max_context_tokens) - prompt_tokens
        wanted = 1 if ask.max_tokens is None else ask.max_tokens
        if wanted > room:
            length = self._config.max_model_len
            raise ApiError(
                400,
                f"This model's maximum context length is {length} tokens. However, you requested {wanted} output "
                f"tokens and your prompt contains {prompt_tokens} tokens. Please reduce one of them.",
            )
        limit = room if ask.max_tokens is None else ask.max_tokens
        key = f"{xxhash.xxh3_64_hexdigest(prompt)}/{index}"
        least = limit if ask.ignore_eos and ask.max_tokens is not None else min(limit, self._config.output_tokens)
        text = compose(self._config.seed, key, least)
        tokens = count_tokens(text.encode())
        if tokens > limit or (ask.ignore_eos and ask.max_tokens is not None):
            return _Choice(text[: limit * TOKEN_BYTES], limit, "length")
        return _Choice(text, tokens, "stop")

    def _work(self, ask: Ask, choice: _Choice, prompt: bytes) -> Work:
        adapter = ask.model if ask.model in self._config.loras else ""
        block_tokens = self._config.engine.block_size_tokens
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
        self, request: web.BaseRequest, ask: Ask, answer: Writer, choices: list[_Choice], changed: asyncio.Event,
        entry: Entry,
    ) -> web.StreamResponse:  # fmt: skip
        cut = _Cut(self._faults)
        headers = {**self._headers, "Content-Type": "text/event-stream; charset=utf-8"}
        response = web.StreamResponse(headers=headers)
        open_choices = list(enumerate(choices))
        await response.prepare(request)
        beginning = answer.beginning()
        if beginning:
            await response.write(beginning)
        while open_choices:
            await cut.pass_or_end(request, entry)
            await changed.wait()
            changed.clear()
            # A fault after n tokens shows exactly n of them.
            news = [event for i, choice in open_choices for event in _news(ask, answer, i, choice, choices, cut)]
            open_choices = [(i, choice) for i, choice in open_choices if choice.told < choice.tokens]
            if not open_choices:
                news.append(answer.closing(_count(ask, choices)))
            await response.write(b"".join(news))
        await response.write_eof()
        return response


class _Cut:
    """Where a streamed answer is to end badly, in tokens told; drawn once, when it begins."""

    def __init__(self, faults: Faults) -> None:
        self._stall = faults.strike(Stall)
        self._reset = faults.strike(Reset) if self._stall is None else None
        fault: Stall | Reset | None = self._stall or self._reset
        self.left: float = float("inf") if fault is None else fault.after_chunks

    async def pass_or_end(self, request: web.BaseRequest, entry: Entry) -> None:
        """Nothing, or the bad end when its time has come."""
        if self.left > 0:
            return
        if self._reset is not None:
            await _reset(request, entry)
        await never()


async def _reset(request: web.BaseRequest, entry: Entry) -> NoReturn:
    entry.settle("faulted")
    reset(request.transport)
    await never()


def _news(ask: Ask, answer: Writer, index: int, choice: _Choice, choices: list[_Choice], cut: _Cut) -> list[bytes]:
    """Events for the tokens of one choice that the client has not seen, one event a token."""
    sequence = choice.sequence
    generated = 0 if sequence is None else sequence.generated
    events = []
    while choice.told < generated and cut.left > 0:
        cut.left -= 1
        if choice.told == 0:
            events.append(answer.opening(index, _count(ask, choices)))
        start = choice.told * TOKEN_BYTES
        choice.told += 1
        reason = choice.reason if choice.told == choice.tokens else None
        events.append(answer.chunk(index, choice.text[start : start + TOKEN_BYTES], reason, _count(ask, choices)))
    return events


def _count(ask: Ask, choices: list[_Choice]) -> TokenCount:
    sequences = [choice.sequence for choice in choices if choice.sequence is not None]
    prompts = sequences[:: ask.n]
    told = sum(choice.told for choice in choices) if ask.stream else sum(choice.tokens for choice in choices)
    return TokenCount(
        prompt=sum(s.work.prompt_tokens for s in prompts),
        completion=told,
        cached=sum(s.cached_tokens for s in prompts),
    )


def _book(entry: Entry, ask: Ask, choices: list[_Choice]) -> None:
    count = _count(ask, choices)
    entry.prompt_tokens, entry.cached_tokens = count.prompt, count.cached
    entry.output_tokens = sum(choice.sequence.generated for choice in choices if choice.sequence is not None)
