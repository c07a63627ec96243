# SPDX-License-Identifier: Apache-2.0
"""`epp up -f --check` and `--print-envoy` on every sample: what would be started, what is not done, and Envoy's word."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from epp.local import up
from tests.e2e.chain import LLAMA, QWEN, SAMPLES, TUTORIALS

pytestmark = pytest.mark.envoy

FILES = sorted(SAMPLES.glob("*.yaml"))
KEY = "sk-never-shown-anywhere"


@pytest.fixture(autouse=True)
def _provider_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPP_SECRET_DEFAULT_PROVIDER_KEY", KEY)


def test_there_are_samples() -> None:
    assert len(FILES) >= 6


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_envoy_takes_what_is_made_of_every_sample(file: Path, capsys: Any) -> None:
    assert up.main(["-f", str(file), "--check", "--port", "0"]) == 0
    out, err = capsys.readouterr()
    assert f"read {file}" in out
    assert out.endswith("Envoy takes the configuration; nothing was started\n")
    assert err == ""
    assert KEY not in out
    assert "token-abc123" not in out


def test_as_values_for_scripts(capsys: Any) -> None:
    argv = [word for file in TUTORIALS for word in ("-f", str(file))]
    assert up.main([*argv, "--check", "--json", "--port", "0", "--pods", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert sorted(report["models"]) == sorted([LLAMA, QWEN])
    assert len(report["simulated"]) == 4
    assert report["files"] == [str(file) for file in TUTORIALS]


def test_the_bootstrap_alone_without_keys(capsys: Any) -> None:
    files = [str(SAMPLES / name) for name in ("external-https-backend.yaml", "own-servers.yaml")]
    for file in files:
        assert up.main(["-f", file, "--print-envoy", "--port", "0"]) == 0
        out = capsys.readouterr().out
        assert set(json.loads(out)) >= {"admin", "static_resources"}
        assert KEY not in out
        assert "token-abc123" not in out


def test_real_servers_by_name(capsys: Any) -> None:
    argv = ["-f", str(TUTORIALS[1]), "--check", "--port", "0", "--pool", "qwen-instruct=10.0.0.1:8000,10.0.0.2:8000"]
    assert up.main(argv) == 0
    out = capsys.readouterr().out
    assert "10.0.0.1:8000, 10.0.0.2:8000" in out
    assert "simulated" not in out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no Gateway"),
        ("kind: [", "not YAML"),
    ],
)
def test_files_that_cannot_be_used_are_one_line_each(text: str, words: str, tmp_path: Path, capsys: Any) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert up.main(["-f", str(file), "--check"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("epp up: ")
    assert str(file) in err
    assert words in err


def test_a_file_that_is_not_there_is_one_line(capsys: Any) -> None:
    assert up.main(["-f", "/nowhere.yaml"]) == 1
    assert capsys.readouterr().err.startswith("epp up: /nowhere.yaml: cannot be read: No such file")


@pytest.mark.parametrize("from_variable", [True, False])
@pytest.mark.parametrize("more", [["--check"], []])
def test_a_url_of_redis_that_cannot_be_used_is_told_before_anything_starts(
    more: list[str], from_variable: bool, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    url = "mysql://:hush@127.0.0.1:1"
    if from_variable:
        monkeypatch.setenv("REDIS_URL", url)
    argv = ["-f", str(SAMPLES / "both.yaml"), "--port", "0", *more]
    assert up.main(argv if from_variable else [*argv, "--redis", url]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("epp up: the URL of Redis cannot be used; give redis://")
    assert err.count("\n") == 1
    assert "hush" not in err


def test_what_is_only_told_looks_at_no_port(capsys: Any) -> None:
    file = str(SAMPLES / "both.yaml")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        assert up.main(["-f", file, "--check", "--port", port]) == 0
        assert f"http://localhost:{port}\n" in capsys.readouterr().out
        assert up.main(["-f", file, "--print-envoy", "--port", port]) == 0
