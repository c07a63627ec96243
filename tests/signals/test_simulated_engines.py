# SPDX-License-Identifier: Apache-2.0
"""Simulated pods of several engines in one pool, scraped over HTTP without a word about who runs what."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest

from epp.contract.discovery import EndpointSpec
from epp.contract.plugins import SCRAPED
from epp.endpoints.pool import Pool
from epp.local.sim.engine import EngineConfig
from epp.local.sim.server import Pod, PodConfig, make_server
from epp.signals.poll.scraper import Scraper
from epp.signals.settings import ScrapeSettings

MODEL = "m"
# One sequence at a time, a second a token: what is asked for stays where it is until the test is over.
SLOW = EngineConfig(max_num_seqs=1, decode_step_s=1.0, prefill_tokens_per_s=1e6, block_size_tokens=32, num_blocks=500)
PODS: tuple[dict[str, Any], ...] = (
    {"shown_as": "vllm", "loras": ("sql", "chat")},
    {"shown_as": "vllm", "old_kv_name": True},
    {"shown_as": "sglang"},
    {"shown_as": "trtllm"},
)


@asynccontextmanager
async def pod(name: str, **options: Any) -> AsyncIterator[tuple[Pod, int]]:
    made = Pod(PodConfig(name, (MODEL,), engine=SLOW, **options))
    server = await asyncio.get_running_loop().create_server(make_server(made), "127.0.0.1", 0)
    try:
        yield made, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        made.driver.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


async def ask(session: aiohttp.ClientSession, port: int, model: str = MODEL) -> None:
    body = {"model": model, "prompt": "x" * 4000, "max_tokens": 60, "stream": True}
    async with session.post(f"http://127.0.0.1:{port}/v1/completions", json=body) as response:
        await response.read()


@pytest.mark.parametrize("metrics_filter", ["off", "/metrics", "/metrics/"])
async def test_one_pool_of_many_engines(metrics_filter: str) -> None:
    pool = Pool(time.monotonic)
    scraper = Scraper(pool.record, SCRAPED, ScrapeSettings(interval_s=0.02), random.Random(1))
    pool.subscribe(scraper)
    scraper.start()
    async with (
        pod("a", metrics_filter=metrics_filter, **PODS[0]) as a,
        pod("b", metrics_filter=metrics_filter, **PODS[1]) as b,
        pod("c", metrics_filter=metrics_filter, **PODS[2]) as c,
        pod("d", metrics_filter=metrics_filter, **PODS[3]) as d,
        aiohttp.ClientSession() as session,
    ):
        pods = (a, b, c, d)
        pool.apply([EndpointSpec("ns", made.config.name, "127.0.0.1", port) for made, port in pods])
        await until(lambda: bool(np.isfinite(pool.candidates().age_s).all()))
        assert pool.candidates().waiting.tolist() == pool.candidates().running.tolist() == [0, 0, 0, 0]
        asked = [asyncio.create_task(ask(session, a[1], "sql"))]
        await until(lambda: len(a[0].engine.running) == 1)
        asked.append(asyncio.create_task(ask(session, a[1], "chat")))
        for position, (_, port) in enumerate(pods):
            asked += [asyncio.create_task(ask(session, port)) for _ in range(position + 1)]
        await until(lambda: pool.candidates().waiting.tolist() == [2, 1, 2, 3])
        seen = pool.candidates()
        assert seen.running.tolist() == [1, 1, 1, 1]
        assert seen.kv_utilization == pytest.approx([made.engine.blocks.utilization for made, _ in pods], abs=0.01), (
            "of all engines"
        )
        assert (seen.kv_utilization > 0).all()
        assert (seen.block_size_tokens.tolist(), seen.num_blocks.tolist()) == ([32] * 4, [500] * 4)
        await until(lambda: pool.candidates().awaits_adapter("chat").tolist() == [True, False, False, False])
        seen = pool.candidates()
        assert seen.runs_adapter("sql").tolist() == [True, False, False, False]
        assert (seen.lora_adapters.tolist(), seen.max_lora_adapters.tolist()) == ([2, 0, 0, 0], [2, 0, 0, 0])
        assert sum(scraper.counts.failures.values()) == 0
        scraper.stop()
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
