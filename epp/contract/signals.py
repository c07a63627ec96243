# SPDX-License-Identifier: Apache-2.0
"""What one reading of an endpoint's metrics page said. None: the page did not say, so the value known before stays."""

from __future__ import annotations

import enum

import msgspec

from epp.contract.lora import LoraState


class Signal(enum.IntEnum):
    """What a page can say or leave out on its own; the first index of `Columns.seen_at_s`."""

    WAITING = 0
    RUNNING = 1
    KV_UTILIZATION = 2
    CACHE_CONFIG = 3
    LORA = 4


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One reading, over all engines of the endpoint.

    * waiting, running: requests, 0 or more
    * kv_utilization: share of the KV cache in use, 0..1
    * block_size_tokens: tokens a cache block holds, num_blocks: cache blocks; both above 0
    * lora: the adapters in use
    """

    waiting: float | None = None
    running: float | None = None
    kv_utilization: float | None = None
    block_size_tokens: float | None = None
    num_blocks: float | None = None
    lora: LoraState | None = None
