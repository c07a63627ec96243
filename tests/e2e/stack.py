# SPDX-License-Identifier: Apache-2.0
"""Real parts for tests: the service, real Envoy and pods as processes, each a context manager that ends what it started.

Ports are chosen by the system and read back, so that runs side by side do not meet. A part's output is collected by a
thread; `wait` returns as soon as a line is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from epp.contract.errors import StartError
from epp.local.envoy import EnvoyConfig, bootstrap, find_envoy

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
START_S = 30.0
PATIENCE_S = 30.0
"""What takes longer is taken for lost. A busy machine gets there, too."""
SEED_YAML = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
  - type: single-profile-handler
  - type: prefix-cache-scorer
  - type: load-aware-scorer
    parameters:
          threshold: 100
  - type: max-score-picker
schedulingProfiles:
  - name: default
    plugins:
      - pluginRef: prefix-cache-scorer
        weight: 2.0
      - pluginRef: load-aware-scorer
        weight: 1.0
      - pluginRef: max-score-picker
"""
"""The configuration of KServe's tutorial, as it stands there."""

# The child becomes the program; the kernel ends it when the tests die, however they die.
_GUARD = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

Record = dict[str, Any]


class Part:
    """A running process and its lines (stdout and stderr together, or stderr alone)."""

    def __init__(self, argv: Sequence[str], *, env: dict[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid())]
        self.process = subprocess.Popen(
            [*guard, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait(self, found: Callable[[str], Any], timeout_s: float = PATIENCE_S, since: int = 0) -> Any:
        """The first true value of `found(line)` over the lines from number `since` on, waiting for new ones."""
        deadline_s, at = time.monotonic() + timeout_s, since
        with self._news:
            while True:
                for line in self.lines[at:]:
                    value = found(line)
                    if value:
                        return value
                at = len(self.lines)
                left_s = deadline_s - time.monotonic()
                ended = self.process.poll() is not None and not self._reader.is_alive()
                if left_s <= 0 or ended:
                    what = f"ended with {self.process.returncode}" if ended else f"said nothing for {timeout_s:g} s"
                    raise AssertionError("\n".join([f"the process {what}; its last lines:", *self.lines[-20:]]))
                self._news.wait(min(left_s, 0.2))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)

    def ended(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(2.0)
        return code

    def stop(self) -> None:
        """End it now."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.ended()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()


@dataclass
class Page:
    """A metrics page: samples by name."""

    samples: dict[str, list[tuple[dict[str, str], float]]]

    def sum(self, name: str, /, **labels: str) -> float:
        """The sum over all series of `name` that have `labels`."""
        found = self.samples.get(name, [])
        return sum(value for have, value in found if labels.items() <= have.items())


def read_page(port: int) -> Page:
    """The metrics page on `port`."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as response:
        text = response.read().decode()
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return Page(samples)


class Epp(Part):
    """The service, serving. Every line of its log must be one JSON object."""

    port = health_port = metrics_port = 0

    def listening(self) -> Epp:
        """Wait until it serves, and learn its ports."""
        words = self.wait(lambda line: "serving ext_proc on port" in line and json.loads(line)["msg"]).split()
        self.port = int(words[words.index("port") + 1])
        self.health_port = int(words[words.index("health") + 2].rstrip(","))
        self.metrics_port = int(words[words.index("metrics") + 2])
        return self

    @property
    def records(self) -> list[Record]:
        """The log so far."""
        return [json.loads(line) for line in list(self.lines)]

    def metrics(self) -> Page:
        """Its metrics page."""
        return read_page(self.metrics_port)

    def handled(self, request_id: str) -> Record:
        """The line "Request handled" of one request."""

        def is_it(line: str) -> Record | None:
            if request_id not in line:
                return None
            record: Record = json.loads(line)
            return record if record["msg"] == "Request handled" and record["x-request-id"] == request_id else None

        found: Record = self.wait(is_it)
        return found

    def say(self, text: str, since: int = 0, timeout_s: float = PATIENCE_S) -> Record:
        """Wait for the log line whose message holds `text`."""
        found: Record = self.wait(lambda line: text in line and json.loads(line), timeout_s, since)
        return found

    def complaints(self, since: int = 0) -> list[str]:
        """Lines that are warnings, errors, or no log lines at all."""
        found = []
        for line in self.lines[since:]:
            try:
                if json.loads(line)["level"] in ("info", "debug"):
                    continue
            except (ValueError, KeyError):
                pass
            found.append(line)
        return found

    def settled(self, timeout_s: float = PATIENCE_S) -> Page:
        """Wait until no request is running, in every name of that count; the page that says so."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            page = self.metrics()
            names = ("llm_d_epp_request_running", "inference_objective_running_requests")
            running = {name: page.sum(name) for name in (*names, "inference_model_running_requests")}
            if not any(running.values()):
                return page
            assert time.monotonic() < deadline_s, f"requests never end: {running}"
            time.sleep(0.01)


@contextlib.contextmanager
def serving(*flags: str, env: dict[str, str] | None = None, wait: bool = True) -> Iterator[Epp]:
    """The service with `flags`, on ports of the system's choice unless they say otherwise."""
    defaults = {"grpc-port": "0", "grpc-health-port": "0", "metrics-port": "0", "bind-address": "127.0.0.1", "v": "3"}
    given = {flag.lstrip("-").partition("=")[0] for flag in flags}
    chosen = [f"--{name}={value}" for name, value in defaults.items() if name not in given]
    part = Epp([sys.executable, "-m", "epp", "serve", *chosen, *flags], env=env)
    try:
        yield part.listening() if wait else part
    finally:
        part.stop()


@dataclass
class PodPart:
    """Pods of one process."""

    part: Part
    addresses: list[str] = field(default_factory=list)


@contextlib.contextmanager
def pods(*places: str, metrics: str = "ok") -> Iterator[PodPart]:
    """Pods of `pod.py` in one process, on `places` (`127.0.0.1:0` for any free port)."""
    listen = [word for place in places for word in ("--listen", place)]
    part = Part([sys.executable, str(HERE / "pod.py"), *listen, "--metrics", metrics])
    try:
        ports = part.wait(lambda line: line.split())
        hosts = [place.rpartition(":")[0] for place in places]
        yield PodPart(part, [f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)])
    finally:
        part.stop()


class Envoy(Part):
    """Real Envoy, serving on `port`."""

    port = admin_port = 0


def envoy_binary() -> Path | None:
    """Envoy, where it is installed."""
    try:
        return find_envoy()
    except StartError:
        return None


Adapt = Callable[[dict[str, Any]], None]


@contextlib.contextmanager
def envoy(epp_port: int, *, adapt: Adapt | None = None, **config: Any) -> Iterator[Envoy]:
    """Envoy in front of the service on `epp_port`. `config` is of `EnvoyConfig`; `adapt` may change the bootstrap."""
    document = bootstrap(EnvoyConfig(port=0, epp_port=epp_port, admin_port=0, **config))
    for place in http_parts(document):
        place["enable_trailers"] = True
    if adapt is not None:
        adapt(document)
    binary = envoy_binary()
    assert binary is not None
    with tempfile.TemporaryDirectory() as folder:
        told, config_file = Path(folder) / "admin", Path(folder) / "bootstrap.json"
        # A document of many routes is too long for an argument.
        config_file.write_text(json.dumps(document))
        options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
        # Access logs are read while it runs.
        options += ["--file-flush-interval-msec", "20"]
        argv = [str(binary), "--config-path", str(config_file), "--admin-address-path", str(told), *options]
        part = Envoy(argv)
        try:
            _find_ports(part, told)
            yield part
        finally:
            part.stop()


def http_parts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The HTTP/1 options of the listener and of the pool's cluster."""
    yield connection_manager(document).setdefault("http_protocol_options", {})
    for cluster in document["static_resources"]["clusters"]:
        for options in cluster.get("typed_extension_protocol_options", {}).values():
            protocol = options["explicit_http_config"]
            if "http_protocol_options" in protocol:
                yield protocol["http_protocol_options"]


def connection_manager(document: dict[str, Any]) -> dict[str, Any]:
    """The HTTP connection manager of the listener."""
    [listener] = document["static_resources"]["listeners"]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _find_ports(part: Envoy, told: Path) -> None:
    deadline_s = time.monotonic() + START_S
    while True:
        assert part.process.poll() is None, "\n".join(["Envoy ended; its last lines:", *part.lines[-20:]])
        assert time.monotonic() < deadline_s, "Envoy is not ready"
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            part.admin_port = int(told.read_text().rpartition(":")[2])
            with urllib.request.urlopen(f"http://127.0.0.1:{part.admin_port}/ready", timeout=2) as response:
                ready = response.status == 200
            listeners = f"http://127.0.0.1:{part.admin_port}/listeners?format=json"
            with urllib.request.urlopen(listeners, timeout=2) as response:
                address = json.loads(response.read())["listener_statuses"][0]["local_address"]
            part.port = int(address["socket_address"]["port_value"])
            if ready and part.port:
                return
        time.sleep(0.02)


@dataclass
class Stack:
    """Pods, the service and Envoy, put together."""

    epp: Epp
    envoy: Envoy
    pods: PodPart

    @property
    def port(self) -> int:
        """The gateway."""
        return self.envoy.port


@contextlib.contextmanager
def stack(*flags: str, count: int = 2, tls: bool = True, adapt: Adapt | None = None, **config: Any) -> Iterator[Stack]:
    """`count` pods in one process, the service with `flags`, Envoy with `config`."""
    with contextlib.ExitStack() as parts:
        served = parts.enter_context(pods(*["127.0.0.1:0"] * count))
        endpoints = f"--endpoints={','.join(served.addresses)}"
        picker = parts.enter_context(serving(endpoints, f"--secure-serving={str(tls).lower()}", *flags))
        gateway = parts.enter_context(envoy(picker.port, adapt=adapt, epp_tls=tls, **config))
        yield Stack(picker, gateway, served)
