# SPDX-License-Identifier: Apache-2.0
"""The table, and the facts about the machine without which its absolute figures mean nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.rows import Row
from epp.contract.errors import StartError
from epp.local.envoy import find_envoy

PACKAGES = ("ngh2", "uvloop", "grpcio", "protobuf", "numpy", "xxhash", "orjson", "msgspec", "prometheus-client")
_HEADINGS = ("row", "case", "measured", "reference", "", "ratio", "budget", "verdict")
_RIGHT = frozenset((2, 3, 5))


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, a heading first."""
    lines = [_HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join(_aligned(line, widths) for line in lines)


def number(value: float, unit: str) -> str:
    """Three significant digits below 1,000, none behind the point above; thousands are separated."""
    if abs(value) >= 100:
        text = f"{value:,.0f}"
    elif abs(value) >= 10:
        text = f"{value:.1f}"
    else:
        text = f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"
    return f"{text} {unit}"


def machine_facts() -> dict[str, Any]:
    """CPU, cores, system, and the versions of what the figures depend on."""
    return {
        "cpu": cpu_model(_read("/proc/cpuinfo")),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "envoy": _envoy_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def facts_text(facts: dict[str, Any]) -> str:
    """The facts in two lines."""
    packages = ", ".join(f"{name} {number_}" for name, number_ in facts["packages"].items())
    first = f"{facts['cpu']}, {facts['cores']} cores; {facts['system']}; {facts['python']}; Envoy {facts['envoy']}"
    return f"{first}\n{packages}"


def cpu_model(cpuinfo: str) -> str:
    """The model's name in the text of /proc/cpuinfo, else the architecture."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def _cells(row: Row) -> tuple[str, ...]:
    budget = ""
    if row.budget is not None:
        budget = f"<= {row.budget:.2f} x" if row.relative else f"<= {number(row.budget, row.unit)}"
    return (
        row.name,
        row.case,
        number(row.value, row.unit),
        "" if row.reference is None else number(row.reference, row.unit),
        row.reference_name,
        "" if row.ratio is None else f"{row.ratio:.3f}",
        budget,
        row.verdict,
    )


def _aligned(cells: Iterable[str], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _envoy_version() -> str:
    try:
        told = subprocess.run([find_envoy(), "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (StartError, OSError, subprocess.TimeoutExpired):
        return "not found"
    found = re.search(r"/(\d+\.\d+\.\d+)", told.stdout)
    return found.group(1) if found else "of unknown version"


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
