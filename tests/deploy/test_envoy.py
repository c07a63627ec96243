# SPDX-License-Identifier: Apache-2.0
"""What is shipped for deployment is accepted by the programs it is for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from epp.contract.errors import StartError
from epp.local.envoy import find_envoy

BOOTSTRAP = Path(__file__).parents[2] / "deploy/envoy/standalone.yaml"


@pytest.mark.envoy
def test_envoy_accepts_the_standalone_bootstrap() -> None:
    try:
        envoy = find_envoy()
    except StartError as error:
        pytest.skip(str(error))
    command = [str(envoy), "--mode", "validate", "-c", str(BOOTSTRAP), "--log-level", "warning"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
