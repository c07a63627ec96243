# SPDX-License-Identifier: Apache-2.0
"""Chained block hashes: hash i stands for all bytes up to the end of block i, so two prompts share hash i only if
they share everything before it.

    h_i = XXH64(block 0 .. block i), seeded with XXH64(model + cache_salt)

One running state is fed block after block and asked in between, so a block costs two calls. The Go EPP's
approx-prefix-cache-producer chains the hashes of single blocks instead, which says the same at twice the price; no
hash ever leaves the process. The adapter of a LoRA request is its model name.
"""

from __future__ import annotations

import struct

import numpy as np
import xxhash
from numpy.typing import NDArray

HashArray = NDArray[np.uint64]
"""A chain, or a part of one: shape (blocks,), the first block first."""

_digest = xxhash.xxh64_intdigest


def chain_seed(model: str, cache_salt: str = "") -> int:
    """What a chain starts from: requests of another model or salt share no block."""
    return int(_digest((model + cache_salt).encode("utf-8", "surrogatepass")))


def block_hashes(
    stream: bytes, seed: int, block_bytes: int, max_blocks: int | None = None, partial: bool = True
) -> HashArray:
    """The chain of `stream` in blocks of `block_bytes` (> 0), at most `max_blocks` (None: all).

    `partial` says whether a shorter last block is hashed too or left out.
    """
    whole = len(stream) // block_bytes
    if max_blocks is not None and max_blocks <= whole:
        whole, partial = max_blocks, False
    end = whole * block_bytes
    state = xxhash.xxh64(seed=seed)
    update, digest = state.update, state.intdigest
    chain = []
    for (block,) in struct.iter_unpack(f"{block_bytes}s", memoryview(stream)[:end]):
        update(block)
        chain.append(digest())
    if partial and end < len(stream):
        update(stream[end:])
        chain.append(digest())
    return np.fromiter(chain, np.uint64, len(chain))
