# SPDX-License-Identifier: Apache-2.0
"""Follows requests: matches each prompt, records where it was sent, takes that back when it never got there.

Recording happens in the same step as the choice, so of two requests with one new prompt the second already finds the
first. It is a promise until the endpoint answers: a request that did not reach it leaves no trace.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from epp.api import (
    PREFIX_MATCH,
    Columns,
    Completion,
    DataKey,
    Decision,
    Endpoint,
    Endpoints,
    InferenceRequest,
    PrefixMatch,
)
from epp.prefix.hashing import HashArray, block_hashes, chain_seed
from epp.prefix.index import PrefixIndex
from epp.prefix.parameters import TOKEN_BYTES, IndexSettings
from epp.prefix.table import Insertion

PREFILL_PROFILE = "prefill"
"""The one profile besides the primary whose target is recorded, as in the Go EPP."""

MAX_PROMPTS = 64
"""Prompts of one request that are matched: a batch of thousands must not hold up everybody else."""

_NO_ENDPOINT = -1


class _Trail(msgspec.Struct, eq=False):
    """What is remembered on a request: its chains until it is routed, then what that newly added."""

    chains: list[HashArray]
    insertions: list[Insertion] = []


class PrefixTracker:
    """One index and the hooks that keep it. Publishes to `key` as the producer called `name`."""

    def __init__(self, settings: IndexSettings, name: str) -> None:
        self.key: DataKey[PrefixMatch] = DataKey(PREFIX_MATCH.name, name)
        self.index = PrefixIndex(settings.capacity_blocks)
        self.block_bytes = settings.effective_block_bytes(settings.block_bytes)
        self._settings = settings
        self._trail_key: DataKey[_Trail] = DataKey("PrefixTrail", name)
        # By row: the generation that lives there. Rows we were never told about are taken as they come.
        self._generation: dict[int, int] = {}
        # By row: what the capacity was computed from.
        self._tuned: dict[int, tuple[float, int]] = {}

    def produce(self, request: InferenceRequest, endpoints: Endpoints) -> None:
        """Publish how many leading blocks of the request's prompts each endpoint holds."""
        columns, rows = endpoints.columns, endpoints.rows
        if self._settings.auto_tune and len(rows):
            self._tune_block(columns.block_size_tokens.item(rows.item(0)))
        chains = self._chains(request)
        self.index.reserve(columns.capacity)
        held = [self.index.match(chain, rows) for chain in chains]
        matched = np.zeros(columns.capacity, np.int64)
        if held:
            matched[rows] = sum(held[1:], held[0])
        request.publish(self.key, PrefixMatch(matched, sum(map(len, chains)), self.block_bytes / TOKEN_BYTES))
        request.publish(self._trail_key, _Trail(chains))

    def on_routed(self, request: InferenceRequest, decision: Decision) -> None:
        """Record the request's chains for the primary profile's first target and the prefill profile's."""
        trail = request.get(self._trail_key)
        if trail is None:
            return
        primary = decision.target
        self._record(trail, primary, decision.result.endpoints.columns)
        prefill = decision.results.get(PREFILL_PROFILE)
        if prefill is not None and prefill.picked:
            target = prefill.endpoints[prefill.picked[0]]
            if target.row != primary.row:
                self._record(trail, target, prefill.endpoints.columns)
        trail.chains = []

    def on_done(self, request: InferenceRequest, completion: Completion) -> None:
        """Take the record back when the request never reached its endpoint."""
        trail = request.get(self._trail_key)
        if trail is None:
            return
        if not completion.reached_endpoint:
            for insertion in reversed(trail.insertions):
                self.index.rollback(insertion)
        trail.insertions = []

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """A new endpoint holds nothing."""
        self._generation[endpoint.row] = endpoint.generation
        self._forget(endpoint.row)

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        """A removed endpoint holds nothing any more, and nothing is recorded for it any more."""
        if self._generation.get(endpoint.row, endpoint.generation) == endpoint.generation:
            self._generation[endpoint.row] = _NO_ENDPOINT
            self._forget(endpoint.row)

    def _forget(self, row: int) -> None:
        self._tuned.pop(row, None)
        self.index.remove_endpoint(row)

    def _chains(self, request: InferenceRequest) -> list[HashArray]:
        settings, block_bytes = self._settings, self.block_bytes
        seed = chain_seed(request.target_model or request.model, request.cache_salt)
        max_blocks = settings.max_blocks(block_bytes)
        chains = []
        for stream in request.prompts[:MAX_PROMPTS]:
            if settings.whole_blocks_only:
                stream = _without_padding(stream)
            chain = block_hashes(stream, seed, block_bytes, max_blocks, not settings.whole_blocks_only)
            if len(chain):
                chains.append(chain)
        return chains

    def _record(self, trail: _Trail, endpoint: Endpoint, columns: Columns) -> None:
        row = endpoint.row
        if self._generation.get(row, endpoint.generation) != endpoint.generation:
            return
        if self._settings.auto_tune:
            self._tune_capacity(row, columns)
        trail.insertions += [self.index.insert(row, chain) for chain in trail.chains]

    def _tune_block(self, tokens: float) -> None:
        # An endpoint that was not scraped yet leaves the block size as it was; so does one that says nonsense.
        if 1 <= tokens < math.inf:
            self.block_bytes = self._settings.effective_block_bytes(int(tokens) * TOKEN_BYTES)

    def _tune_capacity(self, row: int, columns: Columns) -> None:
        tokens = columns.num_blocks.item(row) * columns.block_size_tokens.item(row)
        tuned = tokens, self.block_bytes
        if self._tuned.get(row) == tuned:
            return
        self._tuned[row] = tuned
        blocks = self._settings.capacity_blocks
        if 0 < tokens < math.inf:
            blocks = int(tokens) * TOKEN_BYTES // self.block_bytes
        self.index.set_capacity(row, blocks)


def _without_padding(stream: bytes) -> bytes:
    """Text without the zeros, up to three, that fill its last token."""
    kept = len(stream.rstrip(b"\0"))
    return stream[: max(kept, len(stream) - TOKEN_BYTES + 1)]
