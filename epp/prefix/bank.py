# SPDX-License-Identifier: Apache-2.0
"""Storage: many equally large hash tables of block hashes in two flat arrays.

A table is a run of buckets of four slots; a slot is a key (a block's hash, 0 when free) and a stamp (when it was last
used, 0 when free): 12 bytes. A key may stand in two buckets alone, given by the two halves of the hash, so that a
lookup reads eight slots, whatever the table went through, and erasing is writing zeros. One is even, one odd.

Pages of the arrays become resident when something is written to them. Table 0 of a bank stays empty: rows without a
table of their own look there. A real hash of 0 (one in 2^64) would look like a free slot; it costs one wrong match.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from epp.contract.endpoints import BoolArray, IntArray
from epp.prefix.hashing import HashArray

BUCKET_SLOTS = 4
PAIR_SLOTS = 2 * BUCKET_SLOTS
MAX_LOAD = 0.75
BYTES_PER_SLOT = 12
# So few keys are placed one by one.
FEW = 4
_SLOTS_PER_BANK = 1 << 24
_MIN_BUCKETS = 16
_ODD = 1 << 32

StampArray = NDArray[np.uint32]

# NumPy takes arrays and its own types faster than what it has to make into such.
_SLOTS_PER_BUCKET = np.array(BUCKET_SLOTS)
_SLOTS_OF_BUCKET = np.arange(BUCKET_SLOTS)
_HALF = np.dtype(np.uint32)
_INDEX = np.dtype(np.int64)


def buckets_for(capacity: int) -> int:
    """Buckets of a table that holds `capacity` keys at no more than `MAX_LOAD`: a power of two."""
    wanted = int(capacity / MAX_LOAD / BUCKET_SLOTS) + 1
    return max(_MIN_BUCKETS, 1 << (wanted - 1).bit_length())


def _choices() -> IntArray:
    """By which slots of a pair of buckets are free, one bit each, the first the highest: the slot to take, 0..7."""
    free = np.unpackbits(np.arange(1 << PAIR_SLOTS, dtype=np.uint8)).reshape(-1, 2, BUCKET_SLOTS)
    even, odd = free.argmax(axis=2).T
    free_even, free_odd = free.sum(axis=2).T
    # The first of the emptier bucket.
    chosen: IntArray = np.where(free_even >= free_odd, even, BUCKET_SLOTS + odd)
    return chosen


class Reading(msgspec.Struct, frozen=True, eq=False):
    """Where blocks may stand in some tables, and where they do.

    * buckets: shape (tables, 2 * blocks), both of a block's side by side; counted from the bank's first
    * equal: shape (tables, 8 * blocks), for each slot of these buckets whether it holds the block
    """

    buckets: IntArray
    equal: BoolArray

    def held(self) -> IntArray:
        """How many of the blocks each table holds, shape (tables,)."""
        # One slot of a pair at most is equal.
        held: IntArray = np.add.reduce(self.equal, axis=1, dtype=_INDEX)
        return held


class Bank:
    """Tables of `buckets` buckets each.

    * keys: shape (all buckets, 4); stamps: shape (all slots,)
    * bases: by row, shape (rows, 1), a word whose low half is the first bucket of the row's table (0, that is the
      empty table, for rows that have none here) and whose high half is the bucket after it
    """

    __slots__ = ("_choice", "_flat_keys", "_free", "_mask", "_recent", "_tables", "bases", "buckets", "keys", "stamps")

    def __init__(self, buckets: int, rows: int) -> None:
        tables = min(256, max(16, _SLOTS_PER_BANK // (buckets * BUCKET_SLOTS)))
        self._tables = tables
        self.buckets = buckets
        self._mask: HashArray = np.array((buckets - 2) << 32 | (buckets - 2), np.uint64)
        self.keys: HashArray = np.zeros(((tables + 1) * buckets, BUCKET_SLOTS), np.uint64)
        self.stamps: StampArray = np.zeros((tables + 1) * buckets * BUCKET_SLOTS, np.uint32)
        self.bases: HashArray = np.full((rows, 1), _ODD, np.uint64)
        self._flat_keys: HashArray = self.keys.reshape(-1)
        self._choice = _choices()
        self._free = [table * buckets for table in range(tables, 0, -1)]
        # A request is matched and then, mostly at once, inserted. True until a key is written.
        self._recent: tuple[HashArray, IntArray, Reading] | None = None

    @property
    def full(self) -> bool:
        """No table is left to claim."""
        return not self._free

    @property
    def unused(self) -> bool:
        """No table is claimed."""
        return len(self._free) == self._tables

    @property
    def first(self) -> StampArray:
        """By row, the first bucket of the row's table, 0 for rows that have none here."""
        return self.bases.view(np.uint32)[:, 0]

    def grow(self, rows: int) -> None:
        """Know rows up to `rows`."""
        self.bases = np.concatenate([self.bases, np.full((rows - len(self.bases), 1), _ODD, np.uint64)])

    def claim(self, row: int) -> int:
        """Give `row` an empty table; returns its first bucket."""
        first = self._free.pop()
        self.bases[row] = (first << 32 | first) + _ODD
        self._recent = None
        return first

    def release(self, row: int) -> None:
        """Empty the row's table and take it back."""
        first = int(self.first[row])
        self.wipe(first)
        self.bases[row] = _ODD
        self._free.append(first)

    def wipe(self, first: int) -> None:
        """Free all slots of the table at bucket `first`."""
        self.keys[first : first + self.buckets] = 0
        self.stamps_of(first)[:] = 0
        self._recent = None

    def keys_of(self, first: int) -> HashArray:
        """A view of one table's keys, shape (slots,)."""
        return self._flat_keys[first * BUCKET_SLOTS : (first + self.buckets) * BUCKET_SLOTS]

    def stamps_of(self, first: int) -> StampArray:
        """A view of one table's stamps, shape (slots,)."""
        return self.stamps[first * BUCKET_SLOTS : (first + self.buckets) * BUCKET_SLOTS]

    def pair(self, key: int) -> tuple[int, int]:
        """The two buckets of one hash, counted from a table's first."""
        mask = self.buckets - 2
        return key & mask, key >> 32 & mask | 1

    def read(self, hashes: HashArray, bases: HashArray) -> Reading:
        """Look for blocks in the tables at `bases` (shape (tables, 1)). `hashes` has shape (blocks,), or
        (tables, blocks) when other blocks are looked for in each."""
        # Both halves of a hash become buckets at once; the base adds the odd bit too.
        buckets = ((hashes & self._mask) + bases).view(_HALF).astype(_INDEX)
        seen = self.keys.take(buckets, axis=0).reshape(len(bases), -1)
        return Reading(buckets, seen == hashes.repeat(PAIR_SLOTS, -1))

    def match(self, hashes: HashArray, rows: IntArray) -> IntArray:
        """How many of the blocks each row holds. What was read is kept for an insertion that follows."""
        reading = self.read(hashes, self.bases.take(rows, axis=0))
        self._recent = hashes, rows, reading
        return reading.held()

    def locate(self, row: int, hashes: HashArray) -> tuple[IntArray, IntArray]:
        """Where the blocks may stand in the row's table: their slots, shape (8 * blocks,); and where they do: places
        in the former, ascending."""
        reading, table = self._read_of(row, hashes)
        slots = reading.buckets[table].reshape(-1, 1) * _SLOTS_PER_BUCKET + _SLOTS_OF_BUCKET
        return slots.reshape(-1), reading.equal[table].nonzero()[0]

    def find(self, row: int, hashes: HashArray) -> tuple[IntArray, IntArray]:
        """Which hashes the row's table holds, as positions in `hashes` (ascending), and their slots."""
        slots, places = self.locate(row, hashes)
        return places // PAIR_SLOTS, slots.take(places)

    def erase(self, slots: IntArray) -> None:
        """Free these slots."""
        self._flat_keys[slots] = 0
        self.stamps[slots] = 0
        self._recent = None

    def store(self, slots: IntArray, hashes: HashArray, stamps: StampArray) -> IntArray:
        """Put new, distinct keys into one table, each into one of its eight `slots` (shape (8 * blocks,)).

        Returns the positions, in no order, of those that are left to be placed one by one: both buckets were full,
        or there were but a `FEW`.
        """
        if len(hashes) <= FEW:
            return np.arange(len(hashes))
        self._recent = None
        free = np.packbits(np.logical_not(self._flat_keys.take(slots)))
        fits = free.nonzero()[0]
        if len(fits) < len(free):
            return np.concatenate([(free == 0).nonzero()[0], self._store_some(fits, slots, hashes, stamps)])
        chosen = slots.take(self._choice.take(free) + np.arange(0, len(slots), PAIR_SLOTS))
        # Keys that chose the same slot overwrite each other, the last one counts, with its stamp. What was written is
        # read back, and losers try again.
        self._flat_keys[chosen] = hashes
        self.stamps[chosen] = stamps
        lost = (self._flat_keys.take(chosen) != hashes).nonzero()[0]
        return self._store_some(lost, slots, hashes, stamps) if len(lost) else lost

    def put(self, slot: int, key: np.uint64, stamp: np.uint32) -> None:
        """Write one slot."""
        self._flat_keys[slot] = key
        self.stamps[slot] = stamp
        self._recent = None

    def move(self, source: int, target: int) -> None:
        """Move what is in slot `source` to the free slot `target`."""
        for array in (self._flat_keys, self.stamps):
            array[target] = array[source]
            array[source] = 0
        self._recent = None

    def _read_of(self, row: int, hashes: HashArray) -> tuple[Reading, int]:
        """A reading of these blocks, and which of its tables is the row's."""
        if self._recent is not None and self._recent[0] is hashes:
            _, rows, reading = self._recent
            known = rows.tolist()
            if row in known:
                return reading, known.index(row)
        return self.read(hashes, self.bases[row : row + 1]), 0

    def _store_some(self, which: IntArray, slots: IntArray, hashes: HashArray, stamps: StampArray) -> IntArray:
        """As `store`, of the keys at these positions alone."""
        slots = slots.reshape(-1, PAIR_SLOTS)[which].reshape(-1)
        return which.take(self.store(slots, hashes[which], stamps[which]))
