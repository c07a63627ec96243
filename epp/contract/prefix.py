# SPDX-License-Identifier: Apache-2.0
"""What a prefix producer publishes: how many leading blocks of the prompt each endpoint probably holds."""

from __future__ import annotations

import msgspec
import numpy as np

from epp.contract.endpoints import Endpoints, FloatArray, IntArray
from epp.contract.requests import DataKey


class PrefixMatch(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Matched blocks by row (shape (capacity,)), summed over the request's prompts.

    `total_blocks` counts all blocks of the prompts, the partial last one included; `block_size_tokens` may be a
    fraction when blocks were configured in bytes (4 bytes are one token).
    """

    matched_blocks: IntArray
    total_blocks: int
    block_size_tokens: float

    def ratio(self, endpoints: Endpoints) -> FloatArray:
        """Share of the prompt each candidate holds, 0..1, shape (n,); 0 when the prompt has no block."""
        if not self.total_blocks:
            return np.zeros(len(endpoints))
        return endpoints.take(self.matched_blocks) / self.total_blocks

    def uncached_tokens(self, row: int, prompt_tokens: int) -> float:
        """Prompt tokens that the endpoint in `row` would have to compute."""
        return max(0.0, prompt_tokens - float(self.matched_blocks[row]) * self.block_size_tokens)


PREFIX_MATCH: DataKey[PrefixMatch] = DataKey("PrefixCacheMatchInfo", "approx-prefix-cache-producer")
"""Where the default producer publishes; a producer of another name uses `DataKey(PREFIX_MATCH.name, its name)`."""
