# SPDX-License-Identifier: Apache-2.0
"""Puts the harness of tests/e2e (real processes) in reach of these tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))
