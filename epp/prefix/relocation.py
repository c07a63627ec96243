# SPDX-License-Identifier: Apache-2.0
"""Making room in a table when both buckets of a new key are full.

Every key has two buckets, so one in the way may move to its other one, after what is there has moved on, and so on.
The shortest such chain of moves is searched for first and nothing moves before it is found; the search reads at most
`MAX_BUCKETS` buckets, whatever keys somebody made up.
"""

from __future__ import annotations

import numpy as np

from epp.prefix.bank import BUCKET_SLOTS, Bank

MAX_BUCKETS = 256


def make_room(bank: Bank, first: int, key: np.uint64) -> int | None:
    """A slot, free now, in one of the two buckets of `key` in the table at bucket `first`; None if none was found."""
    even, odd = _buckets(bank, first, key)
    # Each entry: a bucket, the entry we came from, and the slot there whose key would move to this bucket.
    path: list[tuple[int, int, int]] = [(even, -1, -1), (odd, -1, -1)]
    known = {even, odd}
    for entry, (bucket, _, _) in enumerate(path):
        keys = bank.keys[bucket]
        free = (keys == 0).nonzero()[0]
        if len(free):
            return _shift(bank, path, entry, bucket * BUCKET_SLOTS + int(free[0]))
        for offset, occupant in enumerate(keys):
            even, odd = _buckets(bank, first, occupant)
            other = even + odd - bucket
            if other not in known and len(path) < MAX_BUCKETS:
                known.add(other)
                path.append((other, entry, bucket * BUCKET_SLOTS + offset))
    return None


def _buckets(bank: Bank, first: int, key: np.uint64) -> tuple[int, int]:
    even, odd = bank.pairs(np.array([key])).tolist()[0]
    return first + even, first + odd


def _shift(bank: Bank, path: list[tuple[int, int, int]], entry: int, free: int) -> int:
    """Move keys along the path towards the free slot; returns the slot that is free then."""
    _, parent, source = path[entry]
    while parent >= 0:
        bank.put(free, bank.keys.reshape(-1)[source], bank.stamps[source])
        bank.put(source, np.uint64(0), np.uint32(0))
        free = source
        _, parent, source = path[parent]
    return free
