# SPDX-License-Identifier: Apache-2.0
"""Sends requests through the gateway as any OpenAI client would, and notes what came back."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from epp.local.decisions import Handled
from epp.local.scenario import Ask

USER_HEADERS = {"Content-Type": "application/json", "x-user-id": "user123"}
_TIMEOUT_S = 300.0


@dataclass(slots=True)
class Outcome:
    """What became of one request. `status` 0: no HTTP answer. Times in milliseconds, from sending. `headers` are the
    answer's, names in lower case."""

    ask: Ask
    request_id: str
    status: int = 0
    pod: str = ""
    latency_ms: float = 0.0
    first_byte_ms: float | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    handled: Handled | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Answered with 200, completely."""
        return self.status == 200 and not self.error

    @property
    def prompt_tokens(self) -> int:
        """As the pod counted them."""
        return int(self.usage.get("prompt_tokens") or 0)

    @property
    def completion_tokens(self) -> int:
        """As the pod counted them."""
        return int(self.usage.get("completion_tokens") or 0)

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that the pod did not have to compute."""
        return int((self.usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


async def send(
    session: aiohttp.ClientSession, url: str, ask: Ask, request_id: str, headers: Mapping[str, str] | None = None
) -> Outcome:
    """Send `ask`, with `headers` added, and read the whole answer. Never raises for what the network or the gateway
    does."""
    outcome = Outcome(ask, request_id)
    started_s = time.perf_counter()
    try:
        async with session.post(
            url + ask.path,
            data=json.dumps(ask.body).encode(),
            headers={**USER_HEADERS, **(headers or {}), "x-request-id": request_id},
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
        ) as response:
            outcome.status = response.status
            outcome.pod = response.headers.get("x-inference-pod", "")
            outcome.headers = {name.lower(): value for name, value in response.headers.items()}
            body = bytearray()
            async for data in response.content.iter_any():
                if outcome.first_byte_ms is None:
                    outcome.first_byte_ms = (time.perf_counter() - started_s) * 1e3
                body += data
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.error = str(error) or type(error).__name__
    else:
        _read(outcome, bytes(body))
    outcome.latency_ms = (time.perf_counter() - started_s) * 1e3
    return outcome


def _read(outcome: Outcome, body: bytes) -> None:
    if outcome.status != 200:
        outcome.error = body.decode("utf-8", "replace").strip().partition("\n")[0] or "no body"
        return
    try:
        answers = _events(body) if outcome.ask.stream else [json.loads(body)]
        usages = [answer["usage"] for answer in answers if answer.get("usage")]
    except (ValueError, AttributeError):
        outcome.error = "the answer cannot be read"
        return
    if outcome.ask.stream and not body.rstrip().endswith(b"data: [DONE]"):
        outcome.error = "the stream ended early"
    if usages:
        outcome.usage = usages[-1]


def _events(body: bytes) -> list[Any]:
    lines = (line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: "))
    return [json.loads(line) for line in lines if line.strip() != b"[DONE]"]
