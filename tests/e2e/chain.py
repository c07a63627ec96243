# SPDX-License-Identifier: Apache-2.0
"""`epp up -f` as a process, for tests of the whole chain: started on free ports, asked, ended, and nothing left."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.e2e.client import Answer, post
from tests.e2e.stack import PATIENCE_S, ROOT, Page, Part, read_page

SAMPLES = ROOT / "deploy" / "local"
TUTORIALS = [
    ROOT / "tests" / "manifests" / "data" / name for name in ("inferenceservice.yaml", "llminferenceservice.yaml")
]
"""The manifests of the two tutorials, word for word."""
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
LLAMA = "llama3-1b"
POOL = "kserve-test/qwen-instruct-inference-pool"


def poem(model: str, **more: Any) -> bytes:
    """The body of the tutorials' command."""
    messages = [
        {"role": "system", "content": "You are a poet."},
        {"role": "user", "content": "Write a poem about clouds."},
    ]
    return json.dumps({"model": model, "messages": messages, **more}).encode()


class Chain(Part):
    """A running `epp up -f`."""

    report: dict[str, Any]

    def started(self) -> Chain:
        """Wait until everything answers."""
        self.report = self.wait(lambda line: line.startswith('{"url"') and json.loads(line), 60.0)
        return self

    @property
    def port(self) -> int:
        """The first listener."""
        return int(self.report["url"].rpartition(":")[2])

    def page(self, part: str) -> Page:
        """A metrics page; `part` is a piece of its name in the report."""
        [port] = [port for name, port in self.report["metrics"].items() if part in name]
        return read_page(port)

    def children(self) -> dict[int, str]:
        """Process id and command line of every part that runs now."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid and fields[0] != "Z":
                    found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text().replace("\0", " ")
        return found

    def child(self, words: str) -> int:
        """The process id of the part whose command line matches."""
        [pid] = [pid for pid, command in self.children().items() if re.search(words, command)]
        return pid

    def ask(self, model: str, user: str = "user123", **more: Any) -> Answer:
        """The tutorials' request."""
        return post(self.port, poem(model, **more), {"x-user-id": user} if user else {})

    def pods(self) -> dict[str, dict[str, Any]]:
        """What each simulated pod counted, by name: docs/sim-pod.md."""
        servers = {name: place for pool in self.report["pools"].values() for name, place in pool.items()}
        for backend in self.report["backends"].values():
            servers |= {place: place for place in backend}
        found = {}
        for name, place in servers.items():
            with urllib.request.urlopen(f"http://{place}/sim/state", timeout=PATIENCE_S) as response:
                found[name] = json.loads(response.read())
        return found


@contextlib.contextmanager
def chain(*arguments: str | Path, env: dict[str, str] | None = None, speed: float = 1000.0) -> Iterator[Chain]:
    """`epp up -f` on free ports with these arguments. Its end by SIGTERM must leave no process."""
    argv = [sys.executable, "-m", "epp", "up", "--port", "0", "--json", "--requests", "0", f"--speed={speed:g}"]
    part = Chain([*argv, *map(str, arguments)], env=env)
    try:
        yield part.started()
        children = part.children()
        part.signal(15)
        assert part.ended() == 0, part.lines[-20:]
        assert "everything is stopped" in part.lines[-1]
        until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in children))
    finally:
        part.stop()


def within_one_hour(seconds: float = 15.0) -> None:
    """Wait, if need be, until the hour will last so long: limits of an hour begin anew with it."""
    left_s = 3600 - time.time() % 3600
    if left_s < seconds:
        time.sleep(left_s + 0.1)


def until(true: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true value, asked again and again."""
    deadline_s = time.monotonic() + patience_s
    while True:
        value = true()
        if value:
            return value
        assert time.monotonic() < deadline_s, "it does not come true"
        time.sleep(0.02)
