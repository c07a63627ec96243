# SPDX-License-Identifier: Apache-2.0
"""The metrics page of a simulated TensorRT-LLM server (`trtllm-serve` with iteration statistics), fed by the engine.

The shape of the cache is in values, not in labels: `trtllm_kv_cache_tokens_per_block`, `trtllm_kv_cache_max_blocks`.
"""

from __future__ import annotations

from epp.local.sim import buckets
from epp.local.sim.engine import Engine, SequenceState
from epp.local.sim.instruments import Page
from epp.local.sim.pages import EnginePage, PageConfig

_REASONS = ("stop", "length", "timeout", "cancelled")


class TrtllmMetrics(EnginePage):
    """Counts what an engine does and renders the page."""

    prefix = "trtllm_"

    def __init__(self, config: PageConfig) -> None:
        super().__init__(config, {"engine_type": "pytorch", "model_name": config.model})
        self._success = self._counter(
            "request_success", "Count of successfully processed requests.", "finished_reason", _REASONS
        )
        self._e2e = self._histogram("e2e_request_latency_seconds", "End to end request latency.", buckets.PHASE_S)
        self._ttft = self._histogram("time_to_first_token_seconds", "Time to first token.", buckets.TTFT_S)
        self._tpot = self._histogram(
            "time_per_output_token_seconds", "Mean time per output token of a request.", buckets.TOKEN_GAP_S
        )
        self._queue = self._histogram("request_queue_time_seconds", "Time spent waiting.", buckets.PHASE_S)
        self._prompt = self._counter("prompt_tokens", "Prompt tokens processed.")
        self._generated = self._counter("generation_tokens", "Tokens generated.")
        self._running = self._gauge("num_requests_running", "Requests that are being computed.")
        self._waiting = self._gauge("num_requests_waiting", "Requests in the queue.")
        self._hit_rate = self._gauge("kv_cache_hit_rate", "Share of blocks found in the KV cache.")
        self._usage = self._gauge("kv_cache_utilization", "Share of KV cache blocks in use.")
        self._used = self._gauge("kv_cache_used_blocks", "KV cache blocks in use.")
        self._free = self._gauge("kv_cache_free_blocks", "KV cache blocks that are free.")
        self._gauge("kv_cache_max_blocks", "KV cache blocks.").set(config.num_blocks)
        self._gauge("kv_cache_tokens_per_block", "Tokens of a KV cache block.").set(config.block_size_tokens)
        self._queried = self._hits = 0
        self._page = Page(self._families)

    def on_admitted(self, sequence: SequenceState, queried_tokens: int, hit_tokens: int) -> None:
        """See `Observer`."""
        self._queried += queried_tokens
        self._hits += hit_tokens

    def on_tokens(self, sequence: SequenceState, first_gap_s: float | None, count: int, step_s: float) -> None:
        """See `Observer`."""
        self._generated.add(count)
        if first_gap_s is None and sequence.first_token_s is not None:
            self._ttft.observe(sequence.first_token_s - sequence.arrived_s)
            self._prompt.add(sequence.work.prompt_tokens)

    def on_finished(self, sequence: SequenceState, now_s: float) -> None:
        """See `Observer`."""
        self._e2e.observe(now_s - sequence.arrived_s)
        if sequence.admitted_s is not None:
            self._queue.observe(max(0.0, sequence.admitted_s - sequence.arrived_s))
        if sequence.first_token_s is not None and sequence.work.output_tokens > 1:
            self._tpot.observe((now_s - sequence.first_token_s) / (sequence.work.output_tokens - 1))

    def request_ended(self, reason: str, choices: int, max_tokens: int | None) -> None:
        """See `EnginePage`."""
        self._success.add(1, _REASONS.index("cancelled" if reason == "abort" else reason))

    def page(self, engine: Engine, now_s: float) -> bytes:
        """See `EnginePage`."""
        blocks = engine.blocks
        self._running.set(len(engine.running))
        self._waiting.set(len(engine.waiting))
        self._usage.set(blocks.utilization)
        self._used.set(blocks.held)
        self._free.set(blocks.size - blocks.held)
        self._hit_rate.set(self._hits / self._queried if self._queried else 0.0)
        return self._page.body()
