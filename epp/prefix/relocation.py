# SPDX-License-Identifier: Apache-2.0
"""Making room in a table when both buckets of a new key are full.

Every key has two buckets, so one in the way may move to its other one, after what is there has moved on, and so on.
The shortest such chain of moves is searched for first and nothing moves before it is found; the search reads at most
`MAX_BUCKETS` buckets, whatever keys somebody made up. Plain integers: a search mostly reads a handful of buckets.
"""

from __future__ import annotations

from epp.prefix.bank import BUCKET_SLOTS, Bank

MAX_BUCKETS = 256


def make_room(bank: Bank, first: int, key: int) -> int | None:
    """A slot, free now, in one of the two buckets of `key` in the table at bucket `first`; None if none was found."""
    pair = bank.pair(key)
    # Each entry: a bucket, the entry we came from, and the slot there whose key would move to this bucket.
    path = [(first + bucket, -1, -1) for bucket in pair]
    known = {bucket for bucket, _, _ in path}
    for entry, (bucket, _, _) in enumerate(path):
        keys = bank.keys[bucket].tolist()
        if 0 in keys:
            return _shift(bank, path, entry, bucket * BUCKET_SLOTS + keys.index(0))
        for offset, occupant in enumerate(keys):
            even, odd = bank.pair(occupant)
            other = first + even + first + odd - bucket
            if other not in known and len(path) < MAX_BUCKETS:
                known.add(other)
                path.append((other, entry, bucket * BUCKET_SLOTS + offset))
    return None


def _shift(bank: Bank, path: list[tuple[int, int, int]], entry: int, free: int) -> int:
    """Move keys along the path towards the free slot; returns the slot that is free then."""
    _, parent, source = path[entry]
    while parent >= 0:
        bank.move(source, free)
        free = source
        _, parent, source = path[parent]
    return free
