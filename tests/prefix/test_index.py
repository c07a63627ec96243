# SPDX-License-Identifier: Apache-2.0
"""What the model does not reach: sizes, many endpoints, worn-out stamps, hostile keys."""

from __future__ import annotations

import numpy as np
import pytest

from epp.prefix import table as table_module
from epp.prefix.index import MAX_CAPACITY_BLOCKS, PrefixIndex


def chain(blocks: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**64, blocks, dtype=np.uint64)


@pytest.mark.parametrize("endpoints", [1, 3, 32, 300, 700])
@pytest.mark.parametrize("blocks", [1, 2, 7, 36, 150, 1563])
def test_match_finds_each_length(endpoints: int, blocks: int) -> None:
    rng = np.random.default_rng(blocks * endpoints)
    index = PrefixIndex(2000)
    index.reserve(endpoints + 5)
    hashes = chain(blocks, 1)
    rows = rng.permutation(endpoints + 5)[:endpoints]
    lengths = rng.integers(0, blocks + 1, endpoints)
    for row, length in zip(rows, lengths, strict=True):
        index.insert(int(row), hashes[:length])
        index.insert(int(row), chain(20, int(row) + 2))
    assert index.match(hashes, rows).tolist() == lengths.tolist()
    assert index.match(chain(blocks, 10**6), rows).tolist() == [0] * endpoints


def test_match_with_nothing() -> None:
    index = PrefixIndex()
    index.reserve(3)
    rows = np.arange(3)
    assert index.match(chain(5, 1), rows).tolist() == [0, 0, 0]
    index.insert(1, chain(5, 1))
    assert index.match(chain(5, 1)[:0], rows).tolist() == [0, 0, 0]
    assert index.match(chain(5, 1), rows[:0]).tolist() == []
    assert index.match(chain(5, 1), rows).tolist() == [0, 5, 0]


def test_a_row_beyond_the_reserved_ones_is_added() -> None:
    index = PrefixIndex(100)
    index.insert(0, chain(4, 1))
    index.insert(9, chain(4, 1))
    assert index.match(chain(4, 1), np.arange(10)).tolist() == [4, 0, 0, 0, 0, 0, 0, 0, 0, 4]


def test_eviction_keeps_fifteen_sixteenths() -> None:
    capacity = 1000
    index = PrefixIndex(capacity)
    lowest = capacity
    for seed in range(300):
        index.insert(0, chain(36, seed))
        if seed > 30:
            lowest = min(lowest, index.blocks(0))
        assert index.blocks(0) <= capacity
    assert capacity - capacity // 16 <= lowest < capacity


def test_oldest_chain_loses_its_tail_first() -> None:
    index = PrefixIndex(15)
    index.reserve(1)
    one, two, three = chain(6, 1), chain(6, 2), chain(6, 3)
    for hashes in (one, two, one[:1], three):
        index.insert(0, hashes)
    # Three blocks too many: the first chain's, from its end. Its first block was used since.
    matched = [int(index.match(hashes, np.array([0]))[0]) for hashes in (one, two, three)]
    assert matched == [3, 6, 6]


def test_eviction_spares_the_chain_being_inserted() -> None:
    index = PrefixIndex(160)
    hashes = chain(160, 1)
    index.insert(0, hashes[:155])
    index.insert(0, chain(5, 2))
    # Ten blocks would go at once, but only five are not of this chain.
    index.insert(0, hashes)
    assert index.blocks(0) == 160
    assert index.match(hashes, np.array([0])).tolist() == [160]


def test_a_chain_above_the_capacity_is_cut() -> None:
    index = PrefixIndex(10)
    index.insert(0, chain(4, 1))
    insertion = index.insert(0, chain(25, 2))
    assert index.match(chain(25, 2), np.array([0])).tolist() == [10]
    assert index.match(chain(4, 1), np.array([0])).tolist() == [0]
    index.rollback(insertion)
    assert len(index) == 0


def test_rollback_leaves_what_a_later_insertion_used() -> None:
    index = PrefixIndex(100)
    hashes = chain(10, 1)
    first = index.insert(0, hashes)
    index.insert(0, hashes[:6])
    index.rollback(first)
    assert index.match(hashes, np.array([0])).tolist() == [6]
    index.rollback(first)
    assert index.match(hashes, np.array([0])).tolist() == [6]


def test_rollback_never_touches_the_row_s_next_endpoint() -> None:
    index = PrefixIndex(100)
    insertion = index.insert(0, chain(5, 1))
    index.remove_endpoint(0)
    index.insert(0, chain(5, 1))
    index.rollback(insertion)
    assert index.match(chain(5, 1), np.array([0])).tolist() == [5]


def test_stamps_start_again_before_they_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_module, "_STAMP_LIMIT", 500)
    index = PrefixIndex(100)
    index.reserve(1)
    early = index.insert(0, chain(10, 0))
    for seed in range(1, 200):
        index.insert(0, chain(10, seed))
    row = np.array([0])
    held = [int(index.match(chain(10, seed), row)[0]) for seed in range(200)]
    assert held == [0] * 190 + [10] * 10
    index.rollback(early)
    assert index.blocks(0) == 100


def test_keys_made_to_collide_cut_their_own_chain_alone() -> None:
    index = PrefixIndex(1000)
    index.insert(0, chain(200, 1))
    # The same two buckets in any table: only the middle bits differ.
    hostile = np.array([(1 << 63) | (i << 48) | (i << 20) | 7 for i in range(1, 40)], np.uint64)
    insertion = index.insert(0, hostile)
    row = np.array([0])
    held = int(index.match(hostile, row)[0])
    assert held <= 8
    assert index.blocks(0) == 200 + held
    assert index.match(chain(200, 1), row).tolist() == [200]
    index.rollback(insertion)
    assert index.blocks(0) == 200


def test_capacity_is_limited_and_changes_keep_what_fits() -> None:
    index = PrefixIndex(0)
    assert index.capacity(0) == 1
    index.set_capacity(0, 10**9)
    assert index.capacity(0) == MAX_CAPACITY_BLOCKS
    index.set_capacity(0, 100)
    hashes = chain(100, 1)
    index.insert(0, hashes)
    for capacity, left in ((20_000, 100), (30, 30), (100, 30)):
        index.set_capacity(0, capacity)
        assert index.match(hashes, np.array([0])).tolist() == [left]


def test_endpoints_of_different_capacity_are_matched_together() -> None:
    index = PrefixIndex(50)
    index.reserve(40)
    hashes = chain(60, 1)
    for row in range(40):
        index.set_capacity(row, (50, 500, 5000)[row % 3])
        index.insert(row, hashes[: row + 1])
    rows = np.arange(39, -1, -1)
    assert index.match(hashes, rows).tolist() == list(range(40, 0, -1))
    for row in range(40):
        index.set_capacity(row, 500)
    assert index.match(hashes, rows).tolist() == list(range(40, 0, -1))
    assert len(index._banks) == 1


def test_bytes_per_block_when_full() -> None:
    index = PrefixIndex()
    for seed in range(21):
        index.insert(0, chain(1500, seed))
    bank = index._banks[0]
    table_bytes = bank.buckets * 4 * (bank.keys.itemsize + bank.stamps.itemsize)
    assert table_bytes / 31_250 <= 32
    assert index.blocks(0) >= 31_250 * 15 // 16
