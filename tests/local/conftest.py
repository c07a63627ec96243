# SPDX-License-Identifier: Apache-2.0
"""What the tests of the local stack share."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.contract.errors import StartError
from epp.local.envoy import find_envoy


@pytest.fixture(scope="session")
def envoy_binary() -> Path:
    """Envoy's binary; skips where there is none."""
    try:
        return find_envoy()
    except StartError as error:
        pytest.skip(str(error))
