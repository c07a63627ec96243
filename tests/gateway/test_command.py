# SPDX-License-Identifier: Apache-2.0
"""The command line, the examples of the documentation, and the process without Envoy."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import grpc
import pytest

from epp.cli import HELP, main
from epp.contract.errors import UsageError
from epp.gateway.config import read_config
from epp.gateway.options import Options, parse
from epp.protos.health_pb2 import HealthCheckRequest, HealthCheckResponse
from tests.gateway.chain import CONFIG, gateway

DOCS = (Path(__file__).parent.parent.parent / "docs" / "gateway.md").read_text()


def test_defaults() -> None:
    assert parse(["--config", "a.json"]) == Options(Path("a.json"))


def test_every_flag() -> None:
    words = "--config a --port 1 --metrics-port 2 --bind-address ::1 --drain-timeout 1m --log-encoder console -v 4 --watch-loop"
    wanted = Options(Path("a"), 1, 2, "::1", 60.0, "console", 4, True)
    assert parse(words.split()) == wanted
    assert parse(words.replace("--log-", "--zap-").split()) == wanted


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "--config"),
        ("--config a --port 70000", "'70000' is no port; allowed: 0 to 65535"),
        ("--config a --port 5 --metrics-port 5", "both 5"),
        ("--config a --drain-timeout soon", "'soon' is no duration"),
        ("--config a -v 9", "'9' is no verbosity"),
        ("--config a --nothing", "--nothing"),
    ],
)
def test_mistakes_are_one_line(words: str, told: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert "epp gateway" in HELP
    with pytest.raises(SystemExit) as raised:
        main(["gateway", "--help"])
    assert raised.value.code == 0
    shown = capsys.readouterr().out
    for flag in re.findall(r"--[a-z-]+", shown):
        assert flag == "--help" or f"`{flag}" in DOCS


def test_the_documents_example_is_a_configuration() -> None:
    [example] = re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL)
    assert set(read_config(example, "docs").listeners["80"].models) == {"Qwen/Qwen2.5-0.5B-Instruct", "llama3-1b"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "gateway configuration"),
        (json.dumps({**CONFIG, "tenantHeader": "authorization"}), "holds a secret"),
        (
            (
                '{"listeners": {"80": {"models": {"m": {"target": "backend", "counts": true,'
                ' "costs": [{"metadataKey": "a", "type": "CEL"}]}}}}}'
            ),
            "listeners.80.models.m: costs[0].cel",
        ),
    ],
)
def test_a_wrong_configuration_ends_the_start(
    content: str, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(content)
    assert main(["gateway", "--config", str(config), "--port", "0", "--metrics-port", "0"]) == 1
    last = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert last["level"] == "error"
    assert told in last["msg"]
    assert str(config) in last["msg"]


def health(port: int, name: str) -> int:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        status: int = check(HealthCheckRequest(service=name), timeout=10).status
        return status


def test_health_and_the_end(tmp_path: Path) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps(CONFIG))
    with gateway(config, 0, "--drain-timeout", "60s", "--watch-loop") as process:
        assert health(process.port, "") == health(process.port, "readiness") == 1
        with pytest.raises(grpc.RpcError, match="known: liveness, readiness"):
            health(process.port, "nobody")
        assert "epp_loop_busy_seconds_max" in process.page()
        process.signal(signal.SIGTERM)
        process.wait(lambda line: "answered for 60 s more" in line)
        assert (health(process.port, ""), health(process.port, "liveness")) == (2, 1)
        process.signal(signal.SIGTERM)
        assert process.ended() == 0


def test_a_port_that_is_taken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps(CONFIG))
    with gateway(config) as process:
        flags = ["--config", str(config), "--port", str(process.port), "--metrics-port", "0"]
        assert main(["gateway", *flags]) == 1
        assert f"cannot listen on 127.0.0.1:{process.port}" in capfd.readouterr().err
        flags = ["--config", str(config), "--port", "0", "--metrics-port", str(process.metrics_port)]
        assert main(["gateway", *flags]) == 1
        assert f"--metrics-port {process.metrics_port}" in capfd.readouterr().err
