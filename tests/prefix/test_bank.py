# SPDX-License-Identifier: Apache-2.0
"""Tables and how they make room: everything stored is found, tables do not touch each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from epp.prefix.bank import BUCKET_SLOTS, BYTES_PER_SLOT, FEW, Bank, buckets_for
from epp.prefix.relocation import make_room


def keys(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**64, count, dtype=np.uint64)


def in_buckets(low: int, high: int, count: int) -> np.ndarray:
    """Keys with the two given buckets, an even and an odd one, in tables of 16 buckets."""
    assert low % 2 == 0
    assert high % 2 == 1
    return np.array([(i << 36) | (high << 32) | (i << 4) | low for i in range(1, count + 1)], np.uint64)


def store(bank: Bank, row: int, hashes: np.ndarray, stamp: int = 1) -> list[int]:
    """The positions for which there was no room."""
    stamps = np.arange(stamp, stamp + len(hashes)).astype(np.uint32)
    slots, _ = bank.locate(row, hashes)
    homeless = []
    for position in bank.store(slots, hashes, stamps).tolist():
        slot = make_room(bank, int(bank.first[row]), int(hashes[position]))
        if slot is None:
            homeless.append(position)
        else:
            bank.put(slot, hashes[position], stamps[position])
    return homeless


def found(bank: Bank, row: int, hashes: np.ndarray) -> list[int]:
    return bank.find(row, hashes)[0].tolist()


@pytest.mark.parametrize("capacity", [1, 10, 48, 49, 1000, 24_576, 31_250, 49_152, 1 << 20])
def test_tables_are_neither_too_full_nor_too_large(capacity: int) -> None:
    slots = buckets_for(capacity) * BUCKET_SLOTS
    assert capacity <= 0.76 * slots
    if capacity > 48:
        assert slots * BYTES_PER_SLOT <= 32.01 * capacity


def test_stored_with_their_stamps_and_only_there() -> None:
    bank = Bank(1024, rows=4)
    bank.claim(2)
    bank.claim(0)
    hashes = keys(1700)
    assert store(bank, 2, hashes, stamp=5) == []
    positions, slots = bank.find(2, hashes)
    assert positions.tolist() == list(range(1700))
    assert bank.stamps[slots].tolist() == list(range(5, 1705))
    assert found(bank, 0, hashes) == []
    assert found(bank, 1, hashes) == []
    assert np.count_nonzero(bank.stamps) == 1700


def test_erased_keys_are_gone_and_the_rest_stays() -> None:
    bank = Bank(64, rows=1)
    bank.claim(0)
    hashes = keys(150)
    store(bank, 0, hashes)
    _, slots = bank.find(0, hashes)
    bank.erase(slots[::2])
    assert found(bank, 0, hashes) == list(range(1, 150, 2))


def test_released_tables_come_back_empty() -> None:
    bank = Bank(16, rows=1)
    hashes = keys(20)
    first = bank.claim(0)
    store(bank, 0, hashes)
    bank.release(0)
    assert bank.unused
    assert bank.claim(0) == first
    assert found(bank, 0, hashes) == []


def test_reports_keys_whose_buckets_are_full() -> None:
    bank = Bank(16, rows=1)
    bank.claim(0)
    homeless = store(bank, 0, in_buckets(4, 9, 10))
    assert len(homeless) == 2
    assert sorted(homeless + found(bank, 0, in_buckets(4, 9, 10))) == list(range(10))


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
        positions, slots = bank.find(0, hashes)
        assert positions.tolist() == [0, 1, 2, 3]
        assert bank.stamps[slots].tolist() == [100 * offset + i + 1 for i in range(4)]
    assert found(bank, 0, extra) == [0]


def test_equal_halves_still_have_two_buckets() -> None:
    bank = Bank(16, rows=1)
    first = bank.claim(0)
    hashes = np.array([0x0000_0005_0000_0005, 0x0000_0004_0000_0004, 0xFFFF_FFFF_FFFF_FFFF], np.uint64)
    buckets = bank.read(hashes, bank.bases[:1]).buckets - first
    assert buckets.tolist() == [[4, 5, 4, 5, 14, 15]]
    assert [bank.pair(key) for key in hashes.tolist()] == [(4, 5), (4, 5), (14, 15)]
    for position in range(3):
        slots, _ = bank.locate(0, hashes[position : position + 1])
        bank.put(slots[5], hashes[position], np.uint32(1))
        assert found(bank, 0, hashes[position : position + 1]) == [0]
        bank.erase(slots)


def test_make_room_gives_up_where_nothing_can_move() -> None:
    bank = Bank(16, rows=1)
    first = bank.claim(0)
    store(bank, 0, in_buckets(4, 9, 8))
    before = bank.keys.copy()
    assert make_room(bank, first, int(in_buckets(4, 9, 9)[8])) is None
    assert (bank.keys == before).all()


@pytest.mark.parametrize("seed", range(20))
def test_holds_its_capacity(seed: int) -> None:
    bank = Bank(buckets_for(48), rows=1)
    bank.claim(0)
    hashes = keys(48, seed)
    assert store(bank, 0, hashes) == []
    positions, slots = bank.find(0, hashes)
    assert positions.tolist() == list(range(48))
    assert bank.stamps[slots].tolist() == list(range(1, 49))


def test_at_most_a_few_are_left_while_there_is_room() -> None:
    bank = Bank(1024, rows=1)
    bank.claim(0)
    for count in range(1, 60):
        hashes = keys(count, count)
        slots, _ = bank.locate(0, hashes)
        left = bank.store(slots, hashes, np.arange(1, count + 1, dtype=np.uint32)).tolist()
        assert len(left) <= FEW
        assert sorted(left + found(bank, 0, hashes)) == list(range(count))


def test_a_new_key_takes_the_first_free_slot_of_the_emptier_bucket() -> None:
    bank = Bank(16, rows=1)
    first = bank.claim(0)
    occupied = keys(3)
    hashes = np.concatenate([in_buckets(0, 1, 1), in_buckets(2, 5, 1), in_buckets(6, 7, 1), keys(FEW)])
    for slot, key in zip((0, 20, 28), occupied, strict=True):
        bank.put(first * BUCKET_SLOTS + slot, key, np.uint32(1))
    store(bank, 0, hashes)
    held = bank.find(0, hashes[:3])[1] - first * BUCKET_SLOTS
    # Buckets 1, 2 and 6: bucket 0, 5 and 7 have one key each.
    assert held.tolist() == [4, 8, 24]


WRITES: dict[str, Callable[[Bank, np.ndarray], object]] = {
    "store": lambda bank, hashes: store(bank, 1, hashes),
    "erase": lambda bank, hashes: bank.erase(bank.find(0, hashes)[1]),
    "wipe": lambda bank, hashes: bank.wipe(int(bank.first[0])),
    "release": lambda bank, hashes: bank.release(0),
    "claim": lambda bank, hashes: bank.claim(2),
    "put": lambda bank, hashes: bank.put(int(bank.first[1]) * BUCKET_SLOTS, hashes[0], np.uint32(1)),
    "move": lambda bank, hashes: bank.move(int(bank.find(0, hashes)[1][0]), (int(bank.first[0]) + 8) * BUCKET_SLOTS),
}


@pytest.mark.parametrize("write", WRITES)
def test_what_a_match_read_is_used_until_a_key_is_written(write: str) -> None:
    bank = Bank(16, rows=3)
    bank.claim(0)
    bank.claim(1)
    hashes = in_buckets(2, 5, 6)
    store(bank, 0, hashes)
    assert bank.match(hashes, np.array([1, 2, 0])).tolist() == [0, 0, 6]
    assert bank._recent is not None
    assert [found(bank, row, hashes) for row in range(3)] == [list(range(6)), [], []]
    WRITES[write](bank, hashes)
    fresh = hashes.copy()
    for row in range(3):
        for now, then in zip(bank.locate(row, hashes), bank.locate(row, fresh), strict=True):
            assert now.tolist() == then.tolist()


def test_a_row_that_was_not_matched_is_read_anew() -> None:
    bank = Bank(16, rows=2)
    bank.claim(0)
    bank.claim(1)
    hashes = keys(5)
    store(bank, 1, hashes)
    assert bank.match(hashes, np.array([0])).tolist() == [0]
    assert found(bank, 1, hashes) == list(range(5))
