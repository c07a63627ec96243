# SPDX-License-Identifier: Apache-2.0
"""Running one producer: at once in the common case, with a time limit when it must wait.

A producer's fault is counted and costs the request nothing but what the producer would have known.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from epp.contract.endpoints import Endpoints
from epp.contract.errors import RequestError
from epp.contract.plugins import Producer
from epp.contract.requests import InferenceRequest
from epp.scheduling.guard import Guarded

TIMEOUT_S = 0.4


def produce(guarded: Guarded[Producer], request: InferenceRequest, candidates: Endpoints) -> Awaitable[None] | None:
    """Let it publish on `request`; returns what must be awaited, if anything."""
    if guarded.failing and guarded.benched:
        return None
    try:
        waiting = guarded.plugin.produce(request, candidates)
    except RequestError:
        raise
    except Exception as error:
        guarded.failed(error)
        return None
    if waiting is None and guarded.failing:
        guarded.succeeded()
    return waiting


async def finish(guarded: Guarded[Producer], waiting: Awaitable[None]) -> None:
    """Wait for it, up to `TIMEOUT_S` seconds."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await waiting
    except RequestError:
        raise
    except Exception as error:
        guarded.failed(error)
    else:
        guarded.succeeded()
