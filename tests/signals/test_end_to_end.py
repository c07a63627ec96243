# SPDX-License-Identifier: Apache-2.0
"""The scraper with the real pool and real servers that die and come back."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop

from epp.contract.discovery import EndpointSpec
from epp.contract.plugins import SCRAPED
from epp.endpoints.pool import Pool
from epp.signals.poll.scraper import Scraper
from epp.signals.settings import ScrapeSettings

Serve = Callable[..., Any]


def answer(waiting: int) -> bytes:
    page = b"vllm:num_requests_waiting %d\nvllm:num_requests_running 1\nvllm:kv_cache_usage_perc 0.5\n" % waiting
    page += b'vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1\n'
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(page) + page


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


def spec(name: str, port: int) -> EndpointSpec:
    return EndpointSpec("default", name, "127.0.0.1", port)


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_values_arrive_survive_a_failure_and_are_renewed(
    serve: Serve, runner: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "epp.signals")

    async def main() -> None:
        pool = Pool(time.monotonic)
        settings = ScrapeSettings(interval_s=0.01, timeout_s=5.0, max_backoff_s=0.1)
        scraper = Scraper(pool.record, SCRAPED, settings, random.Random(1))
        pool.subscribe(scraper)
        scraper.start()
        async with serve(answer(7)) as good, serve(answer(1)) as mortal:
            pool.apply([spec("good", good.port), spec("mortal", mortal.port)])
            assert np.isinf(pool.candidates().age_s).all()
            await until(lambda: pool.candidates().waiting.tolist() == [7.0, 1.0])
            assert pool.candidates().num_blocks.tolist() == [100.0, 100.0]
            port = mortal.port
            await mortal.close()
            await until(lambda: sum(state.failures_in_a_row for state in scraper.states()) > 2)
            await until(lambda: pool.candidates().age_s[0] < 0.1 < pool.candidates().age_s[1])
            assert pool.candidates().waiting.tolist() == [7.0, 1.0]
            async with serve(answer(3), port=port):
                await until(lambda: pool.candidates().waiting.tolist() == [7.0, 3.0])
                assert good.connections == 1
                pool.apply([spec("good", good.port)])
                polls = scraper.counts.polls
                await until(lambda: scraper.counts.polls > polls + 3)
                assert [state.endpoint.name for state in scraper.states()] == ["good"]
            scraper.stop()
            await asyncio.sleep(0.02)

    runner(main())
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
