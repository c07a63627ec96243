# SPDX-License-Identifier: Apache-2.0
"""One run of `epp up -f`: start the parts, try the gateway out, stay until told to end, leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import aiohttp

from epp.contract.errors import StartError
from epp.local.chain.follow import Follow
from epp.local.chain.left import watched
from epp.local.chain.parts import Files, Listeners, Running, make_parts, picker_name
from epp.local.chain.plan import Plan
from epp.local.chain.supervise import Part, Supervisor
from epp.local.chain.tryout import as_json, curl, line, models, over_limit, try_out
from epp.local.chain.words import counting_line, route_lines
from epp.local.client import Outcome
from epp.local.decisions import complaint
from epp.local.outlet import write_whole
from epp.local.report import Printer
from epp.local.stack import STOP_GRACE_S
from epp.local.until import until_told

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What to run and what to do with it; see the flags of `epp up -f`."""

    plan: Plan
    files: Files
    running: Running
    requests: int = 1
    exit: bool = False
    json: bool = False


@dataclass(slots=True)
class _Starting:
    """How far the start is, for the line that tells it: groups of parts, and how many of each answer."""

    began_s: float
    total: dict[str, int] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)

    def text(self) -> str:
        parts = ", ".join(self._group(name, count) for name, count in self.total.items())
        return f"starting: {parts} ({time.monotonic() - self.began_s:.1f} s)"

    def _group(self, name: str, count: int) -> str:
        ready = self.ready.get(name, 0)
        return f"{name} {ready}/{count}" if count > 1 else f"{name} {'ready' if ready else '...'}"


