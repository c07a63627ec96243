# SPDX-License-Identifier: Apache-2.0
"""What every attack is measured by: the process under attack, and a well-behaved peer that keeps calling it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.hostile.wire import Peer, Seen

ROOT = Path(__file__).parent.parent.parent
MIB = 1 << 20


class Server:
    """The process. `figures` asks it for its own."""

    def __init__(self, process: subprocess.Popen[str], log: Any) -> None:
        self.process = process
        self._log = log
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.strip().isdigit(), self.logged()
        self.port = int(line)

    def figures(self) -> dict[str, Any]:
        """Memory now and at its peak, the longest hold of the loop since the last question, open calls."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("?\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the server ended\n{self.logged()}"
        found: dict[str, Any] = json.loads(line)
        return found

    def logged(self) -> str:
        """Everything it logged."""
        self._log.flush()
        return Path(self._log.name).read_text()


@contextlib.contextmanager
def running(**told: Any) -> Iterator[Server]:
    """The server in a process; a traceback in its log is an error."""
    with tempfile.NamedTemporaryFile("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.target", json.dumps(told)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            server = Server(process, log)
            yield server
            server.figures()
            assert "Traceback" not in server.logged(), server.logged()
        finally:
            process.kill()
            process.communicate()


class Bystander(threading.Thread):
    """Calls on a connection of its own until it is told to stop. Every call must be answered."""

    def __init__(self, port: int, **how: Any) -> None:
        super().__init__(daemon=True)
        self.peer = Peer(port, **how)
        self.answered = 0
        self.failed = ""
        self._over = threading.Event()

    def run(self) -> None:
        stream_id = 1
        try:
            while not self._over.is_set():
                seen = self.ask(stream_id)
                if seen.status != "0" or self.peer.goaway is not None:
                    self.failed = f"call {self.answered}: {seen}, goaway {self.peer.goaway}"
                    return
                self.answered += 1
                stream_id += 2
                self.peer.streams.clear()
                self._over.wait(0.002)
        except Exception as error:
            self.failed = f"call {self.answered}: {error!r}"

    def ask(self, stream_id: int) -> Seen:
        """One call to its end."""
        return self.peer.call(stream_id)

    def __enter__(self) -> Bystander:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        before = self.answered
        while kind is None and self.is_alive() and self.answered == before:
            self.join(0.01)  # One more call after the attack.
        self._over.set()
        self.join(30)
        self.peer.close()
        if kind is None:
            assert not self.failed, self.failed
            assert self.answered


@contextlib.contextmanager
def attacked(server: Server, most_bytes: int, **how: Any) -> Iterator[None]:
    """While a test attacks: a bystander is answered, and the server's memory peaks below `most_bytes` more."""
    before = server.figures()
    with Bystander(server.port, **how):
        yield
    after = server.figures()
    grown = after["peak_bytes"] - before["now_bytes"]
    print(f"memory +{grown / MIB:.1f} MiB at its peak, loop held {after['held_s'] * 1000:.0f} ms")
    assert grown < most_bytes, f"memory grew by {grown / MIB:.1f} MiB, at most {most_bytes / MIB:g} are allowed"
