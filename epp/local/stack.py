# SPDX-License-Identifier: Apache-2.0
"""The one-machine stack: simulated pods on addresses of their own, the endpoint picker with TLS, and real Envoy.

    client -> Envoy :8080 -> (ext_proc, TLS) endpoint picker :9002
                          -> pod 127.0.1.N:8000

As in Kubernetes, the pods have distinct addresses and one port. Everything is a child process of ours; a part that
ends while we wait for the stack, or while it is used, is an error that names the part and its last words.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from epp.contract.errors import StartError
from epp.local.decisions import last_words, readable
from epp.local.envoy import EnvoyConfig, envoy_argv
from epp.local.ports import HOST, Ports
from epp.local.process import Child, Children
from epp.local.ready import answers
from epp.local.scenario import MODEL

T = TypeVar("T")

POD_SPEED = 4.0
STOP_GRACE_S = 3.0
_POLL_S = 0.05


class PartEnded(StartError):
    """A part of the stack ended by itself; `lines` are what it wrote before its last words, for people."""

    def __init__(self, child: Child) -> None:
        words = last_words(list(child.tail))
        lines = [readable(line) for line in child.tail]
        self.lines = [line for line in lines if line and not line.endswith(words)]
        super().__init__(f"{child.describe_end()}; its last words: {words}")


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What to start. `picker` is the command to which the picker's flags are added. With `port` 0 all ports are
    chosen at random, so that several stacks can start at the same time. `picker_flags` come after ours, and win."""

    envoy: Path
    config_file: Path
    pods: int = 4
    port: int = 8080
    picker: tuple[str, ...] = (sys.executable, "-m", "epp", "serve")
    start_timeout_s: float = 30.0
    plugin_dirs: tuple[Path, ...] = ()
    response_phase: str = "full"
    picker_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens."""

    pod_hosts: tuple[str, ...]
    pod_port: int
    port: int
    picker_port: int
    health_port: int
    metrics_port: int
    envoy_admin_port: int

    @property
    def url(self) -> str:
        """The gateway, for clients."""
        return f"http://localhost:{self.port}"


def choose_addresses(config: StackConfig, ports: Ports) -> Addresses:
    """The usual ports where they are free, others where they are not; the gateway's port is a promise and stays.

    Raises `StartError` when the gateway's port is taken.
    """
    port = ports.promise(config.port) if config.port else ports.take(8080)
    hosts = tuple(f"127.0.1.{number + 1}" for number in range(config.pods))
    return Addresses(
        pod_hosts=hosts,
        pod_port=ports.take(8000, hosts),
        port=port,
        picker_port=ports.take(9002),
        health_port=ports.take(9003),
        metrics_port=ports.take(9090),
        envoy_admin_port=ports.take(9901),
    )


class Stack:
    """Start it, use it, stop it. `on_picker_line` gets each line of the picker's output."""

    def __init__(
        self,
        config: StackConfig,
        addresses: Addresses,
        on_progress: Callable[[str], None],
        on_picker_line: Callable[[str], None],
    ) -> None:
        self.addresses = addresses
        self._config = config
        self._say = on_progress
        self._on_picker_line = on_picker_line
        self._children = Children()

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Start everything and return when all of it answers. Raises `StartError`."""
        try:
            async with asyncio.timeout(self._config.start_timeout_s):
                await self.unless_one_ends(self._start(session))
        except TimeoutError:
            raise StartError(f"not everything answered within {self._config.start_timeout_s:g} s") from None

    async def stop(self) -> None:
        """End everything, Envoy first. Safe to call at any time."""
        await self._children.stop(STOP_GRACE_S)

    def kill(self) -> None:
        """End everything now."""
        self._children.kill()

    async def unless_one_ends(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. When a part of the stack ends before it, `work` is cancelled: `PartEnded`."""
        task = asyncio.ensure_future(work)
        crash = asyncio.ensure_future(self._children.first_to_end())
        try:
            await asyncio.wait([task, crash], return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise PartEnded(crash.result())
            return task.result()
        finally:
            task.cancel()
            crash.cancel()

    async def _start(self, session: aiohttp.ClientSession) -> None:
        started_s = time.monotonic()
        places, config = self.addresses, self._config
        pods = [f"http://{host}:{places.pod_port}/health" for host in places.pod_hosts]
        state = {f"{config.pods} simulated pods": False, "endpoint picker": False, "Envoy": False}

        def tell(ready: str = "") -> None:
            if ready:
                state[ready] = True
            parts = ", ".join(f"{name} {'ready' if done else '...'}" for name, done in state.items())
            self._say(f"starting: {parts} ({time.monotonic() - started_s:.1f} s)")

        tell()
        for number, host in enumerate(places.pod_hosts):
            await self._children.start(f"pod {host}", pod_argv(host, places.pod_port, number))
        told = config.response_phase != "full"
        gateway = EnvoyConfig(places.port, places.picker_port, places.envoy_admin_port, access_log=told)
        await self._children.start("Envoy", envoy_argv(config.envoy, gateway))
        for url in pods:
            await answers(session, url, poll_s=_POLL_S)
        tell(f"{config.pods} simulated pods")
        argv = [*config.picker, *picker_flags(places, config.config_file)]
        argv += [f"--plugin-dir={directory}" for directory in config.plugin_dirs]
        argv += [f"--response-phase={config.response_phase}"] if told else []
        argv += config.picker_flags
        await self._children.start("the endpoint picker", argv, self._on_picker_line)
        await _picker_ready(places.health_port)
        tell("endpoint picker")
        await answers(session, f"http://{HOST}:{places.envoy_admin_port}/ready", poll_s=_POLL_S)
        tell("Envoy")


def pod_argv(host: str, port: int, number: int) -> list[str]:
    """The command line of one simulated pod; its name is what the picker calls it."""
    return [
        *(sys.executable, "-m", "epp", "sim-pod"),
        *("--host", host, "--port", str(port), "--name", f"{host}-{port}"),
        *("--model", MODEL, "--seed", str(number), "--speed", f"{POD_SPEED:g}"),
    ]


def picker_flags(addresses: Addresses, config_file: Path) -> list[str]:
    """The picker's flags, in the style of KServe's: what a deployment of it is given, with our endpoints."""
    endpoints = ",".join(f"{host}:{addresses.pod_port}" for host in addresses.pod_hosts)
    return [
        *("--poolName", "local-inference-pool", "--poolNamespace", "default", "--zap-encoder", "json"),
        *("--grpcPort", str(addresses.picker_port), "--grpcHealthPort", str(addresses.health_port)),
        *("--metricsPort", str(addresses.metrics_port), "--secureServing"),
        *("--endpoints", endpoints, "--configFile", str(config_file)),
        # From this verbosity on, the log has each decision with its numbers.
        *("--v", "3"),
        # Nobody else is meant to reach it, and nobody routes to it any more when we stop it.
        *("--bind-address", HOST, "--drain-timeout", "0s"),
    ]


async def _picker_ready(health_port: int) -> None:
    """Wait until the picker's health port says that it has endpoints to choose from."""
    # Loaded only here: it takes longer than anything else, and by now the pods are starting beside us.
    import grpc

    from epp.protos.health_pb2 import HealthCheckRequest, HealthCheckResponse

    async with grpc.aio.insecure_channel(f"{HOST}:{health_port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        while True:
            try:
                answer = await check(HealthCheckRequest(service="readiness"), timeout=1.0, wait_for_ready=True)
                if answer.status == 1:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(_POLL_S)
