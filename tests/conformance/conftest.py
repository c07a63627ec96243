# SPDX-License-Identifier: Apache-2.0
"""Skips what needs Envoy where there is none."""

from __future__ import annotations

from tests.e2e.conftest import pytest_collection_modifyitems

__all__ = ["pytest_collection_modifyitems"]
