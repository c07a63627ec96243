# SPDX-License-Identifier: Apache-2.0
"""Two replicas and one Lease: one is ready, and another one soon when it goes. Envoy asks their health, as kubelet does."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.cluster.stack import NAMESPACE, POOL, Cluster, cluster, eventually
from tests.cluster.test_changes import no_request_was_lost, numbered, under
from tests.cluster.test_tutorial import health
from tests.e2e.client import Load
from tests.e2e.stack import Envoy, Epp, envoy

pytestmark = [pytest.mark.envoy, pytest.mark.timeout(180)]

LEASE = f"epp-{NAMESPACE}-{POOL}.llm-d.ai"
LEASE_S = 15


@contextlib.contextmanager
def gateway(*pickers: Epp) -> Iterator[Envoy]:
    """Envoy that sends to whichever picker is ready."""

    def both(document: dict[str, Any]) -> None:
        [part] = [c for c in document["static_resources"]["clusters"] if c["name"] == "epp"]
        [locality] = part["load_assignment"]["endpoints"]
        locality["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": epp.port}}}}
            for epp in pickers
        ]
        part["health_checks"] = [
            {
                "timeout": "1s",
                "interval": "0.1s",
                "no_traffic_interval": "0.1s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": "readiness"},
            }
        ]
        # By default Envoy's workers hear of changed health a second late.
        part["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}

    with envoy(pickers[0].port, adapt=both) as part:
        yield part


@contextlib.contextmanager
def two(folder: Path, *flags: str) -> Iterator[tuple[Cluster, Epp, Epp]]:
    """A cluster of two pods; the picker that leads, and the one that stands by."""
    with cluster(folder) as made:
        made.pools()
        made.add(2)
        argv = ("--ha-enable-leader-election", *flags)
        with made.picker(*argv, env={"POD_NAME": "one"}) as one:
            one.say("this replica is active")
            with made.picker(*argv, env={"POD_NAME": "other"}) as other:
                other.say("standby: lease")
                eventually(lambda: health(other, "inference-extension") == 1, "the standby to know the endpoints")
                yield made, one, other


def holder(made: Cluster) -> str:
    lease = made.server.object("leases", NAMESPACE, LEASE)
    return str(lease["spec"]["holderIdentity"]).partition("_")[0] if lease else ""


def test_one_is_ready_both_are_alive_and_both_are_warm(tmp_path: Path) -> None:
    with two(tmp_path) as (made, one, other):
        assert holder(made) == "one"
        assert [health(one, name) for name in ("", "readiness", "liveness")] == [1, 1, 1]
        assert [health(other, name) for name in ("", "readiness", "liveness")] == [2, 2, 1]
        assert other.metrics_port
        made.add()
        for epp in (one, other):
            epp.say("endpoints found: 3")
        assert made.server.asked("create", "events") == []


def test_a_restart_of_the_leader_under_load_loses_nothing(tmp_path: Path) -> None:
    with two(tmp_path, "--drain-timeout=2s") as (made, one, other), gateway(one, other) as part:
        eventually(lambda: answered(part.port) == 200, "the first answer")
        load = Load(part.port, numbered, connections=16)

        def restart() -> None:
            time.sleep(0.5)
            one.signal(signal.SIGTERM)
            began_s = time.monotonic()
            other.say("this replica is active")
            # The lease was given up, not waited for.
            assert time.monotonic() - began_s < LEASE_S / 2
            assert one.ended() == 0

        under(load, restart, rest_s=1.0)
        no_request_was_lost(load)
        assert holder(made) == "other"
        assert [r["msg"] for r in other.records].count("Request handled") > 0


def test_a_leader_that_dies_is_followed_within_the_lease(tmp_path: Path) -> None:
    with two(tmp_path) as (made, one, other), gateway(one, other) as part:
        began_s = time.monotonic()
        one.stop()
        other.say("this replica is active", timeout_s=2.5 * LEASE_S)
        assert time.monotonic() - began_s < LEASE_S + 8
        eventually(lambda: answered(part.port) == 200, "an answer through the other one")
        assert holder(made) == "other"


def answered(port: int) -> int:
    load = Load(port, numbered, connections=1, total=1)
    uvloop.run(load.run())
    return next(iter(load.answers), 0)