class ChainSession:
    """Make one, run it once. People read `out`, or `err` when `out` is kept for JSON."""

    def __init__(self, config: RunConfig, out: TextIO, err: TextIO) -> None:
        self._config = config
        self._out = out
        self._printer = Printer(err if config.json else out)
        self._only_watched = watched(config.plan.topology.limits)
        names = {str(pod.place): pod.name for pod in config.plan.all_pods}
        self._follow = Follow(self._printer.line, time.monotonic, self._only_watched, names)
        self._ready = False
        self._early: list[str] = []
        self._tried_out = False

    async def run(self) -> int:
        """Returns the exit code. Raises `StartError`; whatever happens, no process is left running."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            config = self._config
            lines = Listeners(self._follow.envoy_line, self._complain)
            parts = make_parts(config.plan, config.files, config.running, session, lines)
            supervisor = Supervisor(parts, self._printer.line)

            async def stop() -> None:
                # What parts complain of while they end is nobody's business.
                self._ready = False
                await supervisor.stop(STOP_GRACE_S)

            return await until_told(
                self._work(supervisor, parts, session),
                self._printer,
                tried_out=lambda: self._tried_out,
                stop=stop,
                kill=supervisor.kill,
            )

    def _complain(self, name: str) -> Callable[[str], None]:
        """Shows what a part complains of, once the gateway is up; what it said before, then. What pickers say of
        simulated pods before is not worth it: all of them are only starting."""
        pools = self._config.plan.pools
        patient = any(pool.pods and name == picker_name(pool) for pool in pools)

        def on_line(text: str) -> None:
            words = complaint(text, warnings=True)
            if words is not None and self._ready:
                self._printer.line(f"  {name}: {words}")
            elif words is not None and not patient:
                self._early.append(f"  {name}: {words}")

        return on_line

    async def _work(self, supervisor: Supervisor, parts: Sequence[Part], session: aiohttp.ClientSession) -> int:
        plan, config = self._config.plan, self._config
        start_s = await self._start(supervisor, parts)
        supervisor.keep()
        self._ready = True
        self._printer.line(f"ready after {start_s:.1f} s: {plan.url}\n")
        counting = counting_line(plan, config.running.redis, config.running.window)
        for text in (*route_lines(plan), *filter(None, [counting])):
            self._printer.line(text)
        for text in dict.fromkeys(self._early):
            self._printer.line(text)
        self._printer.line()
        outcomes = await self._try_out(session)
        self._tried_out = True
        if config.json:
            await write_whole(self._out, json.dumps(self._report(outcomes, start_s)) + "\n")
        if config.exit:
            return 0 if all(outcome.ok or over_limit(outcome) for outcome in outcomes) else 1
        for text in farewell(plan):
            self._printer.line(text)
        self._follow.begin()
        await asyncio.Event().wait()
        return 0

    async def _start(self, supervisor: Supervisor, parts: Sequence[Part]) -> float:
        """Start everything; the seconds it took. Raises `StartError`."""
        state = _Starting(time.monotonic())
        for part in parts:
            state.total[_group(part)] = state.total.get(_group(part), 0) + 1

        def on_ready(part: Part) -> None:
            name = _group(part)
            state.ready[name] = state.ready.get(name, 0) + 1
            if state.ready[name] == state.total[name]:
                self._printer.progress(state.text())

        self._printer.progress(state.text())
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await supervisor.start(on_ready)
        except TimeoutError:
            missing = [name for name, count in state.total.items() if state.ready.get(name, 0) < count]
            raise StartError(f"{', '.join(missing)}: no answer within {START_TIMEOUT_S:g} s") from None
        return time.monotonic() - state.began_s

    async def _try_out(self, session: aiohttp.ClientSession) -> list[Outcome]:
        outcomes: list[Outcome] = []
        async for outcome in try_out(session, models(self._config.plan), self._config.requests):
            outcomes.append(outcome)
            self._follow.told(outcome.request_id)
            broken = not outcome.ok and not 200 < outcome.status < 500
            why = await self._follow.why(outcome.request_id) if broken else ""
            self._printer.line(line(len(outcomes), outcome, self._only_watched, why))
        if outcomes:
            self._printer.line()
        return outcomes

    def _report(self, outcomes: Sequence[Outcome], start_s: float) -> dict[str, Any]:
        return {
            **told(self._config.plan),
            "start_s": round(start_s, 3),
            "requests": list(as_json(outcomes)),
        }


def farewell(plan: Plan) -> Iterator[str]:
    """What can be done now."""
    commands = [f"  {curl(model)}" for model in models(plan)]
    command = ""
    if commands:
        command = " A command for each model:" if len(commands) > 1 else " A command for its model:"
    yield f"It stays up until Ctrl-C; requests show here with what they cost.{command}"
    yield ""
    yield from (*commands, *([""] if commands else []))
    for name, port in pages(plan).items():
        yield f"metrics of {name}: http://localhost:{port}{'/stats/prometheus' if name == 'Envoy' else '/metrics'}"
    for pool in plan.pools:
        of = f" of {pool.pool.name}" if len(plan.pools) > 1 else ""
        yield f"why a request{of} went there: epp explain --url http://localhost:{pool.metrics} [x-request-id]"
    if plan.pools:
        yield "  (the x-request-id is in the headers of its answer; without one: the last request)"


def _group(part: Part) -> str:
    """Parts of one kind are told together."""
    if part.name.startswith("pod "):
        return "simulated pods"
    return "endpoint pickers" if part.name.startswith("the endpoint picker") else part.name.removeprefix("the ")


def pages(plan: Plan) -> dict[str, int]:
    """Who has a metrics page on which port."""
    found = {picker_name(pool): pool.metrics for pool in plan.pools}
    found["the gateway"] = plan.gateway_page
    if plan.places.ratelimit is not None:
        found["the rate limit service"] = plan.limits_page
    found["Envoy"] = plan.places.admin.port
    return found


def told(plan: Plan) -> dict[str, Any]:
    """The plan as plain values, without secrets."""
    return {
        "url": plan.url,
        "files": [str(file) for file in plan.topology.files],
        "models": [model.name for model in models(plan)],
        "pools": {pool.pool.name: {server.name: str(server.place) for server in pool.servers} for pool in plan.pools},
        "backends": {backend.backend.name: list(map(str, backend.places)) for backend in plan.backends},
        "simulated": [pod.name for pod in plan.all_pods],
        "unsupported": list(map(str, plan.unsupported)),
        "warnings": list(plan.notes),
        "metrics": pages(plan),
    }
