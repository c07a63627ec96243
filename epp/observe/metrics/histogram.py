# SPDX-License-Identifier: Apache-2.0
"""A histogram that costs a bisection and two additions, and the bucket bounds of the Go EPP.

One thread observes; others may read at any time (a scrape), and then miss at most the observation in progress.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

Bounds = tuple[float, ...]


def _powers(first: int, last: int) -> Bounds:
    return tuple(float(1 << power) for power in range(first.bit_length() - 1, last.bit_length()))


# fmt: off
DURATION_S: Bounds = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, 120, 180, 240,
    300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)
REQUEST_BYTES: Bounds = _powers(64, 1 << 30)
# 32778 is what the Go EPP has had from its first release on; dashboards know it.
RESPONSE_BYTES: Bounds = (1, *_powers(8, 16384), 32778, 65536)
INPUT_TOKENS: Bounds = (*RESPONSE_BYTES, *_powers(131072, 1 << 20))
OUTPUT_TOKENS: Bounds = (1, *_powers(8, 8192))
NTPOT_S: Bounds = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
TTFT_S: Bounds = (*DURATION_S[:24],)
TPOT_S: Bounds = (
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 2,
)
INTER_TOKEN_S: Bounds = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2)
SCHEDULING_S: Bounds = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
REQUEST_PROCESSING_S: Bounds = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)
HIT_RATIO: Bounds = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
HIT_BYTES: Bounds = (0, *_powers(16, 65536))
# fmt: on


class Histogram:
    """Counts of values by bucket. A value belongs to the first bucket whose bound is not below it; `counts` has one
    entry more than `bounds`, for values above all of them."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value`."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def read(self) -> tuple[list[int], float]:
        """A copy of the counts, and the sum."""
        return self.counts.copy(), self.sum


def merge(histograms: Iterable[Histogram]) -> tuple[list[int], float]:
    """Counts and sum of several histograms with equal bounds; there must be at least one."""
    counts, sums = zip(*[histogram.read() for histogram in histograms], strict=True)
    return [sum(column) for column in zip(*counts, strict=True)], sum(sums)


def cumulative(counts: Sequence[int]) -> list[int]:
    """Counts of values at or below each bound, all values last."""
    return list(accumulate(counts))
