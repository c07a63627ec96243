# SPDX-License-Identifier: Apache-2.0
"""The metrics page of a simulated SGLang server (`--enable-metrics`), one scheduler, fed by the engine.

A page of SGLang's is shorter than vLLM's. `sglang:token_usage` is the share of KV tokens that requests hold;
`sglang:cache_config_info` has the shape of the cache in its labels. Families for which a simulated engine has nothing
(grammars, speculation) are there with zeros.
"""

from __future__ import annotations

from epp.local.sim import buckets
from epp.local.sim.engine import Engine, SequenceState
from epp.local.sim.instruments import Page
from epp.local.sim.pages import EnginePage, PageConfig

_ZEROS = (
    ("swa_token_usage", "The token usage for SWA layers."),
    ("spec_accept_length", "The average acceptance length of speculative decoding."),
    ("num_grammar_queue_reqs", "The number of requests in the grammar waiting queue."),
    ("num_running_reqs_offline_batch", "The number of running low-priority offline batch requests."),
)


class SglangMetrics(EnginePage):
    """Counts what an engine does and renders the page."""

    prefix = "sglang:"

    def __init__(self, config: PageConfig) -> None:
        labels = {"engine_type": "unified", "model_name": config.model, "pp_rank": "0", "tp_rank": "0"}
        super().__init__(config, labels)
        self._running = self._gauge("num_running_reqs", "The number of running requests.")
        self._used = self._gauge("num_used_tokens", "The number of used tokens.")
        self._usage = self._gauge("token_usage", "The token usage.")
        self._waiting = self._gauge("num_queue_reqs", "The number of requests in the waiting queue.")
        self._hit_rate = self._gauge("cache_hit_rate", "The prefix cache hit rate.")
        capacity = self._gauge("max_total_num_tokens", "Maximum total number of tokens in the KV cache pool.")
        capacity.set(config.num_blocks * config.block_size_tokens)
        for name, text in _ZEROS:
            self._gauge(name, text)
        info = self._gauge("cache_config_info", "Information of the cache config.")
        shape = {"num_pages": str(config.num_blocks), "page_size": str(config.block_size_tokens)}
        info.replace([({**self._labels, **shape}, 1.0)])
        self._prompt = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        self._generated = self._counter("generation_tokens", "Number of generation tokens processed.")
        self._cached = self._counter("cached_tokens", "Number of cached prompt tokens.")
        self._requests = self._counter("num_requests", "Number of requests processed.")
        self._aborted = self._counter("num_aborted_requests", "Number of requests aborted.")
        self._retracted = self._counter("num_retracted_reqs", "Number of requests retracted for want of memory.")
        self._ttft = self._histogram("time_to_first_token_seconds", "Time to first token, seconds.", buckets.TTFT_S)
        self._gaps = self._histogram("inter_token_latency_seconds", "Inter-token latency.", buckets.TOKEN_GAP_S)
        self._e2e = self._histogram("e2e_request_latency_seconds", "End-to-end request latency.", buckets.PHASE_S)
        self._queried = self._hits = 0
        self._page = Page(self._families)

    def on_admitted(self, sequence: SequenceState, queried_tokens: int, hit_tokens: int) -> None:
        """See `Observer`."""
        self._queried += queried_tokens
        self._hits += hit_tokens

    def on_tokens(self, sequence: SequenceState, first_gap_s: float | None, count: int, step_s: float) -> None:
        """See `Observer`."""
        self._generated.add(count)
        if first_gap_s is not None:
            self._gaps.observe(first_gap_s)
        elif sequence.first_token_s is not None:
            self._ttft.observe(sequence.first_token_s - sequence.arrived_s)
            self._prompt.add(sequence.work.prompt_tokens)
            self._cached.add(sequence.cached_tokens)
        if count > 1:
            self._gaps.observe(step_s, count - 1)

    def on_preempted(self, sequence: SequenceState) -> None:
        """See `Observer`."""
        self._retracted.add()

    def on_finished(self, sequence: SequenceState, now_s: float) -> None:
        """See `Observer`."""
        self._e2e.observe(now_s - sequence.arrived_s)

    def request_ended(self, reason: str, choices: int, max_tokens: int | None) -> None:
        """See `EnginePage`."""
        self._requests.add()
        self._aborted.add(reason == "abort")

    def page(self, engine: Engine, now_s: float) -> bytes:
        """See `EnginePage`."""
        self._running.set(len(engine.running))
        self._waiting.set(len(engine.waiting))
        self._usage.set(engine.blocks.utilization)
        self._used.set(engine.blocks.held * self._config.block_size_tokens)
        self._hit_rate.set(self._hits / self._queried if self._queried else 0.0)
        return self._page.body()
