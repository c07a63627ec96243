# SPDX-License-Identifier: Apache-2.0
"""Many requests through real Envoy: none is lost, also while pods die, come back, leave and join."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import uvloop

from tests.e2e.client import JSON, Load, chat, head
from tests.e2e.stack import SEED_YAML, Epp, PodPart, Stack, envoy, pods, serving, stack

pytestmark = pytest.mark.envoy


def numbered(number: int, prefix: str = "r", do: str = "") -> bytes:
    """A request of two kilobytes with its number as id; every eighth shares its beginning."""
    body = chat(f"group {number % 8}, " * 150 + f"request {number}")
    fields = {**JSON, "x-request-id": f"{prefix}-{number}", "content-length": str(len(body))}
    return head("POST", "/v1/chat/completions", fields | ({"x-do": do} if do else {})) + body


def statistic(admin_port: int, name: str) -> int:
    """One of Envoy's counters."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/stats?filter=^{name}$", timeout=5) as response:
        return int(response.read().decode().rpartition(":")[2])


@pytest.mark.timeout(180)
def test_20000_requests_on_one_connection_lose_none() -> None:
    total = 20_000
    with stack("--config-text", SEED_YAML, count=4) as running:
        load = Load(running.port, numbered, connections=48, total=total)
        uvloop.run(load.run())
        assert (load.failed, load.answers) == ({}, {200: total})
        page = running.epp.settled()
        assert page.sum("inference_model_request_total") == total
        # 178: the output tokens of the pod's answer.
        assert page.sum("inference_model_output_tokens_sum") == 178 * total
        assert set(load.by_pod) == set(running.pods.addresses)
        assert running.epp.complaints() == []
        assert statistic(running.envoy.admin_port, "cluster.epp.upstream_cx_total") == 1


class Fleet:
    """Pods with a process each, and the endpoints file that lists some of them."""

    def __init__(self, file: Path, parts: contextlib.ExitStack, count: int) -> None:
        self._file = file
        self._parts = parts
        self.running: dict[str, PodPart] = {}
        for _ in range(count):
            self.start("127.0.0.1:0")
        self.addresses = list(self.running)
        self.list(self.addresses)

    def start(self, place: str) -> None:
        """Start a pod at `place`."""
        pod = self._parts.enter_context(pods(place))
        [address] = pod.addresses
        self.running[address] = pod

    def kill(self, address: str) -> None:
        """End a pod without warning."""
        self.running[address].part.stop()

    def list(self, addresses: Sequence[str]) -> None:
        """Rewrite the endpoints file, all at once."""
        entries = [
            {"name": f"pod-{address.rpartition(':')[2]}", "address": address.rpartition(":")[0], "port": port}
            for address in addresses
            if (port := address.rpartition(":")[2])
        ]
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"endpoints": entries}))
        new.rename(self._file)


@contextlib.contextmanager
def fleet(folder: Path, count: int = 4) -> Iterator[tuple[Fleet, Stack]]:
    """`count` pods, the service that reads their file, and Envoy."""
    file = folder / "endpoints.json"
    with contextlib.ExitStack() as parts:
        made = Fleet(file, parts, count)
        flags = ("--config-text", SEED_YAML, f"--endpoints-file={file}", "--seed=1")
        with serving(*flags) as epp, envoy(epp.port) as gateway:
            yield made, Stack(epp, gateway, PodPart(made.running[made.addresses[0]].part, made.addresses))


def chosen(epp: Epp) -> dict[int, str]:
    """Which address each numbered request was sent to."""
    found = {}
    for record in epp.records:
        if record["msg"] == "Request handled":
            found[int(record["x-request-id"].rpartition("-")[2])] = record["decision"]["address"]
    return found


@pytest.mark.timeout(180)
def test_only_requests_of_a_dead_pod_fail(tmp_path: Path) -> None:
    with fleet(tmp_path) as (made, running):
        victim = made.addresses[0]
        load = Load(running.port, numbered, connections=64)

        async def disturb() -> None:
            work = asyncio.ensure_future(load.run())
            for _ in range(2):
                await asyncio.sleep(1.0)
                await asyncio.to_thread(made.kill, victim)
                await asyncio.sleep(0.7)
                await asyncio.to_thread(made.start, victim)
            await asyncio.sleep(1.5)
            load.stop()
            await work

        uvloop.run(disturb())
        where = chosen(running.epp)
        strangers = {n: (where.get(n), why) for n, why in load.failed.items() if where.get(n) != victim}
        assert strangers == {}
        assert load.answers[200] > 1000
        # It is used again once it is back.
        assert victim in {where[n] for n in range(load.sent - 400, load.sent) if n in where}
        running.epp.settled()
        warnings = [json.loads(line)["msg"] for line in running.epp.complaints()]
        assert all(f"pod-{victim.rpartition(':')[2]}: metrics cannot be read" in text for text in warnings)


@pytest.mark.timeout(180)
def test_pods_that_leave_and_join_cost_no_request(tmp_path: Path) -> None:
    with fleet(tmp_path) as (made, running):
        load = Load(running.port, numbered, connections=64)
        kept, leaving = made.addresses[:2], made.addresses[2:]

        async def disturb() -> None:
            work = asyncio.ensure_future(load.run())
            for listed in (kept, made.addresses, leaving, made.addresses):
                since = len(running.epp.lines)
                made.list(listed)
                await asyncio.to_thread(running.epp.say, f"{len(listed)} endpoints", since)
                await asyncio.sleep(0.3)
            load.stop()
            await work

        uvloop.run(disturb())
        assert load.failed == {}
        assert set(load.answers) == {200}
        assert set(load.by_pod) == set(made.addresses)
        running.epp.settled()
        assert running.epp.complaints() == []


def test_an_endpoint_that_left_gets_no_new_request(tmp_path: Path) -> None:
    with fleet(tmp_path, count=2) as (made, running):
        kept, _ = made.addresses
        since = len(running.epp.lines)
        made.list([kept])
        running.epp.say("1 endpoints", since)
        load = Load(running.port, numbered, connections=8, total=100)
        began_s = time.monotonic()
        uvloop.run(load.run())
        assert time.monotonic() - began_s < 60
        assert load.by_pod == {kept: 100}
