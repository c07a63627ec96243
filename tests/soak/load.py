# SPDX-License-Identifier: Apache-2.0
"""Clients of all manners: whole answers, streams, GETs, long prompts, and some that go away in the middle.

Every request carries `x-soak-id`, by which the gateway's access log knows it. A request is lost when a client that
wanted its answer did not get the whole of it within `TIMEOUT_S`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import orjson

from tests.soak.ledger import Ledger, Lost

TIMEOUT_S = 4.0
ID_HEADER = "x-soak-id"
_GROUPS = 40
_PASSAGE = " ".join(f"word{number}" for number in range(300))


@dataclass
class Clients:
    """`connections` clients for one gateway, together about `rate_per_s` requests. Run `work`, then `stop`."""

    gateway: str
    url: str
    model: str
    ledger: Ledger
    now_s: Callable[[], float]
    rng: random.Random
    connections: int
    rate_per_s: float
    counts: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    _stopped: bool = False

    async def work(self) -> None:
        """Ask until `stop`."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, number) for number in range(self.connections)))

    def stop(self) -> None:
        """Finish what is under way."""
        self._stopped = True

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        rng = random.Random(self.rng.random())
        pause_s = self.connections / self.rate_per_s
        await asyncio.sleep(rng.uniform(0, pause_s))
        turn = 0
        while not self._stopped:
            turn += 1
            due_s = self.now_s() + rng.expovariate(1 / pause_s)
            await self._one(session, rng, f"{self.gateway}-{number}-{turn}")
            await asyncio.sleep(max(0.0, due_s - self.now_s()))

    async def _one(self, session: aiohttp.ClientSession, rng: random.Random, id_: str) -> None:
        kind = rng.choices(("whole", "stream", "get", "long", "leaves"), (35, 40, 8, 2, 15))[0]
        self.counts[kind] += 1
        begin_s = self.now_s()
        seen: list[str] = []
        asking = self._ask(session, rng, id_, kind, seen)
        try:
            if kind == "leaves":
                async with asyncio.timeout(rng.expovariate(1 / 0.08)):
                    await asking
            else:
                await asking
                self.latencies_s.append(self.now_s() - begin_s)
            self.counts["answered"] += 1
        except (aiohttp.ClientError, TimeoutError, _Wrong) as error:
            if kind == "leaves" and isinstance(error, TimeoutError):
                self.counts["left"] += 1
                return
            what = f"{type(error).__name__} {error}".strip()
            pod = seen[0] if seen else ""
            late = isinstance(error, TimeoutError)
            lost = Lost(id_, self.gateway, kind, begin_s, self.now_s(), what, pod, timed_out=late)
            self.ledger.lost.append(lost)

    async def _ask(
        self, session: aiohttp.ClientSession, rng: random.Random, id_: str, kind: str, seen: list[str]
    ) -> None:
        headers = {ID_HEADER: id_, "content-type": "application/json"}
        if kind == "get":
            call = session.get(f"{self.url}/v1/models", headers=headers)
        else:
            stream = kind == "stream" or (kind == "leaves" and rng.random() < 0.5)
            call = session.post(f"{self.url}/v1/completions", data=self._body(rng, id_, kind, stream), headers=headers)
        async with call as response:
            pod = response.headers.get("x-inference-pod")
            if pod:
                seen.append(pod)
            body = await response.read()
            if response.status != 200:
                raise _Wrong(f"{response.status} {body[:120].decode('utf-8', 'replace')}")
            if kind == "stream" and not body.endswith(b"data: [DONE]\n\n"):
                raise _Wrong("the stream has no end")
            if kind in ("whole", "long"):
                orjson.loads(body)["usage"]

    def _body(self, rng: random.Random, id_: str, kind: str, stream: bool) -> bytes:
        group = rng.randrange(_GROUPS)
        prompt = f"group {group}: {_PASSAGE} " * (20 if kind == "long" else 1) + f"request {id_}"
        more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        return orjson.dumps({"model": self.model, "prompt": prompt, "max_tokens": rng.randint(1, 40), **more})


class _Wrong(Exception):
    """An answer that is not what was asked for."""
