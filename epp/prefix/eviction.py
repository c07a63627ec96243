# SPDX-License-Identifier: Apache-2.0
"""Finding the least recently used blocks of a table, exactly, without ordering all of it.

A sample of the stamps tells roughly up to which stamp to look; only the slots below are ordered.
"""

from __future__ import annotations

import numpy as np

from epp.contract.endpoints import IntArray
from epp.prefix.bank import StampArray

# Odd, so that the sample meets every place in a bucket.
_SAMPLE_EVERY = 17


def oldest(stamps: StampArray, count: int) -> IntArray:
    """The slots of the `count` lowest stamps, in no order; 0 stands for a free slot, `count` are in use at least."""
    # Free slots wrap around to the top.
    ages = stamps - np.uint32(1)
    sample = ages[::_SAMPLE_EVERY]
    # Half as many again as expected below the bound, and a few more for small samples.
    rank = min(len(sample) - 1, 3 * count // (2 * _SAMPLE_EVERY) + 16)
    candidates: IntArray = (ages <= np.partition(sample, rank)[rank]).nonzero()[0]
    if len(candidates) < count:
        candidates = stamps.nonzero()[0]
    victims: IntArray = candidates[np.argpartition(ages[candidates], count - 1)[:count]]
    return victims
