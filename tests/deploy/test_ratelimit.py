# SPDX-License-Identifier: Apache-2.0
"""The example of the rate limit service: accepted by the programs it is for, and its parts fit together."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from epp.contract.errors import StartError
from epp.local.envoy import find_envoy
from epp.ratelimit.options import parse
from epp.ratelimit.process import FINISH_S
from epp.ratelimit.sources import Sources
from epp.transport.health import LIVENESS, READINESS

FOLDER = Path(__file__).parents[2] / "deploy/ratelimit"


def manifest(kind: str) -> dict[str, Any]:
    text = (FOLDER / "kubernetes.yaml").read_text()
    [found] = [document for document in yaml.safe_load_all(text) if document["kind"] == kind]
    made: dict[str, Any] = found
    return made


def test_the_rules_are_those_that_envoy_asks_for() -> None:
    book = Sources([FOLDER / "rules.yaml"]).load().book
    assert [limit.rule for limit in book.limits()] == ["models.user", "models.user_nightly-batch"]
    text = (FOLDER / "envoy.yaml").read_text()
    assert text.count("domain: models") == 2
    assert "descriptor_key: user}" in text


def test_the_pickers_configuration_checks() -> None:
    from epp.cli import main

    assert main(["check", str(FOLDER / "picker.yaml")]) == 0


@pytest.mark.envoy
def test_envoy_accepts_the_bootstrap() -> None:
    try:
        envoy = find_envoy()
    except StartError as error:
        pytest.skip(str(error))
    command = [str(envoy), "--mode", "validate", "-c", str(FOLDER / "envoy.yaml"), "--log-level", "warning"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_the_pod_is_started_as_the_program_wants(tmp_path: Path) -> None:
    spec = manifest("Deployment")["spec"]["template"]["spec"]
    [container] = spec["containers"]
    command, *flags = container["args"]
    options = parse(flags, {"REDIS_URL": "redis://redis:6379"})
    assert (command, options.bind_address) == ("ratelimit", "")
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "grpc": options.port,
        "metrics": options.metrics_port,
    }
    assert container["livenessProbe"]["grpc"] == {"port": options.port, "service": LIVENESS}
    assert container["readinessProbe"]["grpc"] == {"port": options.port, "service": READINESS}
    assert spec["terminationGracePeriodSeconds"] > options.drain_timeout_s + FINISH_S
    [mount] = container["volumeMounts"]
    assert [Path(mount["mountPath"])] == list(options.config)
    for name, text in manifest("ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    assert list(Sources([tmp_path]).load().book.domains) == ["models"]
    labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("Service")["spec"]["selector"].items() <= labels.items()
