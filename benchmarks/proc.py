# SPDX-License-Identifier: Apache-2.0
"""CPU time and memory of a process, out of Linux' /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, of all threads the process has and had. Steps of 10 ms.

    Raises ProcessLookupError when it is gone.
    """
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text()) / _TICKS_PER_S
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None


def threads_cpu_s(pid: int) -> float:
    """CPU seconds of the threads that the process has now; what ended threads used is not in it.

    Exact for threads that sleep or wait; up to a clock tick (1 to 10 ms) is missing of each that is running.
    Raises ProcessLookupError when it is gone.
    """
    texts = []
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            texts.append(thread.read_text())
    if not texts:
        raise ProcessLookupError(f"process {pid} is gone")
    return sum(int(text.split()[0]) for text in texts) / 1e9


def resident_bytes(pid: int) -> int:
    """Resident memory. Raises ProcessLookupError when the process is gone."""
    try:
        return parse_resident(Path(f"/proc/{pid}/status").read_text())
    except FileNotFoundError:
        raise ProcessLookupError(f"process {pid} is gone") from None


def parse_stat(text: str) -> int:
    """utime + stime in clock ticks (fields 14 and 15). The second field may hold blanks and parentheses."""
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


def parse_resident(text: str) -> int:
    """VmRSS in bytes. Raises ValueError where the text has none (a zombie)."""
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmRSS in the status of the process")
