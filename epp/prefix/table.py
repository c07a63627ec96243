# SPDX-License-Identifier: Apache-2.0
"""What one endpoint probably holds: chains of blocks, the least recently used of which are forgotten.

Each insertion stamps all blocks of its chain anew: the first block with the highest stamp, the last with the lowest,
all of them above every earlier stamp. So a block's stamp is always above those of the blocks that follow it, and
forgetting the lowest stamps takes least recently used chains first, each from its tail: what is left has no gaps.

Eviction forgets a little more than it must, to be rare: after it at least 15/16 of the capacity are in use (and a
capacity below 16 blocks is used whole). The order is exact.
"""

from __future__ import annotations

import msgspec
import numpy as np

from epp.contract.endpoints import IntArray
from epp.prefix.bank import BUCKET_SLOTS, PAIR_SLOTS, Bank, StampArray
from epp.prefix.eviction import oldest
from epp.prefix.hashing import HashArray
from epp.prefix.relocation import make_room

SLACK = 16
_STAMP_LIMIT = 2**32 - 1


class Insertion(msgspec.Struct, frozen=True, eq=False):
    """What one insertion newly added, so that it can be taken back: block i of `hashes` was stamped `newest - i`."""

    table: Table
    life: int
    hashes: HashArray
    newest: int


class Table:
    """The blocks of the endpoint in `row`, at most `capacity` of them."""

    __slots__ = ("_bank", "_first", "_life", "_newest", "blocks", "capacity", "row")

    def __init__(self, row: int, capacity: int, bank: Bank) -> None:
        self.row = row
        self.capacity = capacity
        self.blocks = 0
        self._bank = bank
        self._first = bank.claim(row)
        self._life = 0
        self._newest = 0

    @property
    def bank(self) -> Bank:
        """Where the blocks are stored."""
        return self._bank

    def insert(self, hashes: HashArray) -> Insertion:
        """Hold this chain from now on; blocks already held become the most recently used. O(blocks).

        A chain above the capacity is cut there.
        """
        bank = self._bank
        if len(hashes) > self.capacity:
            hashes = hashes[: self.capacity]
        if self._newest + len(hashes) >= _STAMP_LIMIT:
            self._renumber()
        self._newest = newest = self._newest + len(hashes)
        stamps = np.arange(newest, newest - len(hashes), -1, dtype=np.uint32)
        slots, places = bank.locate(self.row, hashes)
        known = len(places)
        bank.stamps[slots.take(places)] = stamps[:known]
        added = hashes[known:]
        if len(added):
            excess = self.blocks + len(added) - self.capacity
            if excess > 0:
                self._evict(min(max(excess, self.capacity // SLACK), self.blocks - known))
            added = self._store(slots[PAIR_SLOTS * known :], added, stamps[known:])
        return Insertion(self, self._life, added, newest - known)

    def rollback(self, insertion: Insertion) -> None:
        """Forget what the insertion newly added, but for blocks that a later insertion used as well."""
        if insertion.life != self._life or not len(insertion.hashes):
            return
        held, slots = self._bank.find(self.row, insertion.hashes)
        untouched = slots[self._bank.stamps[slots] == insertion.newest - held]
        self._bank.erase(untouched)
        self.blocks -= len(untouched)

    def clear(self) -> None:
        """Forget everything; insertions so far can no longer be rolled back."""
        self._bank.wipe(self._first)
        self._reset()

    def release(self) -> None:
        """Forget everything and give the storage back; the table is not used again."""
        self._bank.release(self.row)
        self._reset()

    def resize(self, capacity: int) -> None:
        """Change the capacity, forgetting what is above it."""
        self.capacity = capacity
        if self.blocks > capacity:
            self._evict(self.blocks - capacity)

    def move(self, bank: Bank) -> None:
        """Move to another bank; blocks keep their stamps."""
        keys, stamps = self._bank.keys_of(self._first), self._bank.stamps_of(self._first)
        live = stamps.nonzero()[0]
        # The most recently used first: should one find no room, only blocks after it are lost with it.
        live = live[stamps[live].argsort()[::-1]]
        hashes, stamps = keys[live], stamps[live]
        self._bank.release(self.row)
        self._bank, self._first = bank, bank.claim(self.row)
        slots, _ = bank.locate(self.row, hashes)
        self.blocks = 0
        self._store(slots, hashes, stamps)

    def _reset(self) -> None:
        self.blocks = 0
        self._life += 1

    def _store(self, slots: IntArray, hashes: HashArray, stamps: StampArray) -> HashArray:
        """Store new keys, each in one of its eight slots, and return them. Where there is no room even after making
        some, that block and all after it are dropped."""
        self.blocks += len(hashes)
        for position in sorted(self._bank.store(slots, hashes, stamps).tolist()):
            slot = make_room(self._bank, self._first, int(hashes[position]))
            if slot is None:
                _, slots = self._bank.find(self.row, hashes[position:])
                self._bank.erase(slots)
                self.blocks -= len(hashes) - position
                return hashes[:position]
            self._bank.put(slot, hashes[position], stamps[position])
        return hashes

    def _evict(self, count: int) -> None:
        """Forget the `count` (1..blocks) least recently used blocks."""
        victims = oldest(self._bank.stamps_of(self._first), count)
        self._bank.erase(victims + self._first * BUCKET_SLOTS)
        self.blocks -= count

    def _renumber(self) -> None:
        """Stamps start from 1 again, in the same order; earlier insertions can no longer be rolled back."""
        stamps = self._bank.stamps_of(self._first)
        live = stamps.nonzero()[0]
        stamps[live[stamps[live].argsort()]] = np.arange(1, len(live) + 1, dtype=np.uint32)
        self._newest = len(live)
        self._life += 1
