# SPDX-License-Identifier: Apache-2.0
"""Nothing holds the event loop up: the service runs in this process, and a task watches the time between two turns.

What counts is for how long the loop could not turn although the system let it run: the time its thread waited for a
processor is taken off, so that a busy machine does not make the test fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import uvloop

from epp.observe.log.bridge import bridge
from epp.observe.log.logs import open_log
from epp.service.flags.parsing import parse
from epp.service.process import Process
from tests.e2e.stack import ROOT, envoy, pods

pytestmark = pytest.mark.envoy

LONGEST_S = 0.1
TURN_S = 0.005
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: active-request-scorer
schedulingProfiles:
- name: {name}
  plugins:
  - pluginRef: prefix-cache-scorer
    weight: 2
  - pluginRef: active-request-scorer
"""

# The load, in a process of its own: many small requests, some of megabytes, some packed, and a scraper.
LOAD = """\
import asyncio, gzip, random, sys, threading, urllib.request, uvloop
from tests.e2e.client import JSON, Load, chat, head
port, metrics_port, total = map(int, sys.argv[1:])
text = " ".join(random.Random(1).choices("alpha beta gamma delta epsilon".split(), k=700_000))
def body(n):
    if n % 100 == 50:
        return chat(f"{n} {text[:1_000_000 + n]}")
    if n % 100 == 51:
        return gzip.compress(chat(f"{n} {text[n:]}"), 1)
    return chat(f"group {n % 16}, " * 200 + str(n))
def request(n):
    data = body(n)
    packed = {"content-encoding": "gzip"} if n % 100 == 51 else {}
    return head("POST", "/v1/chat/completions", {**JSON, **packed, "content-length": str(len(data))}) + data
load, done = Load(port, request, connections=16, total=total), threading.Event()
def scrape():
    while not done.wait(0.1):
        urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics").read()
threading.Thread(target=scrape, daemon=True).start()
uvloop.run(load.run())
done.set()
print(dict(load.answers), load.failed)
"""


class Lines:
    """Takes the log."""

    def __init__(self) -> None:
        self.records: list[dict[str, object]] = []

    def write(self, data: bytes | bytearray) -> None:
        self.records += map(json.loads, bytes(data).splitlines())

    def message(self, text: str) -> str:
        return next((str(r["msg"]) for r in self.records if text in str(r["msg"])), "")


def waited_for_processor_s() -> float:
    """For how long this thread was ready to run and did not, since it began; 0 where the system does not tell."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


async def watch(gaps: list[float]) -> None:
    """Note how much later than asked for each turn comes."""
    while True:
        began_s, waited_s = time.perf_counter(), waited_for_processor_s()
        await asyncio.sleep(TURN_S)
        late_s = time.perf_counter() - began_s - TURN_S
        gaps.append(late_s - (waited_for_processor_s() - waited_s))


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


def entries(addresses: Sequence[str], port: str) -> str:
    return json.dumps({"endpoints": [{"name": f"pod-{ip}", "address": ip, "port": port} for ip in addresses]})


@pytest.mark.timeout(150)
def test_the_loop_turns_whatever_comes(tmp_path: Path) -> None:
    config, file = tmp_path / "config.yaml", tmp_path / "endpoints.json"
    config.write_text(CONFIG.format(name="p0"))
    with pods("0.0.0.0:0") as served:
        port = served.addresses[0].rpartition(":")[2]
        # One pod under two hundred addresses.
        addresses = [f"127.0.1.{n}" for n in range(1, 201)]
        file.write_text(entries(addresses, port))
        argv = ["--bind-address=127.0.0.1", "--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]
        flags = [f"--config-file={config}", f"--endpoints-file={file}", "--refresh-metrics-interval=1s", "--seed=1"]
        options = parse([*argv, *flags], {})
        stream, gaps = Lines(), list[float]()
        log = open_log(stream)
        undo = bridge(log)
        try:
            output = uvloop.run(run_with_load(Process(options, log), stream, gaps, config, file, addresses, port))
        finally:
            undo()
            log.close()
            gc.unfreeze()
    assert output == "{200: 1500} {}\n"
    assert stream.message("configuration kept as it is; the changed one is wrong")
    assert stream.message("changed and is in use")
    assert stream.message(": 100 endpoints")
    assert [r for r in stream.records if r["level"] == "error" and "kept as it is" not in str(r["msg"])] == []
    assert max(gaps) < LONGEST_S, f"the loop was held up for {max(gaps) * 1e3:.0f} ms"


async def run_with_load(
    process: Process, stream: Lines, gaps: list[float], config: Path, file: Path, addresses: list[str], port: str
) -> str:
    """Serve, put it under load, change its files meanwhile, stop it; what the load said."""
    loop = asyncio.get_running_loop()
    service = asyncio.create_task(process.serve())
    while not stream.message("serving ext_proc on port"):
        assert not service.done(), stream.records
        await asyncio.sleep(0.02)
    words = stream.message("serving ext_proc on port").split()
    epp_port, metrics_port = int(words[words.index("port") + 1]), int(words[-1])

    def load() -> str:
        with envoy(epp_port) as gateway:
            argv = [sys.executable, "-c", LOAD, str(gateway.port), str(metrics_port), "1500"]
            env = {**os.environ, "PYTHONPATH": str(ROOT)}
            return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=True).stdout

    watching = asyncio.create_task(watch(gaps))
    working = loop.run_in_executor(None, load)
    changes = 0
    while not working.done() or changes < 3:
        changes += 1
        text = "plugins: [{type: nothing}]" if changes == 2 else CONFIG.format(name=f"p{changes}")
        await asyncio.to_thread(replace, config, text)
        await asyncio.to_thread(replace, file, entries(addresses[: 100 * (changes % 2) or 200], port))
        await asyncio.wait([working], timeout=1.5)
    watching.cancel()
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(service, 20) == 0
    return await working
