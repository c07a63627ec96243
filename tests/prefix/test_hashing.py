# SPDX-License-Identifier: Apache-2.0
"""Chains of block hashes against the rule written out plainly."""

from __future__ import annotations

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from epp.prefix.hashing import block_hashes, chain_seed


def plain_chain(stream: bytes, seed: int, block_bytes: int) -> list[int]:
    ends = range(block_bytes, len(stream) + block_bytes, block_bytes)
    return [xxhash.xxh64(stream[:end], seed=seed).intdigest() for end in ends]


def test_the_seed_is_xxh64_of_model_and_salt() -> None:
    # The vector of the specification, as far as it concerns the seed.
    assert chain_seed("m") == 0xBA2E567083A2B2E8


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1), st.integers(1, 40))
def test_equals_the_plain_rule(stream: bytes, seed: int, block_bytes: int) -> None:
    chain = plain_chain(stream, seed, block_bytes)
    whole = len(stream) // block_bytes
    assert block_hashes(stream, seed, block_bytes).tolist() == chain
    assert block_hashes(stream, seed, block_bytes, partial=False).tolist() == chain[:whole]


@pytest.mark.parametrize(
    ("max_blocks", "partial", "blocks"),
    [(None, True, 3), (None, False, 2), (3, True, 3), (2, True, 2), (1, True, 1), (0, True, 0), (9, False, 2)],
)
def test_limit_and_last_partial_block(max_blocks: int | None, partial: bool, blocks: int) -> None:
    stream = bytes(range(20))
    hashes = block_hashes(stream, 7, 8, max_blocks, partial)
    assert hashes.tolist() == plain_chain(stream, 7, 8)[:blocks]


def test_shared_only_up_to_the_first_difference() -> None:
    one = block_hashes(b"aaaabbbbccccdddd", 1, 4)
    two = block_hashes(b"aaaabbbbXcccdddd", 1, 4)
    assert (one == two).tolist() == [True, True, False, False]


def test_model_and_salt_start_different_chains() -> None:
    seeds = {chain_seed("m"), chain_seed("n"), chain_seed("m", "salt"), chain_seed("\ud800")}
    assert len(seeds) == 4
    assert chain_seed("m", "n") == chain_seed("mn")


def test_no_bytes_no_blocks() -> None:
    assert block_hashes(b"", 1, 64).shape == (0,)
