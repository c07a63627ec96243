# SPDX-License-Identifier: Apache-2.0
"""The admin HTTP server: what it serves, and that nothing a client does makes it say more than a line."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.admin import Admin
from epp.contract.endpoints import Columns
from epp.contract.errors import StartError
from epp.observe.log.logs import open_log
from epp.observe.recorder import Recorder
from epp.testing import FakeClock
from tests.ipv6 import needs_ipv6

HOST = "127.0.0.1"


class Nowhere:
    def write(self, data: bytes | bytearray) -> None:
        pass


@contextlib.contextmanager
def admin(
    missing: list[str | None] | None = None, host: str = HOST, notes: Sequence[str] = ()
) -> Iterator[tuple[Admin, Recorder]]:
    """A server with a real recorder; `missing[0]` is what is not ready."""
    columns, clock = Columns(4), FakeClock()
    log = open_log(Nowhere())
    recorder = Recorder(log, lambda: columns, clock, pool_name="p", staleness_s=2.0, version="1.2.3")
    server = Admin(host, 0, recorder.registry, lambda: missing[0] if missing else None, notes=lambda: notes)
    try:
        yield server, recorder
    finally:
        server.close()
        log.close()


def get(
    port: int, path: str, method: str = "GET", host: str = HOST, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_the_metrics_page() -> None:
    with admin() as (server, recorder):
        recorder.metrics.series("m", "m", "default-flow", 0).started(10)
        for path in ("/metrics", "/metrics/", "/metrics?x=1"):
            status, headers, body = get(server.port, path)
            assert status == 200
            assert headers["content-type"].startswith("text/plain; version=")
            assert headers["content-length"] == str(len(body))
        samples = {s.name: s for f in text_string_to_metric_families(body.decode()) for s in f.samples}
        assert samples["inference_model_running_requests"].value == 1
        assert samples["llm_d_epp_info"].labels["build_ref"] == "1.2.3"
        assert b"_bucket{" in body
        assert b'le="1.0"' not in body


def test_probes() -> None:
    missing: list[str | None] = ["endpoints are not known yet"]
    with admin(missing) as (server, _):
        assert get(server.port, "/healthz")[::2] == (200, b"ok\n")
        assert get(server.port, "/livez")[::2] == (200, b"ok\n")
        assert get(server.port, "/readyz")[::2] == (503, b"endpoints are not known yet\n")
        missing[0] = None
        assert get(server.port, "/readyz")[::2] == (200, b"ok\n")


def test_what_is_degraded_is_on_the_page_ready_or_not() -> None:
    missing: list[str | None] = [None]
    with admin(missing, notes=["pods: may not be read", "leases: neither"]) as (server, _):
        assert get(server.port, "/readyz")[::2] == (200, b"ok\npods: may not be read\nleases: neither\n")
        missing[0] = "there is no endpoint"
        assert get(server.port, "/readyz")[::2] == (
            503,
            b"there is no endpoint\npods: may not be read\nleases: neither\n",
        )


def test_other_paths_say_what_there_is() -> None:
    with admin() as (server, _):
        status, _, body = get(server.port, "/nothing")
        assert (status, body) == (404, b"/nothing is not served here; try /metrics, /healthz, /readyz\n")


@needs_ipv6
def test_over_ipv6() -> None:
    with admin(host="::") as (server, _):
        assert get(server.port, "/healthz", host="::1")[0] == 200
        assert get(server.port, "/healthz", host=HOST)[0] == 200


def test_a_port_that_is_taken_is_one_line() -> None:
    with admin() as (server, recorder), pytest.raises(StartError) as failure:
        Admin(HOST, server.port, recorder.registry, lambda: None)
    assert str(failure.value).startswith(f"--metrics-port {server.port} on {HOST} cannot be used: ")
    assert str(failure.value).endswith("choose another port")


def test_a_page_that_cannot_be_made_is_one_line(caplog: Any, capfd: Any) -> None:
    def fail() -> dict[str, float]:
        raise RuntimeError("broken reading")

    with admin() as (server, recorder), caplog.at_level(logging.ERROR, "epp.service"):
        recorder.plugin_errors = fail
        status, _, body = get(server.port, "/metrics")
        assert (status, body) == (500, b"the metrics page could not be made; the log says why\n")
        assert get(server.port, "/healthz")[0] == 200
    [record] = caplog.records
    assert "broken reading" in record.getMessage()
    assert capfd.readouterr().err == ""


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


RUDE = {
    "says nothing": b"",
    "half a line": b"GET /met",
    "no HTTP": b"\x16\x03\x01\x02\x00hello\r\n\r\n",
    "a whole request, gone": b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
    "an endless line": b"GET /" + b"x" * 70_000,
}


@pytest.mark.parametrize("data", RUDE.values(), ids=RUDE)
def test_rude_clients_leave_no_trace(data: bytes, capfd: Any) -> None:
    with admin() as (server, _):
        for leave in (reset, socket.socket.close):
            sock = socket.create_connection((HOST, server.port))
            with contextlib.suppress(OSError):
                sock.sendall(data)
            leave(sock)
        assert get(server.port, "/healthz")[0] == 200
        for thread in threading.enumerate():
            if "process_request_thread" in thread.name:
                thread.join(5)
    assert capfd.readouterr().err == ""


def test_scrapes_while_endpoints_come_and_go() -> None:
    """The page is made on another thread than the counting."""
    with admin() as (server, recorder):
        done = threading.Event()
        seen: list[int] = []

        def scrape() -> None:
            while not done.is_set():
                seen.append(get(server.port, "/metrics")[0])

        scrapers = [threading.Thread(target=scrape) for _ in range(2)]
        for scraper in scrapers:
            scraper.start()
        for number in range(2000):
            series = recorder.metrics.series(f"m{number}", f"m{number}", "f", 0)
            series.started(1)
            series.failed("BadRequest")
            recorder.metrics.scheduled(1e-4, False, None, f"m{number}")
        done.set()
        for scraper in scrapers:
            scraper.join()
        assert set(seen) == {200}
