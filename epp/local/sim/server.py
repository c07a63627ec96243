# SPDX-License-Identifier: Apache-2.0
"""The HTTP face of a simulated pod: vLLM's paths, on aiohttp's bare server (no router, no middleware).

A request becomes one sequence per choice; a client that goes away frees its slots at once. Every answer names the pod
in `x-inference-pod`. What becomes of each request is booked; faults show where they are met.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from aiohttp import web

from epp.local.sim.accounts import Accounts
from epp.local.sim.admin import PREFIX, Admin, Place
from epp.local.sim.apis import APIS
from epp.local.sim.driver import Driver
from epp.local.sim.embeddings import EMBEDDINGS_PATH, Embeddings
from epp.local.sim.engine import Engine
from epp.local.sim.faults import Faults, Hang, Slow
from epp.local.sim.generation import EngineName, Generation, PodConfig
from epp.local.sim.hangup import never
from epp.local.sim.metrics import PodMetrics
from epp.local.sim.metricsface import METRICS_PATHS, MetricsFace
from epp.local.sim.pages import EnginePage, PageConfig
from epp.local.sim.sglang import SglangMetrics
from epp.local.sim.state import State
from epp.local.sim.trtllm import TrtllmMetrics

__all__ = ["Pod", "PodConfig", "make_server"]

POD_HEADER = "x-inference-pod"
KEEPALIVE_S = 3600.0
HEAD_BYTES = 64 * 1024
"""The longest header, as vLLM's server takes it: what a gateway lets pass is not refused here."""
_PAGES: Mapping[EngineName, Callable[[PageConfig], EnginePage]] = {
    "vllm": PodMetrics,
    "sglang": SglangMetrics,
    "trtllm": TrtllmMetrics,
}


class Pod:
    """Answers requests. `clock` is monotonic seconds; make it on the loop that serves. With `place` it has the admin
    path, and faults that concern the listener or the process are done there."""

    def __init__(
        self, config: PodConfig, clock: Callable[[], float] = time.monotonic, place: Place | None = None
    ) -> None:
        self.config = config
        self._clock = clock
        self._started_s = time.time()
        self._loop = asyncio.get_running_loop()
        self.metrics: EnginePage = _PAGES[config.shown_as](
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
        self.engine = Engine(config.engine, self.metrics, random.Random(f"steps/{config.seed}"))
        self.driver = Driver(self.engine, clock, self._loop)
        self.accounts = Accounts((*config.models, *config.loras))
        self.faults = Faults(clock, random.Random(config.seed), self._faults_changed)
        self._well_again: asyncio.TimerHandle | None = None
        self._headers = {POD_HEADER: config.name}
        self._generation = Generation(config, self.driver, self.metrics, self.faults, self.accounts, self._headers)
        self._embeddings = Embeddings(config, self.driver, self.faults, self.accounts, self._headers)
        self._metrics = MetricsFace(self.page, self.faults, config.metrics_filter, self._headers)
        state = State(config.name, clock, clock(), self.accounts, self.faults, self.driver, self.page)
        self._admin = Admin(self.faults, state, place) if place is not None else None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.path
        if self._admin is not None and path.startswith(PREFIX):
            return await self._admin.handle(request)
        started_s = self._clock()
        if path in APIS:
            response = await self._generation.answer(request, path)
        elif path == EMBEDDINGS_PATH and request.method == "POST":
            response = await self._embeddings.answer(request)
        else:
            if self.faults.strike(Hang, unless=lambda hang: not hang.everything) is not None:
                await never()
            if request.method == "GET" and path in METRICS_PATHS:
                return await self._metrics.answer(request)
            if request.method == "GET" and path == "/health":
                return web.Response(headers=self._headers)
            if request.method == "GET" and path == "/v1/models":
                response = self._json(self._models())
            else:
                response = self._json(b'{"detail":"Not Found"}', 404)
        self.metrics.http_answered(path, self._clock() - started_s)
        return response

    def page(self) -> bytes:
        """The metrics page as it is now, without faults."""
        self.driver.catch_up()
        return self.metrics.page(self.engine, time.time())

    def close(self) -> None:
        """Stop the timers."""
        self.driver.close()
        if self._well_again is not None:
            self._well_again.cancel()

    def _faults_changed(self) -> None:
        """The engine is as slow as it is told to be, until the end of that."""
        if self._well_again is not None:
            self._well_again.cancel()
            self._well_again = None
        slow = self.faults.get(Slow)
        self.driver.slow_down(1.0 if slow is None else slow.factor)
        left_s = self.faults.left_s(Slow)
        if left_s is not None:
            self._well_again = self._loop.call_later(left_s, self._faults_changed)

    def _json(self, body: bytes, status: int = 200) -> web.StreamResponse:
        return web.Response(body=body, status=status, content_type="application/json", headers=self._headers)

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


def make_server(pod: Pod) -> web.Server:
    """aiohttp's server around `pod`; handlers are cancelled when their client goes away."""
    return web.Server(
        pod.handle,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
        max_line_size=HEAD_BYTES,
        max_field_size=HEAD_BYTES,
    )
