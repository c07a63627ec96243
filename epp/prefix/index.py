# SPDX-License-Identifier: Apache-2.0
"""The approximate prefix index: which blocks of which chains each endpoint probably holds.

An endpoint is its row in the pool table. It holds a block only if it holds all blocks before it, and at most its
capacity; which blocks it forgets then is told in `table`. Blocks are counted, tokens are the caller's matter.

Sizes: 12 bytes a slot; a table is a power of two of slots, 31,250 blocks have 65,536: 25.2 bytes per block when
full. Memory becomes resident as it is used. Nothing here ever copies more than one endpoint's table.
"""

from __future__ import annotations

import numpy as np

from epp.contract.endpoints import IntArray
from epp.prefix.bank import Bank, buckets_for
from epp.prefix.hashing import HashArray
from epp.prefix.search import matched_blocks
from epp.prefix.table import Insertion, Table

MAX_CAPACITY_BLOCKS = 1 << 20


class PrefixIndex:
    """Chains of blocks by row. Rows without a capacity of their own have `capacity_blocks`."""

    def __init__(self, capacity_blocks: int = 31_250) -> None:
        self._default = _limited(capacity_blocks)
        self._capacity: list[int] = []
        self._tables: list[Table | None] = []
        self._banks: list[Bank] = []

    def __len__(self) -> int:
        """Blocks held, summed over all endpoints."""
        return sum(table.blocks for table in self._tables if table is not None)

    def reserve(self, rows: int) -> None:
        """Know rows 0..rows-1; needed before they are matched."""
        extra = rows - len(self._tables)
        if extra > 0:
            self._tables += [None] * extra
            self._capacity += [self._default] * extra
            for bank in self._banks:
                bank.grow(rows)

    def match(self, hashes: HashArray, rows: IntArray) -> IntArray:
        """How many leading blocks of the chain each of `rows` holds, 0..len(hashes), in the order of `rows`.

        Changes nothing, recency included.
        """
        if not len(hashes) or not len(rows) or not self._banks:
            return np.zeros(len(rows), np.int64)
        if len(self._banks) == 1:
            return matched_blocks(self._banks[0], hashes, rows)
        matched = np.zeros(len(rows), np.int64)
        for bank in self._banks:
            here = bank.first.take(rows).nonzero()[0]
            if len(here):
                matched[here] = matched_blocks(bank, hashes, rows[here])
        return matched

    def insert(self, row: int, hashes: HashArray) -> Insertion:
        """`row` holds this chain from now on, as its most recently used one; a chain above its capacity is cut."""
        self.reserve(row + 1)
        table = self._tables[row]
        if table is None:
            capacity = self._capacity[row]
            table = self._tables[row] = Table(row, capacity, self._bank_for(capacity))
        return table.insert(hashes)

    def rollback(self, insertion: Insertion) -> None:
        """Take back what the insertion newly added, but for blocks that a later insertion used as well.

        Does nothing once the endpoint was cleared or removed, whoever has its row now.
        """
        insertion.table.rollback(insertion)

    def blocks(self, row: int) -> int:
        """How many blocks `row` holds."""
        table = self._tables[row] if row < len(self._tables) else None
        return 0 if table is None else table.blocks

    def capacity(self, row: int) -> int:
        """How many blocks `row` can hold."""
        return self._capacity[row] if row < len(self._capacity) else self._default

    def set_capacity(self, row: int, blocks: int) -> None:
        """Let `row` hold up to `blocks` (limited to 1..`MAX_CAPACITY_BLOCKS`), forgetting what is above."""
        self.reserve(row + 1)
        blocks = _limited(blocks)
        if blocks == self._capacity[row]:
            return
        self._capacity[row] = blocks
        table = self._tables[row]
        if table is not None:
            table.resize(blocks)
            if table.bank.buckets != buckets_for(blocks):
                before = table.bank
                table.move(self._bank_for(blocks))
                self._drop_if_unused(before)

    def clear(self, row: int) -> None:
        """Forget what `row` holds."""
        table = self._tables[row] if row < len(self._tables) else None
        if table is not None:
            table.clear()

    def remove_endpoint(self, row: int) -> None:
        """Forget `row`, its capacity included; the row may be another endpoint's next."""
        table = self._tables[row] if row < len(self._tables) else None
        if table is not None:
            bank = table.bank
            table.release()
            self._tables[row] = None
            self._drop_if_unused(bank)
        if row < len(self._capacity):
            self._capacity[row] = self._default

    def _bank_for(self, capacity: int) -> Bank:
        buckets = buckets_for(capacity)
        for bank in self._banks:
            if bank.buckets == buckets and not bank.full:
                return bank
        bank = Bank(buckets, len(self._tables))
        self._banks.append(bank)
        return bank

    def _drop_if_unused(self, bank: Bank) -> None:
        # Every bank costs each match a search, so an empty one is only kept when it is the last.
        if bank.unused and len(self._banks) > 1:
            self._banks.remove(bank)


def _limited(blocks: int) -> int:
    return max(1, min(blocks, MAX_CAPACITY_BLOCKS))
