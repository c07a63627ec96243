# SPDX-License-Identifier: Apache-2.0
"""How many leading blocks of a chain each endpoint holds, all endpoints at once.

An endpoint that holds a block holds all blocks before it, so the answer is found by search instead of counting. Each
round cuts what is left into sections; their number keeps a round at about `PROBES` lookups, where NumPy's cost per
call and per element balance. Little work is done in one round, very many endpoints by bisection.
"""

from __future__ import annotations

import numpy as np

from epp.contract.endpoints import IntArray
from epp.prefix.bank import PAIR_SLOTS, Bank
from epp.prefix.hashing import HashArray

PROBES = 512
PROBES_OF_ONE_ROUND = 768

_count = np.add.reduce
_ONE_PROBE = np.dtype(f"u{PAIR_SLOTS}")


def matched_blocks(bank: Bank, hashes: HashArray, rows: IntArray) -> IntArray:
    """Leading blocks of the chain `hashes` (at least one) that each of `rows` (at least one) holds in this bank."""
    blocks, endpoints = len(hashes), len(rows)
    pairs = bank.pairs(hashes)
    first = bank.first.take(rows).reshape(-1, 1, 1)
    sections = blocks if blocks * endpoints <= PROBES_OF_ONE_ROUND else max(1, PROBES // endpoints)
    step = -(-(blocks + 1) // (sections + 1))
    probed = slice(step - 1, None, step)
    seen = bank.keys.take(first + pairs[probed], axis=0)
    matched = _held(seen, hashes[probed].repeat(PAIR_SLOTS))
    matched *= step
    while step > 1:
        left = step - 1
        step = -(-step // (sections + 1))
        probes = matched.reshape(-1, 1) + np.arange(step - 1, left, step)
        # Beyond the chain's end the last block answers again, which the minimum below repairs.
        seen = bank.keys.take(first + pairs.take(probes, axis=0, mode="clip"), axis=0)
        found = _held(seen, hashes.take(probes, mode="clip").repeat(PAIR_SLOTS).reshape(endpoints, -1))
        found *= step
        matched += found
    return np.minimum(matched, blocks, out=matched)


def _held(seen: HashArray, wanted: HashArray) -> IntArray:
    """How many of each endpoint's probes hit. `seen` starts with the endpoints' axis; `wanted` has each probe's
    hash once for every slot it may be in, for all endpoints or for each."""
    equal = seen.reshape(len(seen), -1) == wanted
    # One slot of a probe at most is equal, so its booleans are one word, zero or not.
    held: IntArray = _count(equal.view(_ONE_PROBE) != 0, axis=1, dtype=np.int64)
    return held
