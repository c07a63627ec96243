# SPDX-License-Identifier: Apache-2.0
"""Counters, on the library `limits`: in memory, or in Redis or Valkey so that several replicas share them.

contract   the seam: `Charge`, `Standing`, `Ledger`
opening    `open_ledger`: from a URL to a ledger
memory     counters in this process
shared     counters in Redis: one round trip a call, failures, and charges kept while it is away
"""

from epp.ratelimit.ledger.contract import Charge, Ledger, LedgerState, OnFailure, Standing, Window
from epp.ratelimit.ledger.opening import open_ledger

__all__ = ["Charge", "Ledger", "LedgerState", "OnFailure", "Standing", "Window", "open_ledger"]
