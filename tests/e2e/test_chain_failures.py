# SPDX-License-Identifier: Apache-2.0
"""Each process of the whole chain killed in turn: what clients see meanwhile, and that it works again by itself."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.chain import LLAMA, POOL, QWEN, TUTORIALS, Chain, chain, until, within_one_hour
from tests.e2e.stack import Part

pytestmark = pytest.mark.envoy

PICKER, GATEWAY, LIMITS, ENVOY = "epp serve", "epp gateway", "epp ratelimit", "--config-path"


@pytest.fixture(scope="module")
def running() -> Iterator[Chain]:
    with chain("-f", *TUTORIALS) as up:
        yield up


def status(running: Chain, model: str, user: str = "ann") -> int:
    """Of the tutorials' request; 0: no answer."""
    try:
        return running.ask(model, user).status
    except OSError:
        return 0


def kill(running: Chain, words: str) -> int:
    """Kill a part; returns how many lines the chain had said by then."""
    since = len(running.lines)
    os.kill(running.child(words), signal.SIGKILL)
    return since


def back(running: Chain, name: str, since: int) -> str:
    """Wait until the part is back; the line that told its end."""
    running.wait(lambda line: line.startswith(name) and "is back after" in line, since=since)
    told = [line for line in running.lines[since:] if line.startswith(f"{name} was ended by SIGKILL")]
    assert len(told) == 1, told
    return told[0]


def test_without_the_picker_its_pool_is_away_and_the_backend_is_not(running: Chain) -> None:
    since = kill(running, PICKER)
    assert status(running, QWEN) in (500, 503)
    assert status(running, LLAMA) == 200
    back(running, f"the endpoint picker of {POOL}", since)
    assert until(lambda: status(running, QWEN, "picker") == 200)
    # Counters are elsewhere: nothing of them is lost.
    assert int(running.ask(QWEN, "picker").get("x-ratelimit-remaining")) < 1000


def test_without_the_gateway_process_nothing_passes_unread(running: Chain) -> None:
    since = kill(running, GATEWAY)
    assert {status(running, model) for model in (QWEN, LLAMA)} <= {500, 503}
    back(running, "the gateway", since)
    for model in (QWEN, LLAMA):
        assert until(lambda model=model: status(running, model, "gateway") == 200)  # type: ignore[misc]


def test_without_the_rate_limit_service_requests_pass_and_what_was_counted_is_lost(running: Chain) -> None:
    within_one_hour()
    while status(running, QWEN, "spender") == 200:
        pass
    assert status(running, QWEN, "spender") == 429
    since = kill(running, LIMITS)
    free = running.ask(QWEN, "spender")
    assert (free.status, free.get("x-ratelimit-limit")) == (200, "")
    assert "what it had counted in memory is lost" in back(running, "the rate limit service", since)
    limited = until(lambda: (answer := running.ask(QWEN, "spender")).get("x-ratelimit-limit") and answer)
    assert limited.status == 200


def test_without_a_pod_the_others_answer(running: Chain) -> None:
    before = running.ask(QWEN, "pod-user")
    name = before.get("x-inference-pod")
    host = running.report["pools"][POOL][name].rpartition(":")[0]
    since = kill(running, f"sim-pod --host {host} ")
    # What is under way when a pod dies is lost; the picker learns of it from the next scrape.
    answer = until(lambda: (answer := running.ask(QWEN, "pod-user")).status == 200 and answer)
    assert answer.get("x-inference-pod") != name
    back(running, f"pod {name}", since)
    assert {status(running, QWEN, f"after-{turn}") for turn in range(8)} == {200}


def test_without_its_only_pod_a_backend_is_unavailable_and_comes_back(running: Chain) -> None:
    since = kill(running, "sim-pod --host 127.0.2.1 ")
    assert status(running, LLAMA, "plain") == 503
    assert status(running, QWEN, "plain") == 200
    back(running, "pod envoy-ai-gateway-openai-kserve-0", since)
    assert until(lambda: status(running, LLAMA, "plain") == 200)


def test_without_envoy_nobody_answers_until_it_is_back(running: Chain) -> None:
    since = kill(running, ENVOY)
    assert status(running, QWEN) == 0
    back(running, "Envoy", since)
    for model in (QWEN, LLAMA):
        assert until(lambda model=model: status(running, model, "envoy") == 200)  # type: ignore[misc]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_its_end_leaves_no_process_and_no_key(number: signal.Signals, tmp_path: Path) -> None:
    own = Path(__file__).parents[2] / "deploy" / "local" / "own-servers.yaml"
    env = {"TMPDIR": str(tmp_path)}
    try:
        with chain("-f", *TUTORIALS, own, env=env) as up:
            [folder] = tmp_path.glob("epp-up-*")
            assert folder.stat().st_mode & 0o777 == 0o700
            files = [path for path in folder.rglob("*") if path.is_file()]
            assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
            holders = [path for path in files if b"token-abc123" in path.read_bytes()]
            assert [path.suffix for path in holders] == [".key"]
            told = "\n".join([*up.lines, *up.children().values(), Path(f"/proc/{up.process.pid}/cmdline").read_text()])
            assert "token-abc123" not in told
            children = up.children()
            up.signal(number)
            assert up.ended() == (-9 if number == signal.SIGKILL else 0)
            until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in children))
            if number == signal.SIGKILL:
                # Nobody was there to remove it: the next run does.
                assert folder.exists()
            else:
                assert list(tmp_path.iterdir()) == []
            raise _Done
    except _Done:
        pass
    if number == signal.SIGKILL:
        with chain("-f", *TUTORIALS, env=env):
            assert not folder.exists()


def test_a_signal_while_it_starts_ends_it_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "epp", "up", "-f", *map(str, TUTORIALS), "--port", "0"]
    part = Part(argv, env={"TMPDIR": str(tmp_path)})
    try:
        part.wait(lambda line: line.startswith("starting: "))
        part.signal(signal.SIGTERM)
        assert part.ended() == 130
        assert part.lines[-1] == "everything is stopped"
        assert list(tmp_path.iterdir()) == []
    finally:
        part.stop()


def test_real_servers_in_the_place_of_simulated_ones(tmp_path: Path) -> None:
    models = [word for model in (QWEN, LLAMA) for word in ("--model", model)]
    servers = Part([sys.executable, "-m", "epp", "sim-pod", "--port", "0", "--count", "2", "--name", "real", *models])
    try:
        places = [
            servers.wait(lambda line, name=name: line.startswith(name) and line.rpartition("http://")[2])
            for name in ("real-0", "real-1")
        ]
        pools = ("--pool", f"qwen-instruct={','.join(places)}", "--pool", f"llama3-1b={places[1]}")
        with chain("-f", *TUTORIALS, *pools) as up:
            assert up.report["simulated"] == []
            assert up.ask(QWEN).get("x-inference-pod") in ("real-0", "real-1")
            assert up.ask(LLAMA).get("x-inference-pod") == "real-1"
    finally:
        servers.stop()


class _Done(Exception):
    """The chain has been ended already."""
