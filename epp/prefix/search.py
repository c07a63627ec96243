# SPDX-License-Identifier: Apache-2.0
"""How many leading blocks of a chain each endpoint holds, all endpoints at once.

An endpoint that holds a block holds all blocks before it, so the answer is found by search instead of counting. Each
round cuts what is left into sections; their number keeps a round at about `PROBES` lookups, where NumPy's cost per
call and per element balance. Little work is done in one round, very many endpoints by bisection.
"""

from __future__ import annotations

import numpy as np

from epp.contract.endpoints import IntArray
from epp.prefix.bank import Bank
from epp.prefix.hashing import HashArray

PROBES = 512
PROBES_OF_ONE_ROUND = 768


def matched_blocks(bank: Bank, hashes: HashArray, rows: IntArray) -> IntArray:
    """Leading blocks of the chain `hashes` (at least one) that each of `rows` (at least one) holds in this bank."""
    blocks, endpoints = len(hashes), len(rows)
    if blocks * endpoints <= PROBES_OF_ONE_ROUND:
        return bank.match(hashes, rows)
    bases = bank.bases.take(rows, axis=0)
    sections = max(1, PROBES // endpoints)
    step = -(-(blocks + 1) // (sections + 1))
    matched = bank.read(hashes[step - 1 :: step], bases).held()
    matched *= step
    while step > 1:
        left = step - 1
        step = -(-step // (sections + 1))
        probes = matched.reshape(-1, 1) + np.arange(step - 1, left, step)
        # Beyond the chain's end the last block answers again, which the minimum below repairs.
        found = bank.read(hashes.take(probes, mode="clip"), bases).held()
        found *= step
        matched += found
    return np.minimum(matched, blocks, out=matched)
