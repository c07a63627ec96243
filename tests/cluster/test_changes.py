# SPDX-License-Identifier: Apache-2.0
"""What goes on in a cluster costs no request: scaling, rolling restarts, certificates, an API server that is away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import uvloop

from epp.transport.selfsigned import self_signed
from tests.cluster.stack import Cluster, cluster, eventually, found
from tests.e2e.client import JSON, Load, chat, head
from tests.e2e.stack import Epp, envoy, pods
from tests.e2e.test_certificates import Secret

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(180)]


def numbered(number: int) -> bytes:
    # Conversations come and go, so that pods that came later get theirs.
    body = chat(f"group {number // 100} {number % 4}, " * 60 + f"request {number}")
    return head("POST", "/v1/chat/completions", {**JSON, "content-length": str(len(body))}) + body


@contextlib.contextmanager
def serving_pods(folder: Path, count: int, *flags: str) -> Iterator[tuple[Cluster, Epp, Load]]:
    """A cluster of `count` pods, a picker, Envoy, and load that has not begun."""
    with cluster(folder) as made:
        made.pools()
        made.add(count)
        with made.picker("--seed=1", *flags) as epp, envoy(epp.port) as gateway:
            found(epp, count)
            yield made, epp, Load(gateway.port, numbered, connections=24)


def under(load: Load, work: Callable[[], None], rest_s: float = 0.5) -> None:
    """Do `work` while `load` runs, and let it run on for `rest_s`."""

    # In this thread: a pod started in another one would be ended with it.
    with ThreadPoolExecutor(1) as beside:
        running = beside.submit(lambda: uvloop.run(load.run()))
        try:
            work()
            time.sleep(rest_s)
        finally:
            load.stop()
        running.result()


def no_request_was_lost(load: Load, at_least: int = 200) -> None:
    assert load.failed == {}
    assert load.answers[200] > at_least


def test_scaling_from_4_to_2_to_6_under_load(tmp_path: Path) -> None:
    with serving_pods(tmp_path, 4) as (made, epp, load):

        def scale() -> None:
            since = len(epp.lines)
            made.remove(*list(made.ips)[:2])
            found(epp, 2, since)
            time.sleep(0.3)
            made.add(4)
            found(epp, 6, since)

        under(load, scale)
        no_request_was_lost(load)
        # The new ones got their part, those that left got nothing after they had left.
        assert {f"{ip}:{made.port}" for ip in made.ips.values()} <= load.by_pod.keys()
        epp.settled()
        assert epp.complaints() == []


def test_a_rolling_restart_of_all_pods_under_load(tmp_path: Path) -> None:
    with serving_pods(tmp_path, 3) as (made, epp, load):
        first = set(made.ips)

        def roll() -> None:
            for name in sorted(first):
                since = len(epp.lines)
                made.add()
                found(epp, 4, since)
                made.remove(name)
                found(epp, 3, since)

        under(load, roll)
        no_request_was_lost(load)
        assert first.isdisjoint(made.ips)
        assert epp.complaints() == []


def test_a_restarted_container_is_another_one(tmp_path: Path) -> None:
    """Its cache is empty: what was sent there before is forgotten."""
    with serving_pods(tmp_path, 2) as (made, epp, load):
        load.total = 40
        uvloop.run(load.run())

        name, ip = next(iter(made.ips.items()))
        before = epp.metrics().sum("llm_d_epp_prefix_indexer_size")
        assert before > 0
        made.apply(name, ip, restarts=1)
        eventually(lambda: epp.metrics().sum("llm_d_epp_prefix_indexer_size") < before, "its entries to go")


def test_an_api_server_that_is_away_and_forgets_costs_nothing(tmp_path: Path) -> None:
    with serving_pods(tmp_path, 3) as (made, epp, load):

        def trouble() -> None:
            since = len(epp.lines)
            made.server.away()
            eventually(lambda: epp.metrics().sum("epp_degraded") > 0, "the trouble to be told")
            time.sleep(3.0)
            # Meanwhile a pod came that nobody could tell of, and history was cut.
            made.add()
            made.server.compact()
            made.server.back()
            found(epp, 4, since)
            eventually(lambda: epp.metrics().sum("epp_degraded") == 0, "the trouble to be over", 40.0)

        under(load, trouble)
        no_request_was_lost(load)
        # One line, however long it takes and however many kinds are followed.
        [complaint] = epp.complaints()
        assert "kubernetes-api: no answer from" in complaint


def test_tokens_and_watches_are_replaced_under_load(tmp_path: Path) -> None:
    with serving_pods(tmp_path, 2) as (made, epp, load):

        def rotate() -> None:
            since = len(epp.lines)
            for _ in range(3):
                made.server.rotate_token()
                made.server.drop_watches(torn=True)
                made.server.throttle(2, 1)
                time.sleep(0.3)
            made.add()
            found(epp, 3, since)

        under(load, rotate)
        no_request_was_lost(load)


def test_certificates_are_replaced_under_load(tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    secret = Secret(folder)
    with serving_pods(tmp_path, 2, f"--cert-path={folder}", "--enable-cert-reload=true") as (made, epp, load):

        def rotate() -> None:
            # A model that scales up gets another certificate for its picker, with more names in it.
            for _ in range(3):
                secret.put(*self_signed())
                made.add()
                time.sleep(1.2)

        under(load, rotate)
        no_request_was_lost(load)
        assert epp.complaints() == []


def test_a_thousand_pods_come_change_and_go(tmp_path: Path) -> None:
    """One process stands behind all of their addresses."""
    with cluster(tmp_path) as made, contextlib.ExitStack() as parts:
        parts.enter_context(pods(f"0.0.0.0:{made.port}"))
        made.pools()
        ips = {f"many-{n}": f"127.1.{n // 250}.{n % 250 + 1}" for n in range(1000)}
        for name, ip in ips.items():
            made.apply(name, ip)
        epp = parts.enter_context(made.picker("--refresh-metrics-interval=5s", "--watch-loop", "--seed=1"))
        gateway = parts.enter_context(envoy(epp.port))
        found(epp, 1000)
        load = Load(gateway.port, numbered, connections=8)

        def change() -> None:
            since = len(epp.lines)
            for turn in range(3):
                for name in ips:
                    # Heartbeats and labels change all the time; they change nothing here.
                    made.server.patch(
                        "pods", "kserve-test", name, {"status": {"startTime": f"2026-01-01T00:00:0{turn}Z"}}
                    )
            gone = [name for n, name in enumerate(ips) if n % 2]
            for name in gone:
                made.server.delete("pods", "kserve-test", name)
            found(epp, 500, since)
            for name in gone:
                made.apply(name, ips[name])
            found(epp, 1000, since)

        under(load, change)
        no_request_was_lost(load)
        assert epp.complaints() == []
