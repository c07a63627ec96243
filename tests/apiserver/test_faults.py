# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on demand: the server away, watches dropped, patience asked for, slowness. And nothing is left."""

from __future__ import annotations

import gc
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.apiserver.client import PODS, POOLS, Client, seen
from tests.apiserver.objects import pod
from tests.apiserver.server import ApiServer

BROKEN = (http.client.HTTPException, OSError)


def test_away_and_back_at_the_same_port(server: ApiServer, client: Client) -> None:
    server.apply(pod("a", "10.0.0.1", {}))
    watch = client.open(PODS, timeoutSeconds=600)
    assert seen(json.loads(watch.readline())) == ("ADDED", "a")
    url = server.url
    server.away()
    with pytest.raises(BROKEN):
        watch.read()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), timeout=5)
    server.apply(pod("b", "10.0.0.1", {}))
    server.back()
    assert server.url == url
    with Client(server) as other:
        assert len(other.get(PODS).body["items"]) == 2
    server.away()
    server.away()
    server.back()
    server.back()


def test_watches_that_end_in_order(server: ApiServer, client: Client) -> None:
    server.apply(pod("a", "10.0.0.1", {}))
    events = client.watch(PODS, timeoutSeconds=600)
    next(events)
    server.drop_watches()
    assert list(events) == []
    assert client.get(PODS).code == 200


def test_watches_that_break_in_the_middle(server: ApiServer, client: Client) -> None:
    server.apply(pod("a", "10.0.0.1", {}))
    events = client.watch(PODS, timeoutSeconds=600)
    next(events)
    server.drop_watches(torn=True)
    with pytest.raises((*BROKEN, json.JSONDecodeError)):
        next(events)
    server.wait(lambda: server.watching == 0)


def test_patience(server: ApiServer, client: Client) -> None:
    server.throttle(2, 3)
    for _ in range(2):
        answer = client.get(PODS)
        assert (answer.code, answer.headers["Retry-After"]) == (429, "3")
        assert answer.body == b"Too many requests, please try again later.\n"
    server.throttle(1, 1, as_status=True)
    answer = client.get(PODS)
    assert (answer.code, answer.body["reason"], answer.body["details"]) == (
        429,
        "TooManyRequests",
        {"retryAfterSeconds": 1},
    )
    assert client.get(PODS).code == 200


@pytest.mark.parametrize(("code", "reason"), [(500, "InternalError"), (503, "ServiceUnavailable"), (504, "Timeout")])
def test_the_servers_own_failures(server: ApiServer, client: Client, code: int, reason: str) -> None:
    server.fail(1, code)
    answer = client.get(POOLS)
    assert (answer.code, answer.body["reason"]) == (code, reason)
    assert client.get(POOLS).code == 200


def test_slowness(server: ApiServer, client: Client) -> None:
    server.slow(0.2)
    start = time.monotonic()
    assert client.get(PODS).code == 200
    assert time.monotonic() - start >= 0.2
    server.slow(0)


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no address ::1")
    with ApiServer(host="::1") as server, Client(server) as client:
        assert server.url == f"https://[::1]:{server.port}"
        assert server.environ["KUBERNETES_SERVICE_HOST"] == "::1"
        assert client.get(PODS).code == 200


def test_nothing_is_left(tmp_path: Path) -> None:
    threads, before = set(threading.enumerate()), sorted(Path("/proc/self/fd").iterdir())
    with ApiServer(folder=tmp_path) as server, Client(server) as client:
        next(iter([client.open(PODS, timeoutSeconds=600)]))
        port = server.port
    gc.collect()
    assert set(threading.enumerate()) <= threads
    assert len(sorted(Path("/proc/self/fd").iterdir())) <= len(before)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    server.stop()


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server, threads = ApiServer(port=taken.getsockname()[1]), set(threading.enumerate())
        with pytest.raises(OSError), server:
            pass
        assert set(threading.enumerate()) <= threads
