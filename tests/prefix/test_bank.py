# SPDX-License-Identifier: Apache-2.0
"""Tables and how they make room: everything stored is found, tables do not touch each other."""

from __future__ import annotations

import numpy as np
import pytest

from epp.prefix.bank import BUCKET_SLOTS, BYTES_PER_SLOT, Bank, buckets_for
from epp.prefix.relocation import make_room


def keys(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**64, count, dtype=np.uint64)


def in_buckets(low: int, high: int, count: int) -> np.ndarray:
    """Keys with the two given buckets, an even and an odd one, in tables of 16 buckets."""
    assert low % 2 == 0
    assert high % 2 == 1
    return np.array([(i << 36) | (high << 32) | (i << 4) | low for i in range(1, count + 1)], np.uint64)


def store(bank: Bank, first: int, hashes: np.ndarray, stamp: int = 1) -> list[int]:
    stamps = np.arange(stamp, stamp + len(hashes)).astype(np.uint32)
    pairs = bank.pairs(hashes) + first
    return bank.store(pairs, bank.read(pairs), hashes, stamps).tolist()


def found(bank: Bank, first: int, hashes: np.ndarray) -> list[int]:
    return bank.find(first, hashes)[0].tolist()


@pytest.mark.parametrize("capacity", [1, 10, 48, 49, 1000, 24_576, 31_250, 49_152, 1 << 20])
def test_tables_are_neither_too_full_nor_too_large(capacity: int) -> None:
    slots = buckets_for(capacity) * BUCKET_SLOTS
    assert capacity <= 0.76 * slots
    if capacity > 48:
        assert slots * BYTES_PER_SLOT <= 32.01 * capacity


def test_stored_with_their_stamps_and_only_there() -> None:
    bank = Bank(1024, rows=4)
    first, other = bank.claim(2), bank.claim(0)
    hashes = keys(1700)
    assert store(bank, first, hashes, stamp=5) == []
    positions, slots = bank.find(first, hashes)
    assert positions.tolist() == list(range(1700))
    assert bank.stamps[slots].tolist() == list(range(5, 1705))
    assert found(bank, other, hashes) == []
    assert found(bank, 0, hashes) == []
    assert np.count_nonzero(bank.stamps) == 1700


def test_erased_keys_are_gone_and_the_rest_stays() -> None:
    bank = Bank(64, rows=1)
    first = bank.claim(0)
    hashes = keys(150)
    store(bank, first, hashes)
    _, slots = bank.find(first, hashes)
    bank.erase(slots[::2])
    assert found(bank, first, hashes) == list(range(1, 150, 2))


def test_released_tables_come_back_empty() -> None:
    bank = Bank(16, rows=1)
    hashes = keys(20)
    first = bank.claim(0)
    store(bank, first, hashes)
    bank.release(0)
    assert bank.unused
    assert bank.claim(0) == first
    assert found(bank, first, hashes) == []


def test_reports_keys_whose_buckets_are_full() -> None:
    bank = Bank(16, rows=1)
    first = bank.claim(0)
    homeless = store(bank, first, in_buckets(4, 9, 10))
    assert len(homeless) == 2
    assert sorted(homeless + found(bank, first, in_buckets(4, 9, 10))) == list(range(10))


def test_make_room_moves_keys_to_their_other_bucket() -> None:
    bank = Bank(16, rows=1)
    first = bank.claim(0)
    # Each bucket is full of keys that could move to the next one; bucket 8 is empty.
    ring = [in_buckets(bucket + bucket % 2, bucket + 1 - bucket % 2, 4) for bucket in range(8)]
    ring = [hashes + np.uint64(bucket << 48) for bucket, hashes in enumerate(ring)]
    for offset, hashes in enumerate(ring):
        for slot, key in enumerate(hashes):
            bank.put((first + offset) * BUCKET_SLOTS + slot, key, np.uint32(100 * offset + slot + 1))
    extra = in_buckets(0, 1, 5)[4:]
    slot = make_room(bank, first, int(extra[0]))
    assert slot is not None
    assert slot // BUCKET_SLOTS - first in (0, 1)
    assert bank.stamps[slot] == 0
    bank.put(slot, extra[0], np.uint32(999))
    for offset, hashes in enumerate(ring):
        positions, slots = bank.find(first, hashes)
        assert positions.tolist() == [0, 1, 2, 3]
        assert bank.stamps[slots].tolist() == [100 * offset + i + 1 for i in range(4)]
    assert found(bank, first, extra) == [0]


def test_equal_halves_still_have_two_buckets() -> None:
    bank = Bank(16, rows=1)
    first = bank.claim(0)
    hashes = np.array([0x0000_0005_0000_0005, 0x0000_0004_0000_0004, 0xFFFF_FFFF_FFFF_FFFF], np.uint64)
    assert bank.pairs(hashes).tolist() == [[4, 5], [4, 5], [14, 15]]
    assert [bank.pair(key) for key in hashes.tolist()] == [(4, 5), (4, 5), (14, 15)]
    store(bank, first, hashes)
    assert found(bank, first, hashes) == [0, 1, 2]


def test_make_room_gives_up_where_nothing_can_move() -> None:
    bank = Bank(16, rows=1)
    first = bank.claim(0)
    store(bank, first, in_buckets(4, 9, 8))
    before = bank.keys.copy()
    assert make_room(bank, first, int(in_buckets(4, 9, 9)[8])) is None
    assert (bank.keys == before).all()


@pytest.mark.parametrize("seed", range(20))
def test_holds_its_capacity(seed: int) -> None:
    bank = Bank(buckets_for(48), rows=1)
    first = bank.claim(0)
    hashes = keys(48, seed)
    for position in store(bank, first, hashes):
        slot = make_room(bank, first, int(hashes[position]))
        assert slot is not None
        bank.put(slot, hashes[position], np.uint32(position + 1))
    assert found(bank, first, hashes) == list(range(48))
