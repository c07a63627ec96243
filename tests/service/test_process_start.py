# SPDX-License-Identifier: Apache-2.0
"""What keeps the service from starting: exit code 1 before anything listens, and one clear line each."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from epp.transport.selfsigned import self_signed
from tests.e2e.stack import ROOT, SEED_YAML, serving

LOCAL = ["--bind-address=127.0.0.1", "--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]


def failed_start(*flags: str, stdin: str | None = None) -> list[str]:
    """Run the service, which must not start; the messages of its error lines. Everything else it says is checked."""
    done = subprocess.run(
        [sys.executable, "-m", "epp", "serve", *LOCAL, *flags], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert not [r for r in records if "serving" in r["msg"]]
    assert not [r for r in records if "stack" in r]
    return [r["msg"] for r in records if r["level"] == "error"]


MISTAKES = {
    "no YAML": ("plugins: [", ["line 1: not YAML: did not find expected node content"]),
    "unknown plugin": (
        "plugins:\n- type: queue-scoree\n",
        ["line 2: plugin type 'queue-scoree' is not registered; did you mean 'queue-scorer'?"],
    ),
    "unknown reference": (
        "plugins:\n- type: queue-scorer\nschedulingProfiles:\n- name: p\n  plugins:\n  - pluginRef: queue-scorr\n",
        ["line 6: ", "'queue-scorr'", "did you mean 'queue-scorer'?"],
    ),
    "a parameter of the wrong type": (
        SEED_YAML.replace("threshold: 100", "threshold: lots"),
        ["line 8: ", "threshold", '"lots"'],
    ),
}


@pytest.mark.parametrize(("text", "parts"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_configuration(text: str, parts: list[str], tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    for flag, source in ((f"--config-file={file}", str(file)), (f"--config-text={text}", "--config-text")):
        [message] = failed_start(flag)
        assert message.startswith(f"configuration {source}: ")
        for part in parts:
            assert part in message


def test_every_mistake_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("plugins:\n- type: nothing-of-the-kind\n- type: random-picker\n- type: random-picker\n")
    first, second = failed_start(f"--config-file={file}")
    assert f"configuration {file}: line 2: plugin type 'nothing-of-the-kind' is not registered" in first
    assert f"configuration {file}: line 4: duplicate plugin name 'random-picker', first on line 3" in second


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    [message] = failed_start(f"--config-file={tmp_path / 'none.yaml'}")
    assert str(tmp_path / "none.yaml") in message
    assert "No such file" in message


ENDPOINTS = {
    "missing": (None, "cannot be read: No such file or directory"),
    "not YAML": ("endpoints: [", "did not find expected node content"),
    "not a list": ("endpoints: {}\n", "'endpoints' is a mapping; it must be a list, [] when there are none"),
    "unknown field": ("endpoint: []\n", "unknown field 'endpoint'; did you mean 'endpoints'?"),
}


@pytest.mark.parametrize(("text", "part"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_an_endpoints_file_that_is_no_use(text: str | None, part: str, tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    if text is not None:
        file.write_text(text)
    [message] = failed_start(f"--endpoints-file={file}")
    assert message.startswith(f"endpoints file {file}")
    assert part in message


def test_a_plugin_file_that_fails(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('half done')\n")
    [message] = failed_start(f"--plugin-dir={tmp_path}")
    assert str(tmp_path / "mine.py") in message
    assert "half done" in message


def pair(folder: Path, certificate: bytes | None, key: bytes | None) -> Path:
    for name, content in (("tls.crt", certificate), ("tls.key", key)):
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
def test_certificates_that_cannot_be_used(transport: str, tmp_path: Path) -> None:
    (certificate, key), (_, other_key) = self_signed(), self_signed()
    cases = {
        "no-certificate": (None, key, "cannot read {}/tls.crt: No such file or directory"),
        "no-key": (certificate, None, "cannot read {}/tls.key: No such file or directory"),
        "garbage": (b"garbage", b"garbage", "cannot use tls.crt and tls.key in {}: "),
        "another-key": (certificate, other_key, "cannot use tls.crt and tls.key in {}: "),
        "swapped": (key, certificate, "cannot use tls.crt and tls.key in {}: "),
    }
    if transport == "grpcio":
        # The files are read by the same code; these two are what gRPC itself would look at differently.
        cases = {name: cases[name] for name in ("garbage", "swapped")}
    for name, (crt, own_key, text) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        [message] = failed_start(f"--cert-path={pair(folder, crt, own_key)}", f"--transport={transport}")
        assert text.format(folder) in message


@contextlib.contextmanager
def taken(host: str = "127.0.0.1") -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind((host, 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize("transport", ["ngh2", "grpcio"])
@pytest.mark.parametrize("flag", ["grpc-port", "grpc-health-port", "metrics-port"])
def test_a_port_that_is_taken(flag: str, transport: str) -> None:
    with taken() as port:
        [message] = failed_start(f"--{flag}={port}", f"--transport={transport}")
        assert f"{port}" in message
        assert "choose another port" in message


def test_an_address_that_is_not_ours() -> None:
    [message] = failed_start("--bind-address=192.0.2.1")
    assert "192.0.2.1" in message


def test_two_of_them_side_by_side() -> None:
    with serving() as one, serving() as other:
        assert one.port != other.port
        [message] = failed_start(f"--grpc-port={one.port}")
        assert str(one.port) in message
