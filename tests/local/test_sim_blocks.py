# SPDX-License-Identifier: Apache-2.0
"""The KV block pool of the simulated engine: chains, eviction order, and its bookkeeping under random use."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.local.sim.blocks import BlockPool, chain_hashes


def test_a_hash_covers_everything_before_it() -> None:
    head, tail = b"a" * 64, b"b" * 64
    one, two = chain_hashes(head + tail, 16)
    assert chain_hashes(head, 16) == (one,)
    assert chain_hashes(tail, 16) != (two,)
    assert chain_hashes(b"c" * 64 + tail, 16)[1] != two


@pytest.mark.parametrize(("length", "blocks"), [(0, 0), (63, 0), (64, 1), (127, 1), (128, 2)])
def test_only_full_blocks_have_a_hash(length: int, blocks: int) -> None:
    assert len(chain_hashes(b"x" * length, 16)) == blocks


def test_a_salt_separates_tenants() -> None:
    assert chain_hashes(b"x" * 64, 16, b"a") != chain_hashes(b"x" * 64, 16, b"b")


def test_released_blocks_stay_until_their_room_is_needed_and_go_from_the_tail() -> None:
    pool = BlockPool(4)
    assert pool.take(3)
    assert all(pool.name(block) for block in (1, 2, 3))
    pool.release([1, 2, 3], 0)
    assert (pool.held, pool.cached, pool.utilization) == (0, 3, 0.0)
    assert pool.match([1, 2, 3]) == 3
    assert pool.take(2)
    assert pool.match([1, 2, 3]) == 2
    pool.hold([1, 2])
    assert not pool.take(1)
    assert pool.utilization == 1.0


def test_two_holders_share_a_block() -> None:
    pool = BlockPool(2)
    assert pool.take(1)
    assert pool.name(7)
    pool.hold([7])
    pool.release([7], 0)
    assert pool.held == 1
    assert pool.take(1)
    assert not pool.name(7)
    pool.release([7], 1)
    assert (pool.held, pool.cached) == (0, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.booleans()), max_size=40))
def test_a_pool_never_holds_more_than_it_has(uses: list[tuple[int, int, bool]]) -> None:
    pool = BlockPool(10)
    live: list[tuple[list[int], int]] = []
    for chain, length, drop in uses:
        hashes = [chain * 100 + i for i in range(length)]
        hits = hashes[: pool.match(hashes)]
        pool.hold(hits)
        if pool.take(length - len(hits)):
            named = list(hits)
            for block in hashes[len(hits) :]:
                if not pool.name(block):
                    break
                named.append(block)
            live.append((named, length - len(named)))
        else:
            pool.release(hits, 0)
        assert pool.held + pool.cached <= pool.size
        assert pool.held == len({block for named, _ in live for block in named}) + sum(blank for _, blank in live)
        if drop and live:
            pool.release(*live.pop(0))
    for named, blank in live:
        pool.release(named, blank)
    assert pool.held == 0
