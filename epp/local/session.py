# SPDX-License-Identifier: Apache-2.0
"""One run of `epp up`: start the stack, send the requests, tell what happened, stay until told to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import uuid
from dataclasses import dataclass
from typing import TextIO

import aiohttp

from epp.local.client import Outcome, send
from epp.local.decisions import DecisionLog
from epp.local.outlet import write_whole
from epp.local.ports import Ports
from epp.local.report import Follow, Printer, as_json, curl, request_lines, summary
from epp.local.scenario import Ask, groups
from epp.local.stack import Stack, StackConfig, choose_addresses
from epp.local.until import until_told

_DECISION_WAIT_S = 2.0


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """What to start and what to do with it; see the flags of `epp up`."""

    stack: StackConfig
    requests: int = 12
    exit: bool = False
    json: bool = False


class Session:
    """Make one, run it once. People read `out`, or `err` when `out` is kept for JSON."""

    def __init__(self, config: SessionConfig, out: TextIO, err: TextIO) -> None:
        self._config = config
        self._out = out
        self._printer = Printer(err if config.json else out)
        follow = Follow(self._printer)
        self._decisions = DecisionLog(follow.handled, self._complain)
        self._ready = False
        self._tried_out = False

    async def run(self) -> int:
        """Returns the exit code of `epp up`. Raises `StartError`; whatever happens, nothing is left running."""
        config = self._config.stack
        with contextlib.closing(Ports(random.Random(), usual=config.port != 0)) as ports:
            addresses = choose_addresses(config, ports)
            stack = Stack(config, addresses, self._printer.progress, self._decisions.line)
            return await until_told(
                self._work(stack), self._printer, tried_out=lambda: self._tried_out, stop=stack.stop, kill=stack.kill
            )

    def _complain(self, text: str) -> None:
        # While it starts, what goes wrong ends the picker, and is told then.
        if self._ready:
            self._printer.line(f"  picker: {text}")

    async def _work(self, stack: Stack) -> int:
        places, config = stack.addresses, self._config
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await stack.start(session)
            self._ready = True
            first, last = places.pod_hosts[0], places.pod_hosts[-1]
            self._printer.line(
                f"ready: Envoy on {places.url}, the endpoint picker on :{places.picker_port} (TLS), "
                f"{config.stack.pods} simulated pods on {first} to {last}, port {places.pod_port}"
            )
            self._printer.line(f"configuration: {config.stack.config_file}")
            self._printer.line()
            outcomes = await stack.unless_one_ends(self._try_out(session, f"http://127.0.0.1:{places.port}"))
        self._tried_out = True
        if outcomes:
            self._printer.line()
            self._printer.line(summary(outcomes))
        if config.json:
            await write_whole(self._out, json.dumps(as_json(outcomes)) + "\n")
        if config.exit:
            return 0 if all(outcome.ok for outcome in outcomes) else 1
        self._printer.line()
        self._printer.line("It stays up until Ctrl-C. Try it; each request shows here with the reason for its pod:")
        self._printer.line(f"\n  {curl(places.url)}\n")
        self._printer.line(f"The picker's metrics: http://localhost:{places.metrics_port}/metrics")
        await stack.unless_one_ends(asyncio.Event().wait())
        return 0

    async def _try_out(self, session: aiohttp.ClientSession, url: str) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for group in groups(self._config.requests):
            for outcome in await asyncio.gather(*(self._ask(session, url, ask) for ask in group)):
                outcomes.append(outcome)
                for line in request_lines(len(outcomes), outcome):
                    self._printer.line(line)
        return outcomes

    async def _ask(self, session: aiohttp.ClientSession, url: str, ask: Ask) -> Outcome:
        request_id = str(uuid.uuid4())
        self._decisions.expect(request_id)
        outcome = await send(session, url, ask, request_id)
        # What was answered without a pod was not routed, and has no decision to wait for.
        outcome.handled = await self._decisions.take(request_id, _DECISION_WAIT_S if outcome.pod else 0.2)
        return outcome
