# SPDX-License-Identifier: Apache-2.0
"""The types that plugin authors see, checked by mypy in strict mode on an example and on the gallery."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed (extra `dev` brings it)"
)


@pytest.mark.parametrize(
    "files", [["tests/api/typing_example.py"], ["plugins/free_kv.py", "plugins/tenant_pool.py"]], ids=["api", "gallery"]
)
def test_mypy_strict(files: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", f"--cache-dir={tmp_path}", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
