# SPDX-License-Identifier: Apache-2.0
"""The index against a naive model: dictionaries of blocks, explicit trees, recency as (insertion, depth).

The model evicts block by block and insists that each one is a leaf. Both must hold exactly the same blocks after
every step, so matches, capacity, eviction order, rollback and removal are all compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from epp.prefix.hashing import block_hashes
from epp.prefix.index import PrefixIndex
from epp.prefix.table import SLACK, Insertion

ROWS = 4
DEFAULT_CAPACITY = 40


@dataclass
class ModelBlock:
    parent: int | None
    touched: tuple[int, int]
    children: set[int] = field(default_factory=set)


@dataclass
class ModelInsertion:
    row: int
    life: int
    touched: dict[int, tuple[int, int]]


class ModelEndpoint:
    def __init__(self) -> None:
        self.capacity = DEFAULT_CAPACITY
        self.blocks: dict[int, ModelBlock] = {}
        self.life = 0

    def matched(self, chain: list[int]) -> int:
        for depth, block in enumerate(chain):
            if block not in self.blocks:
                return depth
        return len(chain)

    def evict(self, count: int) -> None:
        for _ in range(count):
            block = min(self.blocks, key=lambda b: self.blocks[b].touched)
            assert not self.blocks[block].children, "an inner block before its children"
            self.remove(block)

    def remove(self, block: int) -> None:
        parent = self.blocks.pop(block).parent
        if parent is not None:
            self.blocks[parent].children.discard(block)

    def insert(self, chain: list[int], now: int) -> dict[int, tuple[int, int]]:
        chain = chain[: self.capacity]
        known = self.matched(chain)
        excess = len(self.blocks) + len(chain) - known - self.capacity
        for depth, block in enumerate(chain[:known]):
            self.blocks[block].touched = (now, -depth)
        if excess > 0:
            self.evict(min(max(excess, self.capacity // SLACK), len(self.blocks) - known))
        for depth in range(known, len(chain)):
            parent = chain[depth - 1] if depth else None
            self.blocks[chain[depth]] = ModelBlock(parent, (now, -depth))
            if parent is not None:
                self.blocks[parent].children.add(chain[depth])
        return {block: self.blocks[block].touched for block in chain[known:]}


class IndexMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(DEFAULT_CAPACITY)
        self.model = [ModelEndpoint() for _ in range(ROWS)]
        self.insertions: list[tuple[Insertion, ModelInsertion]] = []
        self.chains: list[np.ndarray] = []
        self.now = 0

    @initialize(seed=st.integers(0, 2**32))
    def start(self, seed: int) -> None:
        self.seed = seed
        self.index.reserve(ROWS)

    def chain(self, path: bytes) -> np.ndarray:
        return block_hashes(path, self.seed, 1)

    rows = st.integers(0, ROWS - 1)
    # Few letters, and runs of them: paths that share beginnings and grow long enough to overflow.
    paths = st.lists(st.tuples(st.sampled_from(b"abc"), st.integers(1, 9)), min_size=1, max_size=8).map(
        lambda runs: b"".join(bytes([letter]) * length for letter, length in runs)
    )

    @rule(row=rows, path=paths)
    def insert(self, row: int, path: bytes) -> None:
        self.now += 1
        chain = self.chain(path)
        self.chains.append(chain)
        endpoint = self.model[row]
        added = endpoint.insert(chain.tolist(), self.now)
        self.insertions.append((self.index.insert(row, chain), ModelInsertion(row, endpoint.life, added)))

    @rule(row=rows, pick=st.integers(0, 10**6))
    @precondition(lambda self: self.chains)
    def insert_again(self, row: int, pick: int) -> None:
        self.now += 1
        chain = self.chains[pick % len(self.chains)]
        endpoint = self.model[row]
        added = endpoint.insert(chain.tolist(), self.now)
        self.insertions.append((self.index.insert(row, chain), ModelInsertion(row, endpoint.life, added)))

    @rule(row=rows, path=paths, candidates=st.lists(rows, min_size=1, max_size=ROWS, unique=True))
    def match_and_insert(self, row: int, path: bytes, candidates: list[int]) -> None:
        self.now += 1
        chain = self.chain(path)
        self.chains.append(chain)
        endpoint = self.model[row]
        matched = self.index.match(chain, np.array(candidates)).tolist()
        assert matched == [self.model[candidate].matched(chain.tolist()) for candidate in candidates]
        added = endpoint.insert(chain.tolist(), self.now)
        self.insertions.append((self.index.insert(row, chain), ModelInsertion(row, endpoint.life, added)))

    @rule(pick=st.integers(0, 10**6))
    @precondition(lambda self: self.insertions)
    def rollback(self, pick: int) -> None:
        insertion, modelled = self.insertions.pop(pick % len(self.insertions))
        self.index.rollback(insertion)
        endpoint = self.model[modelled.row]
        if endpoint.life != modelled.life:
            return
        for block, touched in reversed(modelled.touched.items()):
            held = endpoint.blocks.get(block)
            if held is not None and held.touched == touched:
                assert not held.children
                endpoint.remove(block)

    @rule(row=rows, capacity=st.sampled_from([1, 5, 17, 40, 100, 200]))
    def set_capacity(self, row: int, capacity: int) -> None:
        self.index.set_capacity(row, capacity)
        endpoint = self.model[row]
        endpoint.capacity = capacity
        endpoint.evict(max(0, len(endpoint.blocks) - capacity))

    @rule(row=rows)
    def clear(self, row: int) -> None:
        self.index.clear(row)
        self.model[row].blocks.clear()
        self.model[row].life += 1

    @rule(row=rows)
    def remove(self, row: int) -> None:
        self.index.remove_endpoint(row)
        life = self.model[row].life
        self.model[row] = ModelEndpoint()
        self.model[row].life = life + 1

    @rule(path=paths, rows=st.lists(rows, min_size=1, max_size=ROWS, unique=True))
    def match(self, path: bytes, rows: list[int]) -> None:
        chain = self.chain(path)
        expected = [self.model[row].matched(chain.tolist()) for row in rows]
        assert self.index.match(chain, np.array(rows)).tolist() == expected

    @invariant()
    def same_blocks(self) -> None:
        for row, endpoint in enumerate(self.model):
            assert self.index.blocks(row) == len(endpoint.blocks) <= endpoint.capacity
            assert self.index.capacity(row) == endpoint.capacity
        assert len(self.index) == sum(len(endpoint.blocks) for endpoint in self.model)
        everybody = np.arange(ROWS)
        for chain in self.chains[-5:]:
            expected = [endpoint.matched(chain.tolist()) for endpoint in self.model]
            assert self.index.match(chain, everybody).tolist() == expected


TestIndexMachine = IndexMachine.TestCase
TestIndexMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None, derandomize=True)
