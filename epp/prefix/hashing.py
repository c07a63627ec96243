# SPDX-License-Identifier: Apache-2.0
"""Prompts to chains of block hashes.

A chain names a prompt's prefixes: hash i stands for all bytes up to the end of block i, so two prompts share hash i
only if they share everything before it. With XXH64 (seed 0) and little-endian 64-bit words,

    seed = XXH64(model + cache_salt)
    c_i  = XXH64(block i)
    h_i  = XXH64(c_i, h_(i-1)),  h_(-1) = seed

as in the Go EPP's approx-prefix-cache-producer. The adapter of a LoRA request is its model name.
"""

from __future__ import annotations

import struct

import numpy as np
import xxhash
from numpy.typing import NDArray

HashArray = NDArray[np.uint64]
"""A chain, or a part of one: shape (blocks,), the first block first."""

_digest = xxhash.xxh64_intdigest
_pair = struct.Struct("<QQ").pack


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
    previous = seed
    chain = []
    for (block,) in struct.iter_unpack(f"{block_bytes}s", memoryview(stream)[:end]):
        previous = _digest(_pair(_digest(block), previous))
        chain.append(previous)
    if partial and end < len(stream):
        chain.append(_digest(_pair(_digest(stream[end:]), previous)))
    return np.fromiter(chain, np.uint64, len(chain))
