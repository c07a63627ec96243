# SPDX-License-Identifier: Apache-2.0
"""The processes of a soak: simulated pods, and gateways, each an Envoy with an endpoint picker of its own.

Every address is chosen before anything starts, so that what dies comes back where it was.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from epp.contract.errors import StartError
from epp.local.envoy import EnvoyConfig, bootstrap, find_envoy
from epp.local.ports import free_port
from epp.local.process import Child, spawn
from epp.transport.selfsigned import self_signed
from tests.soak.load import ID_HEADER

MODEL = "soak-model"
CONFIG = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: prefix-cache-scorer
    parameters:
      lruCapacityPerServer: 2000
  - type: load-aware-scorer
    parameters:
      threshold: 100
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: prefix-cache-scorer
        weight: 2.0
      - pluginRef: load-aware-scorer
        weight: 1.0
"""
START_S = 30.0
_HOST = "127.0.0.1"


class Pods:
    """Simulated pods at `addresses`, one process each."""

    def __init__(self, count: int, rng: random.Random, session: aiohttp.ClientSession) -> None:
        self.addresses = [
            f"127.0.2.{number + 1}:{free_port([f'127.0.2.{number + 1}'], 8000, rng)}" for number in range(count)
        ]
        self._children: dict[int, Child] = {}
        self._session = session

    async def start(self, number: int) -> None:
        """Start one, and return when it answers."""
        address = self.addresses[number]
        host, _, port = address.partition(":")
        argv = [sys.executable, "-m", "epp", "sim-pod", "--host", host, "--port", port, "--name", address]
        argv += ["--model", MODEL, "--seed", str(number), "--speed", "8", "--metrics-filter", "/metrics/"]
        self._children[number] = await spawn(f"pod {address}", argv)
        await self.answers(number)

    async def answers(self, number: int) -> None:
        """Wait until it does."""
        await _until_ok(self._session, f"http://{self.addresses[number]}/health", self._children[number])

    async def kill(self, number: int) -> None:
        """End one without warning."""
        self._children[number].kill()
        await self._children[number].ended

    def signal(self, number: int, what: signal.Signals) -> None:
        """Send a signal to one."""
        os.kill(self._children[number].pid, what)

    async def admin(self, method: str, number: int, path: str, body: Any = None) -> Any:
        """Call the admin path of one."""
        url = f"http://{self.addresses[number]}/sim/{path}"
        async with self._session.request(method, url, json=body) as response:
            told = await response.json()
            assert response.status == 200, told
            return told

    async def stop(self) -> None:
        """End all."""
        for child in self._children.values():
            if child.alive:
                os.kill(child.pid, signal.SIGCONT)
            await child.stop(1.0)


class Certificate:
    """A mounted secret, replaced as a kubelet does it: by swapping the symlink `..data`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self.rotate()
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(Path("..data") / name)

    def rotate(self) -> None:
        """A new pair, in one step."""
        self._count += 1
        version = self.folder / f"..version_{self._count}"
        version.mkdir()
        for name, data in zip(("tls.crt", "tls.key"), self_signed(), strict=True):
            (version / name).write_bytes(data)
        (self.folder / "..data_tmp").symlink_to(version.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")


class EndpointsFile:
    """The pods that are listed, rewritten in one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, addresses: list[str]) -> None:
        """List `addresses`."""
        split = [address.partition(":") for address in addresses]
        entries = [{"name": f"pod-{host}", "address": host, "port": port} for host, _, port in split]
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps({"endpoints": entries}))
        new.rename(self.path)


@dataclass
class Gateway:
    """Envoy and its endpoint picker. `lines` are what the picker logged that is no plain information."""

    name: str
    tls: bool
    folder: Path
    flags: list[str]
    port: int
    picker_port: int
    health_port: int
    metrics_port: int
    admin_port: int
    lines: list[str] = field(default_factory=list)
    picker: Child | None = None
    envoy: Child | None = None

    @property
    def url(self) -> str:
        """For clients."""
        return f"http://{_HOST}:{self.port}"

    @property
    def access_log(self) -> Path:
        """What Envoy says of requests that did not end well."""
        return self.folder / f"{self.name}.access"

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Start both."""
        await self.start_picker(session)
        document = bootstrap(EnvoyConfig(self.port, self.picker_port, self.admin_port, epp_tls=self.tls))
        manager = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["access_log"] = [_access_log(self.access_log)]
        config = self.folder / f"{self.name}.envoy.json"
        config.write_text(json.dumps(document))
        argv = [str(find_envoy()), "-c", str(config), "--concurrency", "1", "--log-level", "error"]
        argv += ["--disable-hot-restart", "--file-flush-interval-msec", "200"]
        self.envoy = await spawn(f"Envoy {self.name}", argv, self._note)
        await _until_ok(session, f"http://{_HOST}:{self.admin_port}/ready", self.envoy)

    async def start_picker(self, session: aiohttp.ClientSession) -> None:
        """Start the picker, and return when it is ready."""
        argv = [sys.executable, "-m", "epp", "serve", "--config-text", CONFIG, "--watch-loop", "--v", "2"]
        argv += ["--bind-address", _HOST, "--grpc-port", str(self.picker_port), "--drain-timeout", "1s"]
        argv += ["--grpc-health-port", str(self.health_port), "--metrics-port", str(self.metrics_port)]
        argv += [f"--secure-serving={str(self.tls).lower()}", *self.flags]
        self.picker = await spawn(f"the endpoint picker {self.name}", argv, self._note)
        await _until_ok(session, f"http://{_HOST}:{self.metrics_port}/readyz", self.picker)

    async def metrics(self, session: aiohttp.ClientSession) -> str:
        """The picker's page."""
        async with session.get(f"http://{_HOST}:{self.metrics_port}/metrics") as response:
            return await response.text()

    async def stop(self) -> None:
        """End both, Envoy first."""
        for child in (self.envoy, self.picker):
            if child is not None:
                await child.stop(3.0)

    def _note(self, line: str) -> None:
        try:
            level = json.loads(line)["level"]
        except (ValueError, KeyError, TypeError):
            level = "unreadable"
        if level not in ("info", "debug"):
            self.lines.append(line)


def _access_log(path: Path) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions.access_loggers"
    fields = {
        "id": f"%REQ({ID_HEADER})%",
        "host": "%UPSTREAM_HOST%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
    }
    compared = {"op": "GE", "value": {"default_value": 400, "runtime_key": "soak"}}
    filters = [{"status_code_filter": {"comparison": compared}}, {"response_flag_filter": {}}]
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"or_filter": {"filters": filters}},
        "typed_config": {
            "@type": f"{types}.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": {"json_format": fields},
        },
    }


async def _is_ok(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url, timeout=aiohttp.ClientTimeout(total=1.0)) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _until_ok(session: aiohttp.ClientSession, url: str, child: Child) -> None:
    """Wait until `child` answers there. Raises `StartError` with its last words when it ends, or takes too long."""
    deadline_s = time.monotonic() + START_S
    while not await _is_ok(session, url):
        if not child.alive or time.monotonic() > deadline_s:
            raise StartError(f"{child.describe_end()}, and does not answer at {url}: {' '.join(list(child.tail)[-3:])}")
        await asyncio.sleep(0.02)


def make_gateway(name: str, tls: bool, folder: Path, flags: list[str], rng: random.Random, taken: list[int]) -> Gateway:
    """A gateway on five free ports that are not in `taken`, to which they are added."""
    ports = []
    for _ in range(5):
        ports.append(free_port([_HOST], None, rng, taken))
        taken.append(ports[-1])
    return Gateway(name, tls, folder, flags, *ports)
