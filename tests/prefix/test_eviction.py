# SPDX-License-Identifier: Apache-2.0
"""The lowest stamps are found exactly, however they are spread."""

from __future__ import annotations

import numpy as np
import pytest

from epp.prefix.eviction import oldest


def stamps_of(slots: int, used: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    stamps = np.zeros(slots, np.uint32)
    stamps[rng.permutation(slots)[:used]] = rng.permutation(used) + 1000
    return stamps


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("slots", "used", "count"),
    [(64, 1, 1), (64, 48, 1), (64, 48, 48), (64, 64, 40), (4096, 2000, 125), (65536, 31250, 1953), (65536, 300, 299)],
)
def test_exactly_the_oldest(slots: int, used: int, count: int, seed: int) -> None:
    stamps = stamps_of(slots, used, seed)
    assert sorted(stamps[oldest(stamps, count)]) == list(range(1000, 1000 + count))


def test_oldest_hidden_from_the_sample() -> None:
    # The sample sees young stamps alone, so its bound lets too few through or far too many.
    stamps = np.arange(1, 65537, dtype=np.uint32)
    sampled = np.arange(0, 65536, 17)
    stamps[sampled] += np.uint32(1 << 20)
    assert sorted(stamps[oldest(stamps, 3)]) == [2, 3, 4]
    stamps[:] = 0
    stamps[1::17] = np.arange(1, len(stamps[1::17]) + 1)
    assert sorted(stamps[oldest(stamps, 5)]) == [1, 2, 3, 4, 5]


def test_highest_stamp_counts_as_young() -> None:
    stamps = np.array([0, 2**32 - 1, 5, 0, 2**31], np.uint32)
    assert oldest(stamps, 2).tolist() in ([2, 4], [4, 2])
