# SPDX-License-Identifier: Apache-2.0
"""Users at work on the whole chain, and every token added up four times: as clients saw them, as pods counted them, as
the limits were charged, and as the metrics tell. All must be equal, by user and by model.

    python -m tests.e2e.accounting --users 50 --connections 20 --requests 10
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from epp.local.sim.apis import APIS
from epp.local.sim.openai import texts
from epp.local.sim.text import count_tokens
from tests.e2e.chain import LLAMA, QWEN, TUTORIALS, Chain, chain

LIMIT = 1_000_000_000
"""Tokens a year for each user and model: a window that does not end while a test runs."""
SETTLE_S = 30.0
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
KINDS = (
    (CHAT, {}),
    (CHAT, {"stream": True}),
    (COMPLETIONS, {"max_tokens": 24}),
    (CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
    (COMPLETIONS, {"stream": True, "max_tokens": 9}),
    (EMBEDDINGS, {}),
    (CHAT, {"n": 2, "max_tokens": 12, "stream": True}),
    (MESSAGES, {"max_tokens": 14}),
    (MESSAGES, {"max_tokens": 11, "stream": True}),
    (RESPONSES, {"max_output_tokens": 13}),
    (RESPONSES, {"stream": True}),
)
INPUT_AND_OUTPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
"""Anthropic counts the cached tokens apart; in responses they are in input_tokens, and have no such name."""
BEGINNING = "You know all clouds by their names, and when the wind turns. " * 8
Key = tuple[str, str]
"""A user and a model."""


@dataclass
class Books:
    """What clients saw, by user and model. `failed`: answers that are not 200, or not whole."""

    tokens: Counter[Key] = field(default_factory=Counter)
    requests: int = 0
    failed: list[str] = field(default_factory=list)


@dataclass
class Result:
    """The sums. `charged` is what the limits say, by user and model; `pods` what the pods counted, by model, and
    `cached` what of it they had cached."""

    seconds: float
    seen: Counter[Key]
    charged: dict[Key, int]
    pods: Counter[str]
    cached: Counter[str]
    metrics: dict[str, float]
    requests: int
    failed: list[str]

    def differences(self) -> list[str]:
        """Empty when all agree."""
        found = [
            f"{key}: clients {self.seen[key]}, limit {n}" for key, n in self.charged.items() if n != self.seen[key]
        ]
        for model in (QWEN, LLAMA):
            sums = {
                "clients": sum(n for (_, name), n in self.seen.items() if name == model),
                "pods": self.pods[model],
                "metrics": self.metrics[model],
            }
            if len(set(sums.values())) != 1:
                found.append(f"{model}: {sums}")
        return found


def manifests(folder: Path) -> list[Path]:
    """The tutorials', with a limit that nobody reaches."""
    found = []
    for path in TUTORIALS:
        text = path.read_text()
        assert text.count("requests: 1000 ") == 1
        assert text.count("unit: Hour") == 1
        copy = folder / path.name
        copy.write_text(text.replace("requests: 1000 ", f"requests: {LIMIT} ").replace("unit: Hour", "unit: Year"))
        found.append(copy)
    return found


def body_of(path: str, model: str, text: str, options: dict[str, Any]) -> dict[str, Any]:
    """A request for `text`."""
    if path in (CHAT, MESSAGES):
        return {"model": model, "messages": [{"role": "user", "content": text}], **options}
    return {"model": model, "prompt" if path == COMPLETIONS else "input": text, **options}


def prompt_tokens(path: str, body: dict[str, Any]) -> int:
    """What a pod counts for the prompt."""
    if path == EMBEDDINGS:
        return sum(map(count_tokens, texts(body["input"], "input")))
    ask = APIS[path].read(json.dumps(body).encode())
    return sum(map(count_tokens, ask.prompts[:: ask.n]))


async def one(
    session: aiohttp.ClientSession, url: str, user: str, path: str, body: dict[str, Any], books: Books
) -> str:
    """One request, booked; returns what was left of the limit before it."""
    books.requests += 1
    try:
        async with session.post(url + path, json=body, headers={"x-user-id": user}) as response:
            data, status, left = (
                await response.read(),
                response.status,
                response.headers.get("x-ratelimit-remaining", ""),
            )
        if status != 200:
            raise ValueError(f"{status} {data[:100]!r}")
        books.tokens[user, body["model"]] += _seen(path, body, data)
    except (aiohttp.ClientError, ValueError, TimeoutError) as error:
        books.failed.append(f"{user} {path} {body['model']}: {error!r}")
        return ""
    return left


def _seen(path: str, body: dict[str, Any], data: bytes) -> int:
    """The tokens of an answer: by its usage, or, where that was not asked for, one a piece of text."""
    if path in (MESSAGES, RESPONSES):
        return _seen_by_events(path, body, data)
    if not body.get("stream"):
        return int(json.loads(data)["usage"]["total_tokens"])
    if not data.endswith(b"data: [DONE]\n\n"):
        raise ValueError("the stream has no end")
    events = [json.loads(line[6:]) for line in data.split(b"\n\n")[:-2]]
    usages = [event["usage"] for event in events if event.get("usage")]
    pieces = sum(1 for e in events for c in e["choices"] if c.get("text") or (c.get("delta") or {}).get("content"))
    tokens = prompt_tokens(path, body) + pieces
    if bool(usages) != ("stream_options" in body) or (usages and usages[-1]["total_tokens"] != tokens):
        raise ValueError(f"usage {usages} of {tokens} tokens")
    return tokens


