# SPDX-License-Identifier: Apache-2.0
"""Real Envoy with our bootstrap: whose destination header counts, and what happens without the picker."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from epp.local.envoy import CONTROL_HEADERS, DESTINATION_HEADER, EnvoyConfig, envoy_argv
from epp.local.ports import free_port
from epp.local.process import Children

pytestmark = pytest.mark.envoy
STANDIN = Path(__file__).with_name("standin_picker.py")


@asynccontextmanager
async def upstream() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A server that remembers the headers of every request: (address, headers)."""
    seen: list[dict[str, str]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        await request.content.read()
        seen.append({name.lower(): value for name, value in request.headers.items()})
        return web.Response(body=b"{}", content_type="application/json")

    server = await asyncio.get_running_loop().create_server(web.Server(handle), "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    server.close()


@asynccontextmanager
async def gateway(envoy: Path, picker_for: str = "") -> AsyncIterator[tuple[str, aiohttp.ClientSession]]:
    """Envoy, with a stand-in picker that chooses `picker_for`, or with none."""
    rng, ports = random.Random(), []
    for _ in range(4):
        ports.append(free_port(["127.0.0.1"], None, rng, ports))
    config = EnvoyConfig(port=ports[0], epp_port=ports[1], admin_port=ports[2])
    children = Children()
    try:
        await children.start("envoy", envoy_argv(envoy, config))
        if picker_for:
            flags = ["--grpcPort", str(ports[1]), "--grpcHealthPort", str(ports[3]), "--endpoints", picker_for]
            await children.start("picker", [sys.executable, str(STANDIN), *flags])
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{ports[0]}"
            await answers(session, f"http://127.0.0.1:{ports[2]}/ready")
            if picker_for:
                await answers(session, url)
            yield url, session
    finally:
        await children.stop(2.0)


async def answers(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with session.get(url) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


async def test_only_the_pickers_destination_counts(envoy_binary: Path) -> None:
    async with upstream() as (good, seen), upstream() as (trap, trapped), gateway(envoy_binary, good) as (url, session):
        seen.clear()
        spoofed = dict.fromkeys(CONTROL_HEADERS, trap)
        body: dict[str, Any] = {"model": "m", "messages": []}
        for _ in range(3):
            headers = {**spoofed, "x-request-id": "my-own-id", "x-user-id": "user123"}
            async with session.post(url + "/v1/chat/completions", json=body, headers=headers) as response:
                assert response.status == 200
                assert response.headers["x-request-id"] == "my-own-id"
        assert (len(seen), trapped) == (3, [])
        arrived = seen[0]
        assert arrived[DESTINATION_HEADER] == good
        assert arrived["x-user-id"] == "user123"
        assert set(CONTROL_HEADERS) & set(arrived) == {DESTINATION_HEADER}


async def test_without_the_picker_nobody_is_routed_anywhere(envoy_binary: Path) -> None:
    async with upstream() as (trap, trapped), gateway(envoy_binary) as (url, session):
        for data in (None, json.dumps({"model": "m"}).encode()):
            async with session.request(
                "POST", url + "/v1/x", data=data, headers={DESTINATION_HEADER: trap}
            ) as response:
                assert response.status in (500, 503)
        assert trapped == []
