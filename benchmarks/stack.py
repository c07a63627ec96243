# SPDX-License-Identifier: Apache-2.0
"""The parts a request passes, as processes of their own: pods, endpoint pickers, and an Envoy in front of each picker.

Everything listens on loopback; everything ends with `Stack.stop`, or with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

import epp.local
from benchmarks.rows import BenchmarkError
from benchmarks.upstream import address
from epp.local.envoy import EnvoyConfig, envoy_argv, find_envoy
from epp.local.ports import free_port
from epp.local.process import Child, Children
from epp.protos.health_pb2 import HealthCheckRequest, HealthCheckResponse

PODS = 4
READY_S = 30.0
SERVING = 1
SCRAPING = ("--refresh-metrics-interval", "10s")
"""Scraping has a row of its own; here it would be charged to requests."""
SEED_CONFIG = Path(epp.local.__file__).with_name("seed-config.yaml")


@dataclass(frozen=True, slots=True)
class Variant:
    """An endpoint picker to measure: `flags` are added to its own, `envoy` to its Envoy's `EnvoyConfig`."""

    name: str
    tls: bool
    reference: bool = False
    flags: tuple[str, ...] = ()
    envoy: tuple[tuple[str, Any], ...] = ()


ECHO = Variant("bare grpc.aio echo", tls=False, reference=True)
OURS_TLS = Variant("TLS", tls=True)
OURS_PLAIN = Variant("plaintext", tls=False)


@dataclass(frozen=True, slots=True)
class Served:
    """A picker with its Envoy: where clients connect, and what to look at."""

    variant: Variant
    picker: Child
    port: int
    admin_port: int

    def counters(self) -> dict[str, int]:
        """Envoy's counters of its ext_proc filter, by their last name."""
        url = f"http://127.0.0.1:{self.admin_port}/stats?filter=ext_proc&format=json"
        with urllib.request.urlopen(url, timeout=5) as answer:
            stats: list[dict[str, Any]] = json.load(answer)["stats"]
        return {stat["name"].rpartition(".")[2]: int(stat["value"]) for stat in stats if "value" in stat}


class Stack:
    """Starts parts. `folder` holds the files they need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children = Children()
        self._rng = random.Random()
        self._ports = [9002]

    async def pods(self, count: int = PODS, page_bytes: int = 4_000) -> list[str]:
        """Start pods; returns their addresses."""
        addresses = [address(number) for number in range(count)]
        port = self.port(addresses)
        argv = [sys.executable, "-m", "benchmarks.upstream", str(port), str(count), str(page_bytes)]
        child = await self.children.start("pods", argv)
        await wait_for_port(child, port, addresses[-1])
        return [f"{host}:{port}" for host in addresses]

    async def path(self, variant: Variant, pods: Sequence[str]) -> Served:
        """Start a picker that routes to `pods`, and its Envoy."""
        epp_port, port, admin_port = self.port(), self.port(), self.port()
        if variant.reference:
            picker = await self.children.start(variant.name, self.echo_argv(pods, epp_port))
            await wait_for_port(picker, epp_port)
        else:
            health_port = self.port()
            argv = self.epp_argv(variant, pods, epp_port, health_port, [*SCRAPING, *variant.flags])
            picker = await self.children.start(variant.name, argv)
            await wait_for_serving(picker, health_port)
        more: dict[str, Any] = dict(variant.envoy)
        config = EnvoyConfig(port=port, epp_port=epp_port, admin_port=admin_port, epp_tls=variant.tls, **more)
        envoy = await self.children.start("Envoy", envoy_argv(find_envoy(), config))
        await wait_for_port(envoy, port)
        return Served(variant, picker, port, admin_port)

    def echo_argv(self, pods: Sequence[str], port: int) -> list[str]:
        """The command line of the reference picker."""
        return [sys.executable, "-m", "benchmarks.echo_grpcio", str(port), pods[0]]

    def epp_argv(
        self, variant: Variant, pods: Sequence[str], port: int, health_port: int, more: Sequence[str] = (),
        config: Path = SEED_CONFIG,
    ) -> list[str]:  # fmt: skip
        """The command line of our own picker: the seed's, with endpoints from a file."""
        endpoints_file = self.folder / f"endpoints-{port}.json"
        endpoints_file.write_text(endpoints_document(pods))
        return [
            *(sys.executable, "-m", "epp", "serve", "--poolName", "bench", "--poolNamespace", "default"),
            *("--zap-encoder", "json", "--grpcPort", str(port), "--grpcHealthPort", str(health_port)),
            *("--metricsPort", "0", f"--secureServing={str(variant.tls).lower()}", "--configFile", str(config)),
            *("--endpoints-file", str(endpoints_file), "--bind-address", "127.0.0.1", "--drain-timeout", "0s", *more),
        ]

    def port(self, hosts: Sequence[str] = ("127.0.0.1",)) -> int:
        """A port that is free on all `hosts` and was not given before."""
        self._ports.append(free_port(hosts, 9002, self._rng, self._ports))
        return self._ports[-1]


@contextlib.asynccontextmanager
async def open_stack(folder: Path) -> AsyncIterator[Stack]:
    """A stack that is gone at the end of the block."""
    stack = Stack(folder)
    try:
        yield stack
    finally:
        await stack.children.stop(grace_s=1.0)


def endpoints_document(pods: Sequence[str]) -> str:
    """The file-discovery document that lists `pods`."""
    split = [pod.rpartition(":") for pod in pods]
    entries = [{"name": f"pod-{n}", "address": host, "port": port} for n, (host, _, port) in enumerate(split)]
    return json.dumps({"endpoints": entries}, indent=1)


async def wait_for_port(child: Child, port: int, host: str = "127.0.0.1") -> None:
    """Until somebody accepts there. Raises BenchmarkError when the child ends first, or after `READY_S`."""
    deadline_s = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        _check(child, deadline_s)
        await asyncio.sleep(0.005)


async def wait_for_serving(child: Child, health_port: int) -> None:
    """Until gRPC health says SERVING for the whole service. Raises as `wait_for_port` does."""
    await wait_for_port(child, health_port)
    deadline_s = time.monotonic() + READY_S
    async with grpc.aio.insecure_channel(f"127.0.0.1:{health_port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                if (await check(HealthCheckRequest(), timeout=1.0)).status == SERVING:
                    return
            _check(child, deadline_s)
            await asyncio.sleep(0.005)


def _check(child: Child, deadline_s: float) -> None:
    late = time.monotonic() > deadline_s
    if late or not child.alive:
        why = f"{child.name} is not ready after {READY_S:.0f} s" if late else child.describe_end()
        raise BenchmarkError("; ".join((why, *list(child.tail)[-3:])))
