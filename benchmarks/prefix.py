# SPDX-License-Identifier: Apache-2.0
"""Hashing a prompt of 100,000 tokens and matching it against 256 endpoints whose index is full.

    python benchmarks/prefix.py

64-token blocks, 31,250 per endpoint. Prompts take turns, and each endpoint holds another length of each, spread
evenly: the worst case for a search. The reference, in the same run, is the obvious index, that of the Go EPP in
Python: dictionaries from block to endpoints and, least recently used first, from endpoint to blocks. It holds the
same lengths of the same prompts; its memory is that of `REFERENCE_ENDPOINTS` endpoints with blocks nobody shares.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import xxhash

from epp.contract.endpoints import IntArray
from epp.prefix.hashing import HashArray, block_hashes
from epp.prefix.index import PrefixIndex

BUDGET_MS = 1.5
BUDGET_BYTES = 32.0
ENDPOINTS = 256
CAPACITY_BLOCKS = 31_250
BLOCK_BYTES = 256
PROMPT_TOKENS = 100_000
PROMPTS = 4
TURNS = 25
REFERENCE_ENDPOINTS = 8
SMALL_CASES = ((36, 4), (150, 32))
SMALL_TURNS = 400


class DictIndex:
    """Block -> the endpoints that hold it; endpoint -> its blocks, the least recently used first."""

    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self.holders: dict[int, set[int]] = {}
        self.blocks: dict[int, OrderedDict[int, None]] = {}

    def insert(self, row: int, hashes: list[int]) -> None:
        """Hold each block; forget the least recently used ones above the capacity."""
        held = self.blocks.setdefault(row, OrderedDict())
        for block in hashes:
            held[block] = None
            held.move_to_end(block)
            self.holders.setdefault(block, set()).add(row)
            if len(held) > self.capacity_blocks:
                oldest, _ = held.popitem(last=False)
                self.holders[oldest].discard(row)
                if not self.holders[oldest]:
                    del self.holders[oldest]

    def match(self, hashes: list[int]) -> dict[int, int]:
        """Blocks held by each endpoint before the first block that nobody holds."""
        matched: dict[int, int] = {}
        for block in hashes:
            holders = self.holders.get(block)
            if not holders:
                break
            for row in holders:
                matched[row] = matched.get(row, 0) + 1
        return matched


def plain_hashes(stream: bytes, seed: int) -> list[int]:
    """The same chain in a plain loop."""
    chain = []
    for start in range(0, len(stream), BLOCK_BYTES):
        content: int = xxhash.xxh64_intdigest(stream[start : start + BLOCK_BYTES])
        seed = xxhash.xxh64_intdigest(content.to_bytes(8, "little") + seed.to_bytes(8, "little"))
        chain.append(seed)
    return chain


def run() -> dict[str, Any]:
    """Milliseconds (medians), bytes per (block, endpoint) entry, the same of the reference, and smaller cases."""
    rng = np.random.default_rng(1)
    prompts = [rng.bytes(4 * PROMPT_TOKENS) for _ in range(PROMPTS)]
    chains = [block_hashes(prompt, 0, BLOCK_BYTES) for prompt in prompts]
    lengths = [rng.permutation(np.linspace(0, len(chain), ENDPOINTS).astype(np.int64)) for chain in chains]
    index, bytes_per_entry = _full_index(chains, lengths, rng)
    reference, reference_bytes = _reference_index(chains, lengths, rng)
    rows = np.arange(ENDPOINTS)
    times: defaultdict[str, list[float]] = defaultdict(list)
    for turn in range(TURNS):
        prompt, chain = prompts[turn % PROMPTS], chains[turn % PROMPTS]
        times["hash"].append(_time_ms(block_hashes, prompt, 0, BLOCK_BYTES))
        times["match"].append(_time_ms(index.match, chain, rows))
        times["both"].append(_time_ms(_hash_and_match, index, prompt, rows))
        times["dict"].append(_time_ms(_hash_and_match_plainly, reference, prompt))
        _check(index.match(chain, rows), reference.match(chain.tolist()), lengths[turn % PROMPTS])
    for turn in range(TURNS):
        chain = _random_chain(rng, len(chains[0]))
        times["insert_new"].append(_time_ms(index.insert, turn, chain))
        times["insert_known"].append(_time_ms(index.insert, turn, chain))
    result = {
        "endpoints": ENDPOINTS,
        "prompt_tokens": PROMPT_TOKENS,
        "blocks": len(chains[0]),
        "entries": ENDPOINTS * CAPACITY_BLOCKS,
        "hash_ms": statistics.median(times["hash"]),
        "match_ms": statistics.median(times["match"]),
        "hash_and_match_ms": statistics.median(times["both"]),
        "dict_hash_and_match_ms": statistics.median(times["dict"]),
        "budget_ms": BUDGET_MS,
        "insert_new_ms": statistics.median(times["insert_new"]),
        "insert_known_ms": statistics.median(times["insert_known"]),
        "bytes_per_entry": bytes_per_entry,
        "dict_bytes_per_entry": reference_bytes,
        "budget_bytes": BUDGET_BYTES,
    }
    for blocks, endpoints in SMALL_CASES:
        result |= _small(blocks, endpoints, rng)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in result.items()}


def _full_index(
    chains: list[HashArray], lengths: list[IntArray], rng: np.random.Generator
) -> tuple[PrefixIndex, float]:
    before = _resident_bytes()
    index = PrefixIndex(CAPACITY_BLOCKS)
    index.reserve(ENDPOINTS)
    for row in range(ENDPOINTS):
        filler = CAPACITY_BLOCKS - sum(int(of_chain[row]) for of_chain in lengths)
        while filler:
            blocks = min(filler, 1000)
            index.insert(row, _random_chain(rng, blocks))
            filler -= blocks
        for chain, of_chain in zip(chains, lengths, strict=True):
            index.insert(row, chain[: of_chain[row]])
    if len(index) != ENDPOINTS * CAPACITY_BLOCKS:
        raise RuntimeError(f"the index holds {len(index)} entries; expected {ENDPOINTS * CAPACITY_BLOCKS}")
    return index, (_resident_bytes() - before) / len(index)


def _reference_index(
    chains: list[HashArray], lengths: list[IntArray], rng: np.random.Generator
) -> tuple[DictIndex, float]:
    gc.collect()
    before = _resident_bytes()
    reference = DictIndex(2 * CAPACITY_BLOCKS)
    for row in range(REFERENCE_ENDPOINTS):
        reference.insert(row, _random_chain(rng, CAPACITY_BLOCKS).tolist())
    per_entry = (_resident_bytes() - before) / (REFERENCE_ENDPOINTS * CAPACITY_BLOCKS)
    for chain, of_chain in zip(chains, lengths, strict=True):
        blocks = chain.tolist()
        for row in range(ENDPOINTS):
            reference.insert(row, blocks[: of_chain[row]])
    return reference, per_entry


def _small(blocks: int, endpoints: int, rng: np.random.Generator) -> dict[str, float]:
    """Microseconds to match and to insert a prompt half of which is known, in a full index."""
    index = PrefixIndex(CAPACITY_BLOCKS)
    index.reserve(endpoints)
    rows = np.arange(endpoints)
    for row in range(endpoints):
        for _ in range(CAPACITY_BLOCKS // blocks + 1):
            index.insert(row, _random_chain(rng, blocks))
    known = _random_chain(rng, blocks)
    for row in range(endpoints):
        index.insert(row, known[: blocks * row // endpoints])
    match, insert = [], []
    for _ in range(SMALL_TURNS):
        chain = np.concatenate([known[: blocks // 2], _random_chain(rng, blocks - blocks // 2)])
        row = int(rng.integers(endpoints))
        match.append(1e3 * _time_ms(index.match, chain, rows))
        insert.append(1e3 * _time_ms(index.insert, row, chain))
    case = f"{blocks}_blocks_{endpoints}_endpoints"
    return {f"match_us_{case}": statistics.median(match), f"insert_us_{case}": statistics.median(insert)}


def _check(matched: IntArray, reference: dict[int, int], lengths: IntArray) -> None:
    if matched.tolist() != lengths.tolist() or any(reference.get(r, 0) != n for r, n in enumerate(lengths.tolist())):
        raise RuntimeError("the index, the reference and what was inserted differ")


def _random_chain(rng: np.random.Generator, blocks: int) -> HashArray:
    return rng.integers(1, 2**64, blocks, dtype=np.uint64)


def _hash_and_match(index: PrefixIndex, prompt: bytes, rows: IntArray) -> IntArray:
    return index.match(block_hashes(prompt, 0, BLOCK_BYTES), rows)


def _hash_and_match_plainly(index: DictIndex, prompt: bytes) -> dict[int, int]:
    return index.match(plain_hashes(prompt, 0))


def _time_ms(call: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return (time.perf_counter() - start) * 1e3


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