def _seen_by_events(path: str, body: dict[str, Any], data: bytes) -> int:
    """The same of the APIs whose streams are named events: the usage at the end must be of the pieces before it."""
    if not body.get("stream"):
        usage = json.loads(data)["usage"]
        return sum(usage.get(name, 0) for name in INPUT_AND_OUTPUT)
    events = [json.loads(event.partition(b"\ndata: ")[2]) for event in data.split(b"\n\n")[:-1]]
    if events[-1]["type"] != ("message_stop" if path == MESSAGES else "response.completed"):
        raise ValueError("the stream has no end")
    usage = events[-2]["usage"] if path == MESSAGES else events[-1]["response"]["usage"]
    pieces = sum(event["type"] in ("content_block_delta", "response.output_text.delta") for event in events)
    tokens = sum(usage.get(name, 0) for name in INPUT_AND_OUTPUT)
    if tokens != prompt_tokens(path, body) + pieces:
        raise ValueError(f"usage {usage} of {pieces} pieces")
    return tokens


def kind_and_model(connection: int, turn: int) -> tuple[int, str]:
    """Which of `KINDS` a connection asks in this turn, and of which model: all of both in 2 * len(KINDS) turns."""
    kind = (turn + connection) % len(KINDS)
    return kind, (QWEN, LLAMA)[(turn // len(KINDS) + kind + connection) % 2]


async def _work(session: aiohttp.ClientSession, url: str, user: str, number: int, requests: int, books: Books) -> None:
    for turn in range(requests):
        kind, model = kind_and_model(number, turn)
        path, options = KINDS[kind]
        # One beginning for all, so that some of most prompts is cached: the APIs count that in their own ways.
        text = f"{BEGINNING}{user}, connection {number}, turn {turn}: " + "tell me of clouds " * (turn % 5)
        await one(session, url, user, path, body_of(path, model, text, options), books)


async def account(up: Chain, users: int, connections: int, requests: int) -> Result:
    """Let everybody work, wait until all is booked, and add up."""
    books, began_s = Books(), time.monotonic()
    url = f"http://127.0.0.1:{up.port}"
    names = [f"user-{number}" for number in range(users)]
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        work = (_work(session, url, name, n, requests, books) for name in names for n in range(connections))
        await asyncio.gather(*work)
        seconds = time.monotonic() - began_s
        charged: dict[Key, int] = {}
        for name in names:
            for model in (QWEN, LLAMA):
                charged[name, model] = await _charged(session, url, name, model, books)
    for key in charged:
        # What was charged before the last probe; the probe itself is in what clients saw.
        charged[key] += PROBE_TOKENS
    metrics = {QWEN: up.page("endpoint picker"), LLAMA: up.page("the gateway")}
    totals = {
        model: sum(page.sum("epp_llm_tokens_total", model=model, type=kind) for kind in ("input", "output"))
        for model, page in metrics.items()
    }
    pods: Counter[str] = Counter()
    cached: Counter[str] = Counter()
    for state in up.pods().values():
        assert state["requests"]["open"] == 0
        for model, counts in state["models"].items():
            pods[model] += counts["prompt_tokens"] + counts["output_tokens"]
            cached[model] += counts["cached_tokens"]
    return Result(seconds, books.tokens, charged, pods, cached, totals, books.requests, books.failed)


PROBE = {"prompt": "probe", "max_tokens": 1}
PROBE_TOKENS = count_tokens(b"probe") + 1


async def _charged(session: aiohttp.ClientSession, url: str, user: str, model: str, books: Books) -> int:
    """What the limit had been charged before the last probe: asked until that is what clients saw, or time is up."""
    deadline_s = time.monotonic() + SETTLE_S
    while True:
        expected = books.tokens[user, model]
        left = await one(session, url, user, COMPLETIONS, {"model": model, **PROBE}, books)
        charged = LIMIT - int(left or LIMIT)
        if charged == expected or time.monotonic() > deadline_s:
            return charged
        await asyncio.sleep(0.05)


def main() -> int:
    """By hand, as large as one likes."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.accounting")
    for name, default in (("--users", 50), ("--connections", 20), ("--requests", 10)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--speed", type=float, default=100.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chain("-f", *manifests(Path(folder)), speed=args.speed) as up:
        result = asyncio.run(account(up, args.users, args.connections, args.requests))
    rate = args.users * args.connections * args.requests / result.seconds
    print(
        f"{result.requests} requests, {sum(result.seen.values())} tokens, {result.seconds:.1f} s, {rate:.0f} a second"
    )
    for line in (*result.failed[:10], *result.differences()[:20]):
        print(f"  {line}")
    print("not one token lost or counted twice" if not (result.failed or result.differences()) else "NOT EXACT")
    return 1 if result.failed or result.differences() else 0


if __name__ == "__main__":
    sys.exit(main())
