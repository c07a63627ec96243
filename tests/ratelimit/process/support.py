# SPDX-License-Identifier: Apache-2.0
"""The rate limit service as a process, and a client of it that knows nothing of ours but the bytes of its messages."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit import v3 as common
from envoy_data_plane.envoy.service.ratelimit import v3 as rls

from tests.e2e.stack import PATIENCE_S, Page, Part, read_page

DOMAIN = "kserve-test/ai-gateway/http"
METHOD = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
OK, OVER = rls.RateLimitResponseCode.OK, rls.RateLimitResponseCode.OVER_LIMIT


def rules(requests: int = 1000, unit: str = "hour", domain: str = DOMAIN, more: str = "") -> str:
    """The seed's limit in the Go form: so much for every user of every route."""
    return f"""\
domain: {domain}
descriptors:
  - key: route
    descriptors:
      - key: rule-0-match-0
        rate_limit: {{unit: {unit}, requests_per_unit: {requests}}}
{more}"""


class Service(Part):
    """The process, serving on `port`, its pages on `pages_port`."""

    port = pages_port = 0

    def listening(self) -> Service:
        """Wait until it serves, and learn its ports."""
        line = self.say("serving rate limits on")
        self.port = int(line.split(" on ", 1)[1].split()[0].rpartition(":")[2])
        self.pages_port = int(line.split("pages on ", 1)[1].partition(":")[0])
        return self

    def say(self, text: str, since: int = 0) -> str:
        """Wait for the log line with `text`; its message."""
        message: str = self.wait(lambda line: text in line and json.loads(line)["msg"], since=since)
        return message

    def complaints(self) -> list[str]:
        """Messages of warnings and errors so far, and lines that are no log lines."""
        found = []
        for line in list(self.lines):
            record = json.loads(line) if line.startswith("{") else {"level": "?", "msg": line}
            if record["level"] not in ("info", "debug"):
                found.append(record["msg"])
        return found

    def metrics(self) -> Page:
        """Its metrics page."""
        return read_page(self.pages_port)

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.pages_port}{path}", timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@contextlib.contextmanager
def serving(config: Path, *flags: str, env: dict[str, str] | None = None, wait: bool = True) -> Iterator[Service]:
    """The service, on ports of the system's choice unless the flags say otherwise."""
    defaults = {"port": "0", "metrics-port": "0", "drain-timeout": "0s"}
    given = {flag.lstrip("-").partition("=")[0] for flag in flags}
    chosen = [f"--{name}={value}" for name, value in defaults.items() if name not in given]
    argv = [sys.executable, "-m", "epp", "ratelimit", "--config", str(config), *chosen, *flags]
    part = Service(argv, env={"REDIS_URL": "", **(env or {})})
    try:
        yield part.listening() if wait else part
    finally:
        part.stop()


PASSWORD = "very-secret"


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@contextlib.contextmanager
def redis(folder: Path, port: int) -> Iterator[Part]:
    """A real Redis server with a password, that keeps nothing on disk; skips where there is none."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    options = {"port": str(port), "bind": "127.0.0.1", "save": "", "dir": str(folder), "requirepass": PASSWORD}
    part = Part([binary, *[word for key, value in options.items() for word in (f"--{key}", value)]])
    try:
        part.wait(lambda line: "eady to accept connections" in line)
        yield part
    finally:
        part.stop()


def request(*entries: tuple[str, str], addend: int | None = None, domain: str = DOMAIN) -> rls.RateLimitRequest:
    """A call with one descriptor."""
    return rls.RateLimitRequest(
        domain=domain,
        descriptors=[
            common.RateLimitDescriptor(
                entries=[common.RateLimitDescriptorEntry(key=key, value=value) for key, value in entries],
                hits_addend=addend,
            )
        ],
    )


def of_user(user: str, addend: int | None = None) -> rls.RateLimitRequest:
    """What the seed's policy makes of a request of `user`."""
    return request(("route", "kserve-test/route/rule/0"), ("rule-0-match-0", user), addend=addend)


class Client:
    """grpcio's client with envoy-data-plane's messages."""

    def __init__(self, channel: Any) -> None:
        self._call = channel.unary_unary(
            METHOD, request_serializer=bytes, response_deserializer=rls.RateLimitResponse.parse
        )

    def ask(self, message: rls.RateLimitRequest, timeout_s: float = PATIENCE_S) -> Any:
        """The answer (of an aio channel: to be awaited)."""
        return self._call(message, timeout=timeout_s)


@contextlib.contextmanager
def client(port: int, credentials: grpc.ChannelCredentials | None = None) -> Iterator[Client]:
    """A client of the service on `port`."""
    place = f"127.0.0.1:{port}"
    options = [("grpc.use_local_subchannel_pool", 1)]
    if credentials is None:
        channel = grpc.insecure_channel(place, options=options)
    else:
        named = [*options, ("grpc.ssl_target_name_override", "localhost")]
        channel = grpc.secure_channel(place, credentials, options=named)
    with channel:
        yield Client(channel)
