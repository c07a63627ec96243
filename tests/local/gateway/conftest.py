# SPDX-License-Identifier: Apache-2.0
"""What the tests of the gateway share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def accepted(envoy_binary: Path) -> Callable[[Path], None]:
    """Asserts that Envoy takes a bootstrap."""

    def check(bootstrap: Path) -> None:
        done = subprocess.run(
            [envoy_binary, "--mode", "validate", "-c", bootstrap, "-l", "warning"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "deprecated" not in done.stderr, done.stderr

    return check
