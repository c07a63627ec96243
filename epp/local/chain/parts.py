# SPDX-License-Identifier: Apache-2.0
"""The command lines of all parts, and how each is known to answer. No key is in any of them: they name files."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from epp.contract.redisurl import REDIS_VARIABLE
from epp.local.chain.plan import Plan, PoolPlan, SimPod
from epp.local.chain.supervise import Part
from epp.local.gateway.start import envoy_argv
from epp.local.ports import HOST
from epp.local.process import OnLine
from epp.local.ready import answers

_EPP = (sys.executable, "-m", "epp")
_LOG_FLUSH_MS = 100
_PODS, _HELPERS, _ENVOY = 0, 1, 2
"""Layers: Envoy ends first, then what it asks, then the pods."""


@dataclass(frozen=True, slots=True)
class Files:
    """What was written for the parts. `pickers` and `endpoints` are by pool; `limits` None: there are none."""

    envoy: Path
    gateway: Path
    limits: Path | None
    pickers: Mapping[str, Path]
    endpoints: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Running:
    """How the parts are run. `environ` is ours without what only one part may have; `redis` goes to that one.
    `write_bootstrap` writes the file that Envoy is started with; it takes its time."""

    envoy: Path
    write_bootstrap: Callable[[], object]
    environ: Mapping[str, str]
    redis: str = ""
    window: str = ""
    picker_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who reads the lines that parts write."""

    envoy: OnLine
    other: Callable[[str], OnLine]


def make_parts(
    plan: Plan, files: Files, running: Running, session: aiohttp.ClientSession, lines: Listeners
) -> list[Part]:
    """All parts, in the order in which they are started."""

    async def prepare() -> None:
        await asyncio.to_thread(running.write_bootstrap)

    def part(name: str, argv: tuple[str, ...], url: str, layer: int = _HELPERS, **more: Any) -> Part:
        values = {"on_line": lines.other(name), "env": running.environ, **more}
        return Part(name, argv, lambda: answers(session, url), layer, **values)

    parts = [part(f"pod {pod.name}", pod_argv(pod), f"http://{pod.place}/health", _PODS) for pod in plan.all_pods]
    admin = plan.places.admin
    # Its access log is how requests are shown here; it would be written out every 10 s.
    envoy = (*envoy_argv(running.envoy, files.envoy), "--file-flush-interval-msec", str(_LOG_FLUSH_MS))
    parts.append(part("Envoy", envoy, f"http://{admin}/ready", _ENVOY, on_line=lines.envoy, prepare=prepare))
    page = f"http://{HOST}:{{}}/readyz"
    parts.append(part("the gateway", gateway_argv(plan, files.gateway), page.format(plan.gateway_page)))
    if files.limits is not None:
        note = "" if running.redis else "what it had counted in memory is lost"
        argv = limits_argv(plan, files.limits, running.window)
        url = page.format(plan.limits_page).replace("readyz", "healthcheck")
        env = {**running.environ, **({REDIS_VARIABLE: running.redis} if running.redis else {})}
        parts.append(part("the rate limit service", argv, url, note=note, env=env))
    for pool in plan.pools:
        argv = picker_argv(plan, pool, files) + running.picker_flags
        parts.append(part(picker_name(pool), argv, page.format(pool.metrics)))
    return parts


def picker_name(pool: PoolPlan) -> str:
    """What a pool's picker is called in messages."""
    return f"the endpoint picker of {pool.pool.name}"


def pod_argv(pod: SimPod) -> tuple[str, ...]:
    """One simulated pod."""
    models = [word for model in pod.models for word in ("--model", model)]
    return (
        *(*_EPP, "sim-pod", "--host", pod.place.host, "--port", str(pod.place.port), "--name", pod.name),
        *(*models, "--seed", str(pod.seed), "--speed", f"{pod.speed:g}"),
    )


def gateway_argv(plan: Plan, config: Path) -> tuple[str, ...]:
    """The process that reads models' names, and counts tokens of plain backends."""
    ports = ("--port", str(plan.places.gateway.port), "--metrics-port", str(plan.gateway_page))
    return (*_EPP, "gateway", "--config", str(config), "--bind-address", HOST, *ports, "--drain-timeout", "0s")


def limits_argv(plan: Plan, config: Path, window: str) -> tuple[str, ...]:
    """The rate limit service."""
    assert plan.places.ratelimit is not None
    ports = ("--port", str(plan.places.ratelimit.port), "--metrics-port", str(plan.limits_page))
    chosen = ("--window", window) if window else ()
    return (*_EPP, "ratelimit", "--config", str(config), "--bind-address", HOST, *ports, *chosen,
            "--drain-timeout", "0s")  # fmt: skip


def picker_argv(plan: Plan, pool: PoolPlan, files: Files) -> tuple[str, ...]:
    """A pool's endpoint picker, with the flags KServe gives it and our files."""
    namespace, _, name = pool.pool.name.rpartition("/")
    argv = [
        *(*_EPP, "serve", "--poolName", name, "--poolNamespace", namespace or "default", "--zap-encoder", "json"),
        *("--grpcPort", str(pool.picker.port), "--grpcHealthPort", str(pool.health)),
        *("--metricsPort", str(pool.metrics), f"--secureServing={str(plan.places.picker_tls).lower()}"),
        *("--endpoints-file", str(files.endpoints[pool.pool.name])),
        *("--configFile", str(files.pickers[pool.pool.name])),
        # Nobody else is meant to reach it, and nobody routes to it any more when we stop it.
        *("--bind-address", HOST, "--drain-timeout", "0s"),
    ]
    return (*argv, *[f"--plugin-dir={directory}" for directory in plan.wishes.plugin_dirs])
