# SPDX-License-Identifier: Apache-2.0
"""The KV cache of a simulated engine: a pool of equal blocks with a prefix cache on top.

Problem: vLLM keeps the KV of finished requests in blocks that are free but still named by the hash of everything up to
their end, so that a prompt with the same beginning skips the work. This is that bookkeeping, without the tensors.

Invariants: a block is either *held* (by one or more sequences), *cached* (held by nobody, content still good), or
blank. `held + cached <= size`. Only cached blocks are evicted, least recently released first; the tail of a chain is
released before its head, so a chain is always evicted from its end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import xxhash

TOKEN_BYTES = 4
"""Bytes of text that make one simulated token."""


def chain_hashes(text: bytes, block_size_tokens: int, salt: bytes = b"") -> tuple[int, ...]:
    """Hashes of the full blocks of `text`; each covers all text up to its end. `salt` separates models and tenants."""
    size = block_size_tokens * TOKEN_BYTES
    parent = xxhash.xxh3_64_intdigest(salt)
    hashes = []
    for start in range(0, len(text) - size + 1, size):
        parent = xxhash.xxh3_64_intdigest(text[start : start + size], seed=parent)
        hashes.append(parent)
    return tuple(hashes)


class BlockPool:
    """`size` blocks. Blocks without a name are only counted; named ones are known by their hash."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._holders: dict[int, int] = {}
        self._cached: dict[int, None] = {}
        self._unnamed = 0

    @property
    def held(self) -> int:
        """Blocks that sequences hold now."""
        return len(self._holders) + self._unnamed

    @property
    def cached(self) -> int:
        """Blocks that nobody holds and that still have content."""
        return len(self._cached)

    @property
    def available(self) -> int:
        """Blocks that could be taken, evicting cached ones."""
        return self.size - self.held

    @property
    def utilization(self) -> float:
        """Share of the blocks that is held, 0..1, as vLLM reports it: cached blocks count as free."""
        return self.held / self.size

    def match(self, hashes: Sequence[int]) -> int:
        """How many leading blocks have content here."""
        count = 0
        for block in hashes:
            if block not in self._holders and block not in self._cached:
                break
            count += 1
        return count

    def hold(self, hashes: Sequence[int]) -> None:
        """Hold blocks that `match` found."""
        for block in hashes:
            self._cached.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) + 1

    def take(self, count: int) -> bool:
        """Hold `count` unnamed blocks, evicting as needed. False, and nothing changed, when there are too few."""
        if count > self.available:
            return False
        for block in self._oldest(self.held + self.cached + count - self.size):
            del self._cached[block]
        self._unnamed += count
        return True

    def name(self, block: int) -> bool:
        """One unnamed held block now has this content. False when another block already has it."""
        if block in self._holders or block in self._cached:
            return False
        self._unnamed -= 1
        self._holders[block] = 1
        return True

    def release(self, hashes: Sequence[int], unnamed: int) -> None:
        """Give back a sequence's named blocks, in chain order, and `unnamed` others."""
        self._unnamed -= unnamed
        for block in reversed(hashes):
            holders = self._holders[block] - 1
            if holders:
                self._holders[block] = holders
            else:
                del self._holders[block]
                self._cached[block] = None

    def _oldest(self, count: int) -> list[int]:
        entries: Iterator[int] = iter(self._cached)
        return [next(entries) for _ in range(count)]
