# SPDX-License-Identifier: Apache-2.0
"""The resources of the conformance tests: pools with their echo pods, and pickers started as the tests start them.

A `Source` is where pickers learn of the pods. Ports are the system's choice, otherwise the command line is that of the
tests' manifests.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from tests.conformance.gateway import Pool
from tests.e2e.stack import HERE, PATIENCE_S, Epp, Part, serving

NAMESPACE = "inference-conformance-app-backend"
ECHO = HERE.parent / "conformance" / "echo.py"
# Pods need ports 3000 to 3005 of addresses nobody else on this machine uses.
_NET = f"127.{1 + os.getpid() % 254}.{os.getpid() // 254 % 256}"


def _pods(app: str, first: int) -> dict[str, str]:
    return {f"{app}-{number}": f"{_NET}.{first + number}" for number in range(3)}


_PRIMARY = _pods("primary-inference-model-server", 10)
PRIMARY = Pool("primary-inference-pool", _PRIMARY)
SECONDARY = Pool("secondary-inference-pool", _pods("secondary-inference-model-server", 20), fail_open=True)
DP = Pool("dp-inference-pool", _pods("dp-inference-model-server", 30), ports=(3000, 3002, 3004))
H2C = Pool("h2c-inference-pool", _PRIMARY, ports=(3001,), h2c=True)
POOLS = (PRIMARY, SECONDARY, DP, H2C)


class Source(Protocol):
    """Where a picker learns of its pods."""

    def flags(self, pool: Pool) -> Sequence[str]:
        """What the picker of `pool` is started with on top of the manifest's arguments."""
        ...

    def environ(self, pool: Pool) -> dict[str, str]:
        """What its environment holds."""
        ...


class EndpointsFile:
    """Pods written to a file. Whoever names endpoints serves real clients, so the mode is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def flags(self, pool: Pool) -> Sequence[str]:
        """The file, and the mode."""
        entries = [
            {"name": f"{pod}-rank-{rank}", "namespace": NAMESPACE, "address": ip, "port": port}
            for pod, ip in pool.pods.items()
            for rank, port in enumerate(pool.ports)
        ]
        path = self._folder / f"{pool.name}.json"
        path.write_text(json.dumps({"endpoints": entries}))
        return [f"--endpoints-file={path}", "--conformance=on"]

    def environ(self, pool: Pool) -> dict[str, str]:
        """Nothing."""
        return {}


@contextlib.contextmanager
def echo_pods(*pools: Pool) -> Iterator[None]:
    """The pods of `pools`, listening."""
    places = [
        f"{pod}={ip}:{','.join(map(str, pool.ports))}{'+h2c' if pool.h2c else ''}"
        for pool in pools
        for pod, ip in pool.pods.items()
    ]
    part = Part([sys.executable, str(ECHO), "--namespace", NAMESPACE, *places])
    try:
        part.wait(lambda line: line == "ready")
        yield
    finally:
        part.stop()


@contextlib.contextmanager
def picker(pool: Pool, source: Source, *more: str) -> Iterator[Epp]:
    """The picker of `pool`, ready; `more` are further flags, which hold over those of `source`."""
    argv = ["--pool-name", pool.name, "--pool-namespace", NAMESPACE, "--zap-encoder", "json"]
    argv += ["--grpc-port", "0", "--grpc-health-port", "0", *source.flags(pool), *more]
    with serving(*argv, env=source.environ(pool)) as running:
        _until_ready(running)
        yield running


def _until_ready(running: Epp) -> None:
    """What the manifests' readiness probe asks."""
    deadline_s = time.monotonic() + PATIENCE_S
    with grpc.insecure_channel(f"127.0.0.1:{running.health_port}") as channel:
        health = HealthStub(channel)
        while True:
            answer = health.Check(HealthCheckRequest(service="inference-extension"), timeout=5.0)
            if answer.status == HealthCheckResponse.SERVING:
                return
            assert time.monotonic() < deadline_s, "the picker is never ready"
            time.sleep(0.02)
