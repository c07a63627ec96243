# SPDX-License-Identifier: Apache-2.0
"""Two hundred small pools in one process: each answers its own requests, and together they cost little.

What is measured is printed (`pytest -s`); memory alone is bounded, and generously: it is the one figure that a busy
machine does not change.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.e2e.client import chat, post
from tests.e2e.stack import envoy, pods, serving
from tests.e2e.test_many_pools import routed

pytestmark = pytest.mark.envoy

POOLS, ENDPOINTS = 200, 4
MOST_BYTES_A_POOL = 1 << 20
"""Resident, with a request each; about 80 KiB before the first one."""


def address(pool: int, endpoint: int) -> str:
    return f"127.{1 + pool // 100}.{pool % 100}.{endpoint + 1}"


def resident_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Rss:"))


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
def test_two_hundred_pools(tmp_path: Path) -> None:
    with pods("0.0.0.0:0") as served:
        port = served.addresses[0].rpartition(":")[2]
        for pool in range(POOLS):
            entries = [f"- {{name: e{at}, address: {address(pool, at)}, port: {port}}}" for at in range(ENDPOINTS)]
            (tmp_path / f"team.pool-{pool}.yaml").write_text("\n".join(["endpoints:", *entries, ""]))
        began_s = time.monotonic()
        flags = (f"--endpoints-dir={tmp_path}", "--secure-serving=false", "--metrics-idle-interval=5s", "-v=2")
        ways = {str(pool): (f"pool-{pool}.team.svc:9002", {}) for pool in range(POOLS)}
        with serving(*flags) as epp, envoy(epp.port, adapt=routed(ways), epp_tls=False) as gateway:
            epp.say(f"pools known: {POOLS}")
            pid, known_s = epp.process.pid, time.monotonic() - began_s
            before_bytes = resident_bytes(pid)
            for pool in range(POOLS):
                answer = post(gateway.port, chat("hello " * 200), {"x-way": str(pool), "x-do": "echo"})
                assert answer.status == 200, answer
                chosen = dict(answer.json()["headers"])["x-gateway-destination-endpoint"].rpartition(":")[0]
                assert chosen in [address(pool, at) for at in range(ENDPOINTS)]
            after_bytes = resident_bytes(pid)
            page = epp.settled()
            assert page.sum("epp_pools") == POOLS
            assert page.sum("llm_d_epp_request_total") == POOLS
            assert after_bytes < POOLS * MOST_BYTES_A_POOL + (100 << 20)
            print(
                f"\n{POOLS} pools x {ENDPOINTS}: known after {known_s:.1f} s; resident {before_bytes / 2**20:.0f} MiB, "
                f"after a request each {after_bytes / 2**20:.0f} MiB; processor {processor_s(pid):.1f} s"
            )
