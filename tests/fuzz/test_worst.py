# SPDX-License-Identifier: Apache-2.0
"""The worst inputs stay within their bounds of memory, and end. See `worst`; all of them run in one process of forks."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.worst_cases import CASES

MOST_S = 100.0
ROOT = Path(__file__).parents[2]


@functools.cache
def measured() -> dict[str, dict[str, Any]]:
    """What every case took, by name; those for which there was no time are not there."""
    command = [sys.executable, "-m", "tests.fuzz.worst"]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=MOST_S)
        out = ran.stdout
    except subprocess.TimeoutExpired as late:
        out = (late.stdout or b"").decode().rpartition("\n")[0]
    return {told["name"]: told for told in map(json.loads, out.splitlines())}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the unit of ru_maxrss is Linux's")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bounds(case: Any) -> None:
    told = measured().get(case.name)
    if told is None:
        pytest.skip(f"the cases before took {MOST_S:.0f} s: the machine is too busy to tell")
    assert told["error"] is None, told["error"]
    assert told["grown_mib"] <= case.most_mib
