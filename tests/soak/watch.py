# SPDX-License-Identifier: Apache-2.0
"""What is measured of an endpoint picker while it serves: its memory, its descriptors, its loop, what it has in flight."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1024 * 1024
FULL_REQUESTS = 8_000
"""After so many requests all that a picker keeps is full: its ring of decisions (16 MiB) and its prefix index."""
IN_FLIGHT = (
    "epp_in_flight_requests",
    "epp_in_flight_tokens",
    "llm_d_epp_request_running",
    "inference_objective_running_requests",
    "inference_model_running_requests",
)
_SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def sums(page: str) -> dict[str, float]:
    """The sum over all series of each name."""
    found: dict[str, float] = {}
    for name, value in _SAMPLE.findall(page):
        found[name] = found.get(name, 0.0) + float(value)
    return found


@dataclass(frozen=True)
class Reading:
    """One look at a picker. `busy_s` and `held_s` are the loop's longest turns since the look before; `requests` were
    served since its start."""

    at_s: float
    pid: int
    resident_bytes: int
    descriptors: int
    busy_s: float
    held_s: float
    requests: float


def look(at_s: float, pid: int, page: str) -> Reading:
    """Read what the system and the picker itself tell."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]
    found = sums(page)
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return Reading(
        at_s=at_s,
        pid=pid,
        resident_bytes=resident,
        descriptors=descriptors,
        busy_s=found["epp_loop_busy_seconds_max"],
        held_s=found["epp_loop_held_seconds_max"],
        requests=found.get("llm_d_epp_request_total", 0.0),
    )


@dataclass
class Watch:
    """The readings of one picker, over all its restarts."""

    readings: list[Reading] = field(default_factory=list)

    def second_half(self, seconds: float) -> list[Reading]:
        """Those since the middle of the run."""
        return [reading for reading in self.readings if reading.at_s >= seconds / 2]

    def growth_bytes(self, seconds: float) -> tuple[float, float]:
        """By how much resident memory grew in the second half, while the picker filled what it keeps and after that:
        the slope of a straight line through the readings of each part, times its length."""
        filling = [r for r in self.second_half(seconds) if r.requests < FULL_REQUESTS]
        full = [r for r in self.second_half(seconds) if r.requests >= FULL_REQUESTS]
        return _growth(filling, "resident_bytes"), _growth(full, "resident_bytes")

    def descriptor_growth(self, seconds: float) -> float:
        """The same of open descriptors, over the whole second half."""
        return _growth(self.second_half(seconds), "descriptors")


def _growth(readings: Sequence[Reading], name: str) -> float:
    """0 with fewer than three readings."""
    if len(readings) < 3:
        return 0.0
    points = [(reading.at_s, float(getattr(reading, name))) for reading in readings]
    return _slope(points) * (points[-1][0] - points[0][0])


def _slope(points: Sequence[tuple[float, float]]) -> float:
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
