# SPDX-License-Identifier: Apache-2.0
"""When a part answers: asked over HTTP, again and again, until it says 200."""

from __future__ import annotations

import asyncio

import aiohttp

_PATIENCE_S = 1.0


async def answers(session: aiohttp.ClientSession, url: str, *, poll_s: float = 0.1) -> None:
    """Return when `url` is answered with 200; waits for ever, its caller knows for how long."""
    while True:
        try:
            async with session.get(url, timeout=aiohttp.ClientTimeout(total=_PATIENCE_S)) as response:
                if response.status == 200:
                    return
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass
        await asyncio.sleep(poll_s)
