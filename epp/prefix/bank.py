# SPDX-License-Identifier: Apache-2.0
"""Storage: many equally large hash tables of block hashes in two flat arrays.

A table is a run of buckets of four slots; a slot is a key (a block's hash, 0 when free) and a stamp (when it was last
used, 0 when free): 12 bytes. A key may stand in two buckets alone, given by the two halves of the hash, so that a
lookup reads eight slots, whatever the table went through, and erasing is writing zeros.

Pages of the arrays become resident when something is written to them. Table 0 of a bank stays empty: rows without a
table of their own look there. A real hash of 0 (one in 2^64) would look like a free slot; it costs one wrong match.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from epp.contract.endpoints import IntArray
from epp.prefix.hashing import HashArray

BUCKET_SLOTS = 4
PAIR_SLOTS = 2 * BUCKET_SLOTS
MAX_LOAD = 0.75
BYTES_PER_SLOT = 12
_SLOTS_PER_BANK = 1 << 24
_MIN_BUCKETS = 16
_ODD = np.uint64(1 << 32)

StampArray = NDArray[np.uint32]


def buckets_for(capacity: int) -> int:
    """Buckets of a table that holds `capacity` keys at no more than `MAX_LOAD`: a power of two."""
    wanted = int(capacity / MAX_LOAD / BUCKET_SLOTS) + 1
    return max(_MIN_BUCKETS, 1 << (wanted - 1).bit_length())


class Bank:
    """Tables of `buckets` buckets each.

    * keys: shape (all buckets, 4); stamps: shape (all slots,)
    * first: by row, the first bucket of the row's table, 0 (the empty table) for rows that have none here
    """

    __slots__ = ("_even_mask", "_flat_keys", "_free", "_tables", "buckets", "first", "keys", "stamps")

    def __init__(self, buckets: int, rows: int) -> None:
        tables = min(256, max(16, _SLOTS_PER_BANK // (buckets * BUCKET_SLOTS)))
        self._tables = tables
        self.buckets = buckets
        self._even_mask = np.uint64((buckets - 2) << 32 | (buckets - 2))
        self.keys: HashArray = np.zeros(((tables + 1) * buckets, BUCKET_SLOTS), np.uint64)
        self.stamps: StampArray = np.zeros((tables + 1) * buckets * BUCKET_SLOTS, np.uint32)
        self.first: IntArray = np.zeros(rows, np.int64)
        self._flat_keys: HashArray = self.keys.reshape(-1)
        self._free = [table * buckets for table in range(tables, 0, -1)]

    @property
    def full(self) -> bool:
        """No table is left to claim."""
        return not self._free

    @property
    def unused(self) -> bool:
        """No table is claimed."""
        return len(self._free) == self._tables

    def grow(self, rows: int) -> None:
        """Know rows up to `rows`."""
        self.first = np.concatenate([self.first, np.zeros(rows - len(self.first), np.int64)])

    def claim(self, row: int) -> int:
        """Give `row` an empty table; returns its first bucket."""
        first = self._free.pop()
        self.first[row] = first
        return first

    def release(self, row: int) -> None:
        """Empty the row's table and take it back."""
        first = int(self.first[row])
        self.wipe(first)
        self.first[row] = 0
        self._free.append(first)

    def wipe(self, first: int) -> None:
        """Free all slots of the table at bucket `first`."""
        self.keys[first : first + self.buckets] = 0
        self.stamps_of(first)[:] = 0

    def keys_of(self, first: int) -> HashArray:
        """A view of one table's keys, shape (slots,)."""
        return self._flat_keys[first * BUCKET_SLOTS : (first + self.buckets) * BUCKET_SLOTS]

    def stamps_of(self, first: int) -> StampArray:
        """A view of one table's stamps, shape (slots,)."""
        return self.stamps[first * BUCKET_SLOTS : (first + self.buckets) * BUCKET_SLOTS]

    def pairs(self, hashes: HashArray) -> IntArray:
        """The two buckets of each hash, an even and an odd one, counted from a table's first; shape (n, 2)."""
        return (hashes & self._even_mask | _ODD).view(np.uint32).astype(np.int64).reshape(-1, 2)

    def pair(self, key: int) -> tuple[int, int]:
        """As `pairs`, of one hash."""
        mask = self.buckets - 2
        return key & mask, key >> 32 & mask | 1

    def read(self, pairs: IntArray) -> HashArray:
        """The keys in pairs of buckets, 0 where free; shape (n, 2, 4)."""
        return self.keys.take(pairs, axis=0)

    def find(self, first: int, hashes: HashArray) -> tuple[IntArray, IntArray]:
        """As `located`, in the table at bucket `first`."""
        pairs = self.pairs(hashes) + first
        return located(pairs, self.read(pairs), hashes)

    def erase(self, slots: IntArray) -> None:
        """Free these slots."""
        self._flat_keys[slots] = 0
        self.stamps[slots] = 0

    def store(self, pairs: IntArray, seen: HashArray, hashes: HashArray, stamps: StampArray) -> IntArray:
        """Put new, distinct keys into one table; returns the positions of those that found both buckets full.

        `seen` is what stands in the keys' `pairs` of buckets now. Keys that chose the same slot overwrite each other,
        so what was written is read back, and losers try again.
        """
        flat = self._flat_keys
        left = np.arange(len(hashes))
        homeless = left[:0]
        while len(left):
            # Buckets fill up from their first slot. In the order first of either, second of either ... the first free
            # slot is therefore in the emptier bucket.
            choice = (seen == 0).transpose(0, 2, 1).reshape(-1, PAIR_SLOTS).argmax(axis=1)
            slots = pairs.reshape(-1).take(np.arange(0, 2 * len(left), 2) + (choice & 1)) * BUCKET_SLOTS + (choice >> 1)
            taken = flat.take(slots)
            if taken.any():
                room = taken == 0
                homeless = np.concatenate([homeless, left[~room]])
                left, pairs, slots, hashes, stamps = left[room], pairs[room], slots[room], hashes[room], stamps[room]
            flat[slots] = hashes
            lost = flat.take(slots) != hashes
            if not lost.any():
                self.stamps[slots] = stamps
                break
            won = ~lost
            self.stamps[slots[won]] = stamps[won]
            left, pairs, hashes, stamps = left[lost], pairs[lost], hashes[lost], stamps[lost]
            seen = self.read(pairs)
        return homeless

    def put(self, slot: int, key: np.uint64, stamp: np.uint32) -> None:
        """Write one slot."""
        self._flat_keys[slot] = key
        self.stamps[slot] = stamp

    def move(self, source: int, target: int) -> None:
        """Move what is in slot `source` to the free slot `target`."""
        for array in (self._flat_keys, self.stamps):
            array[target] = array[source]
            array[source] = 0


def located(pairs: IntArray, seen: HashArray, hashes: HashArray) -> tuple[IntArray, IntArray]:
    """Which hashes are stored, as positions in `hashes` (ascending), and their slots in the flat arrays.

    `seen` is what stands in the hashes' `pairs` of buckets.
    """
    hits = (seen.reshape(-1) == hashes.repeat(PAIR_SLOTS)).nonzero()[0]
    slots = pairs.reshape(-1).take(hits // BUCKET_SLOTS) * BUCKET_SLOTS + (hits & (BUCKET_SLOTS - 1))
    return hits // PAIR_SLOTS, slots
