# SPDX-License-Identifier: Apache-2.0
"""Trying the gateway out: the tutorials' request, to every model, and what came back in one line each."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from epp.contract.aigateway import MODEL_HEADER
from epp.local.chain.left import Watched, left_words, over_words
from epp.local.chain.plan import Plan
from epp.local.chain.words import models_of
from epp.local.client import USER_HEADERS, Outcome, send
from epp.local.scenario import CHAT_PATH, TUTORIAL_BODY, Ask


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for by name, and nothing else: at `port`, with `host` as its Host header if not ""."""

    name: str
    port: int
    host: str = ""


def models(plan: Plan) -> list[Model]:
    """What clients can ask for with the tutorials' request, each once a listener port."""
    found: dict[tuple[str, int], Model] = {}
    for listener in plan.topology.listeners:
        port = plan.places.listeners[listener.port].port
        for route in plan.topology.routes:
            for rule in route.rules if route.is_on(listener) else ():
                alone = [ms for ms in rule.matches if len(ms) == 1 and ms[0].name == MODEL_HEADER and not ms[0].regex]
                for name in models_of(rule) if alone else ():
                    host = listener.hostname.replace("*", "www", 1)
                    found.setdefault((name, port), Model(name, port, host))
    return list(found.values())


def curl(model: Model) -> str:
    """The tutorials' command, ready to paste."""
    headers = dict(USER_HEADERS) | ({"host": model.host} if model.host else {})
    words = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items())
    body = json.dumps({**TUTORIAL_BODY, "model": model.name})
    return f"curl -v {words} -d {shlex.quote(body)} http://localhost:{model.port}{CHAT_PATH}"


async def try_out(session: aiohttp.ClientSession, wanted: Sequence[Model], rounds: int) -> AsyncIterator[Outcome]:
    """Ask every model `rounds` times, one request after the other, so that each sees what the last one cost."""
    for _ in range(rounds):
        for model in wanted:
            ask = Ask(model.name, CHAT_PATH, {**TUTORIAL_BODY, "model": model.name})
            headers = {"host": model.host} if model.host else {}
            yield await send(session, f"http://127.0.0.1:{model.port}", ask, str(uuid.uuid4()), headers)


def over_limit(outcome: Outcome) -> bool:
    """Refused because a limit was reached: the gateway at work, no failure."""
    return outcome.status == 429 and "x-ratelimit-limit" in outcome.headers


def line(number: int, outcome: Outcome, only_watched: Watched = frozenset(), why: str = "") -> str:
    """One request: user, model, answer, tokens, what was left of the limit when its answer began. `why` it failed,
    where more is known than its answer says."""
    said = f"{outcome.prompt_tokens} + {outcome.completion_tokens} tokens" if outcome.ok else ""
    if over_limit(outcome):
        said = over_words(
            outcome.headers["x-ratelimit-limit"], outcome.headers.get("x-ratelimit-reset", ""), only_watched
        )
    parts = [said or why or outcome.error, _left(outcome, only_watched), f"by {outcome.pod}" if outcome.pod else ""]
    told = ", ".join(part for part in parts if part)
    head = f"{number:3d}  {USER_HEADERS['x-user-id']}  {outcome.ask.title:<28}"
    return f"{head} {outcome.status or '---'} {outcome.latency_ms:6.0f} ms  {told}"


def _left(outcome: Outcome, only_watched: Watched) -> str:
    limit, left = (outcome.headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining"))
    return left_words(limit, left, only_watched) if outcome.ok else ""


def as_json(outcomes: Sequence[Outcome]) -> Iterator[dict[str, Any]]:
    """The requests as plain values."""
    for outcome in outcomes:
        yield {
            "model": outcome.ask.title,
            "user": USER_HEADERS["x-user-id"],
            "request_id": outcome.request_id,
            "status": outcome.status,
            "latency_ms": round(outcome.latency_ms, 3),
            "pod": outcome.pod,
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": outcome.completion_tokens,
            "limit": {
                name: outcome.headers[f"x-ratelimit-{name}"]
                for name in ("limit", "remaining", "reset")
                if f"x-ratelimit-{name}" in outcome.headers
            },
            "error": outcome.error or None,
        }
