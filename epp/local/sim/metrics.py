# SPDX-License-Identifier: Apache-2.0
"""The metrics page of a simulated pod: the families, labels and order of a vLLM server with its KV cache metrics and
a KV transfer connector switched on, fed by the engine.

Families that a simulated engine has nothing for (multimodal cache, KV transfer, block residency) are there with
zeros: a reader meets a page of real size (some 65 KB) and real distractions, such as `_created` lines and names that
begin like the ones it wants. Times observed are engine seconds.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
from collections.abc import Mapping

from epp.local.sim import buckets
from epp.local.sim.engine import Engine, SequenceState
from epp.local.sim.instruments import Counter, Family, Gauge, Histogram, Page
from epp.local.sim.pages import EnginePage, PageConfig

FINISH_REASONS = ("stop", "length", "abort", "error", "repetition")
HANDLERS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "none")


class PodMetrics(EnginePage):
    """Counts what an engine does and renders the page."""

    prefix = "vllm:"

    def __init__(self, config: PageConfig) -> None:
        super().__init__(config, {"model_name": config.model, "engine": "0"})
        self._gauges()
        self._counters()
        self._sizes()
        self._latencies()
        self._transfers()
        self._http()
        self._process = _ProcessFamily(config.created_s)
        self._page = Page([*self._families, self._process])

    def _gauges(self) -> None:
        self.running = self._gauge("num_requests_running", "Number of requests in model execution batches.")
        self.waiting = self._gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        by_reason = self._gauge("num_requests_waiting_by_reason", "Waiting requests by the reason they wait.")
        self._waiting_by_reason = by_reason
        sleep = self._gauge("engine_sleep_state", "Engine sleep state; awake = 0 means asleep.")
        states = (("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0))
        sleep.replace([({**self._labels, "sleep_state": state}, value) for state, value in states])
        kv = "gpu_cache_usage_perc" if self._config.old_kv_name else "kv_cache_usage_perc"
        self.kv_usage = self._gauge(kv, "KV-cache usage. 1 means 100 percent usage.")
        self._cache_config()
        self.lora = self._gauge("lora_requests_info", "Running stats on lora requests.")

    def _cache_config(self) -> None:
        config = self._config
        labels = {
            "block_size": str(config.block_size_tokens),
            "cache_dtype": "auto",
            "calculate_kv_scales": "False",
            "cpu_kvcache_space_bytes": "None",
            "cpu_offload_gb": "0.0",
            "enable_prefix_caching": "True",
            "engine": "0",
            "gpu_memory_utilization": "0.9",
            "is_attention_free": "False",
            "kv_cache_dtype_skip_layers": "[]",
            "kv_cache_memory_bytes": "None",
            "kv_offloading_backend": "native",
            "kv_offloading_size": "None",
            "kv_sharing_fast_prefill": "False",
            "mamba_block_size": "None",
            "mamba_cache_dtype": "auto",
            "mamba_cache_mode": "none",
            "mamba_page_size_padded": "None",
            "mamba_ssm_cache_dtype": "auto",
            "num_cpu_blocks": "None",
            "num_gpu_blocks": str(config.num_blocks),
            "num_gpu_blocks_override": "None",
            "prefix_caching_hash_algo": "sha256",
            "sliding_window": "None",
            "swap_space": "4.0",
            "user_specified_block_size": "False",
        }
        info = self._gauge("cache_config_info", "Information of the LLMEngine CacheConfig")
        info.replace([(labels, 1.0)])

    def _counters(self) -> None:
        tokens = "in terms of number of {} tokens."
        self.queries = self._counter("prefix_cache_queries", "Prefix cache queries, " + tokens.format("queried"))
        self.hits = self._counter("prefix_cache_hits", "Prefix cache hits, " + tokens.format("cached"))
        for name, text in (
            ("external_prefix_cache_queries", "External prefix cache queries from KV connectors, "),
            ("external_prefix_cache_hits", "External prefix cache hits from KV connectors, "),
            ("mm_cache_queries", "Multi-modal cache queries, "),
            ("mm_cache_hits", "Multi-modal cache hits, "),
        ):
            self._counter(name, text + "in terms of number of queried items.")
        self._counter("corrupted_requests", "Corrupted requests, in terms of total number of requests with NaNs.")
        self.preemptions = self._counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self.prompt_tokens = self._counter("prompt_tokens", "Number of prefill tokens processed.")
        sources = ("local_compute", "local_cache_hit", "external_kv_transfer")
        self.by_source = self._counter("prompt_tokens_by_source", "Prompt tokens by source.", "source", sources)
        self.cached = self._counter("prompt_tokens_cached", "Number of cached prompt tokens.")
        self._counter("prompt_tokens_recomputed", "Cached tokens recomputed for the forward pass.")
        self.generation_tokens = self._counter("generation_tokens", "Number of generation tokens processed.")
        self.success = self._counter(
            "request_success", "Count of successfully processed requests.", "finished_reason", FINISH_REASONS
        )

    def _sizes(self) -> None:
        lengths = buckets.one_two_five(self._config.max_model_len)
        self.prompt_lengths = self._histogram("request_prompt_tokens", "Number of prefill tokens processed.", lengths)
        self.output_lengths = self._histogram(
            "request_generation_tokens", "Number of generation tokens processed.", lengths
        )
        self.step_tokens = self._histogram(
            "iteration_tokens_total", "Histogram of number of tokens per engine_step.", buckets.STEP_TOKENS
        )
        self.longest = self._histogram(
            "request_max_num_generation_tokens", "Maximum number of requested generation tokens.", lengths
        )
        self.choices = self._histogram("request_params_n", "The n request parameter.", buckets.CHOICES)
        self.max_tokens = self._histogram("request_params_max_tokens", "The max_tokens request parameter.", lengths)
        self.computed = self._histogram(
            "request_prefill_kv_computed_tokens", "New KV tokens computed during prefill (without cached).", lengths
        )

    def _latencies(self) -> None:
        gaps, phases = buckets.TOKEN_GAP_S, buckets.PHASE_S
        self.ttft = self._histogram("time_to_first_token_seconds", "Time to first token in seconds.", buckets.TTFT_S)
        self.itl = self._histogram("inter_token_latency_seconds", "Inter-token latency in seconds.", gaps)
        self.tpot = self._histogram(
            "request_time_per_output_token_seconds", "Time per output token per request, in seconds.", gaps
        )
        self.e2e = self._histogram("e2e_request_latency_seconds", "End to end request latency in seconds.", phases)
        self.queue = self._histogram("request_queue_time_seconds", "Time spent in WAITING phase.", phases)
        self.inference = self._histogram("request_inference_time_seconds", "Time spent in RUNNING phase.", phases)
        self.prefill = self._histogram("request_prefill_time_seconds", "Time spent in PREFILL phase.", phases)
        self.decode = self._histogram("request_decode_time_seconds", "Time spent in DECODE phase.", phases)

    def _transfers(self) -> None:
        for name, text in (
            ("kv_block_lifetime_seconds", "KV cache block lifetime from allocation to eviction."),
            ("kv_block_idle_before_evict_seconds", "Idle time before KV cache block eviction."),
            ("kv_block_reuse_gap_seconds", "Time gaps between consecutive KV cache block accesses."),
        ):
            self._histogram(name, text, buckets.RESIDENCY_S)
        self._histogram("nixl_xfer_time_seconds", "Duration of NIXL KV cache transfers.", buckets.TRANSFER_S)
        self._histogram("nixl_post_time_seconds", "Time to post NIXL KV cache transfers.", buckets.TRANSFER_S)
        self._histogram("nixl_bytes_transferred", "Bytes moved per NIXL transfer.", buckets.TRANSFER_BYTES)
        self._histogram("nixl_num_descriptors", "Descriptors per NIXL transfer.", buckets.TRANSFER_DESCRIPTORS)
        for name in ("nixl_num_failed_transfers", "nixl_num_failed_notifications", "nixl_num_kv_expired_reqs"):
            self._counter(name, "Count of failures in NIXL KV cache transfers.")

    def _http(self) -> None:
        created_s = self._config.created_s
        calls = [{"handler": h, "method": _method(h), "status": "2xx"} for h in HANDLERS]
        self.http_requests = Counter("http_requests", "Total number of requests by handler.", calls, created_s)
        self.http_fine = Histogram(
            "http_request_duration_highr_seconds", "Latency, many buckets.", buckets.HTTP_FINE_S, [{}], created_s
        )
        handlers = [{"handler": handler, "method": _method(handler)} for handler in HANDLERS]
        self.http_coarse = Histogram(
            "http_request_duration_seconds", "Latency by handler.", buckets.HTTP_COARSE_S, handlers, created_s
        )
        self._families += [self.http_requests, self.http_fine, self.http_coarse]

    def on_step(self, tokens: int, count: int) -> None:
        """See `Observer`."""
        self.step_tokens.observe(tokens, count)

    def on_admitted(self, sequence: SequenceState, queried_tokens: int, hit_tokens: int) -> None:
        """See `Observer`."""
        self.queries.add(queried_tokens)
        self.hits.add(hit_tokens)

    def on_tokens(self, sequence: SequenceState, first_gap_s: float | None, count: int, step_s: float) -> None:
        """See `Observer`."""
        self.generation_tokens.add(count)
        if first_gap_s is None:
            self._first_token(sequence)
        else:
            self.itl.observe(first_gap_s)
        if count > 1:
            self.itl.observe(step_s, count - 1)

    def _first_token(self, sequence: SequenceState) -> None:
        if sequence.first_token_s is not None:
            self.ttft.observe(sequence.first_token_s - sequence.arrived_s)
        work = sequence.work
        self.prompt_tokens.add(work.prompt_tokens)
        self.cached.add(sequence.cached_tokens)
        self.by_source.add(work.prompt_tokens - sequence.cached_tokens, 0)
        self.by_source.add(sequence.cached_tokens, 1)

    def on_preempted(self, sequence: SequenceState) -> None:
        """See `Observer`."""
        self.preemptions.add()

    def on_finished(self, sequence: SequenceState, now_s: float) -> None:
        """See `Observer`."""
        work = sequence.work
        admitted_s = sequence.admitted_s if sequence.admitted_s is not None else now_s
        first_s = sequence.first_token_s if sequence.first_token_s is not None else now_s
        self.e2e.observe(now_s - sequence.arrived_s)
        self.queue.observe(max(0.0, admitted_s - sequence.arrived_s))
        self.inference.observe(max(0.0, now_s - admitted_s))
        self.prefill.observe(max(0.0, first_s - admitted_s))
        self.decode.observe(now_s - first_s)
        if work.output_tokens > 1:
            self.tpot.observe((now_s - first_s) / (work.output_tokens - 1))
        self.prompt_lengths.observe(work.prompt_tokens)
        self.output_lengths.observe(work.output_tokens)
        self.longest.observe(work.output_tokens)
        self.computed.observe(work.prompt_tokens - sequence.cached_tokens)

    def request_ended(self, reason: str, choices: int, max_tokens: int | None) -> None:
        """One HTTP request's generation ended; `reason` is one of `FINISH_REASONS`."""
        self.success.add(1, FINISH_REASONS.index(reason))
        self.choices.observe(choices)
        if max_tokens is not None:
            self.max_tokens.observe(max_tokens)

    def http_answered(self, handler: str, duration_s: float) -> None:
        """An answer was sent. Unknown paths count as `none`; metrics and health are not counted, as in vLLM."""
        index = HANDLERS.index(handler) if handler in HANDLERS else len(HANDLERS) - 1
        self.http_requests.add(1, index)
        self.http_fine.observe(duration_s)
        self.http_coarse.observe(duration_s, index=index)

    def page(self, engine: Engine, now_s: float) -> bytes:
        """See `EnginePage`."""
        waiting = len(engine.waiting)
        self.running.set(len(engine.running))
        self.waiting.set(waiting)
        self.kv_usage.set(engine.blocks.utilization)
        reasons = (("capacity", float(waiting)), ("deferred", 0.0))
        self._waiting_by_reason.replace([({**self._labels, "reason": reason}, value) for reason, value in reasons])
        self.lora.replace([(self._adapters(engine), now_s)])
        self._process.changed()
        return self._page.body()

    def _adapters(self, engine: Engine) -> Mapping[str, str]:
        running = {s.work.adapter for s in engine.running} - {""}
        waiting = {s.work.adapter for s in engine.waiting} - {""}
        return {
            "max_lora": str(self._config.max_loras),
            "running_lora_adapters": ",".join(sorted(running)),
            "waiting_lora_adapters": ",".join(sorted(waiting)),
        }


def _method(handler: str) -> str:
    return "GET" if handler in ("/v1/models", "none") else "POST"


class _ProcessFamily(Family):
    """What the Python client library adds: the interpreter, its garbage collector, the process."""

    def __init__(self, created_s: float) -> None:
        super().__init__()
        version = platform.python_version_tuple()
        self._info = Gauge("python_info", "Python platform information.", {})
        labels = dict(zip(("major", "minor", "patchlevel"), version, strict=True))
        self._info.replace([({"implementation": "CPython", **labels, "version": platform.python_version()}, 1.0)])
        self._collected = Gauge("python_gc_objects_collected_total", "Objects collected during gc", {}, "counter")
        self._collections = Gauge("python_gc_collections_total", "Collections by generation", {}, "counter")
        names = (
            ("process_virtual_memory_bytes", "Virtual memory size in bytes.", "gauge"),
            ("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge"),
            ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge"),
            ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter"),
        )
        self._process = [Gauge(name, text, {}, kind) for name, text, kind in names]
        self._process[2].set(created_s)

    def render(self) -> str:
        generations = list(enumerate(gc.get_stats()))
        self._collected.replace([({"generation": str(i)}, g["collected"]) for i, g in generations])
        self._collections.replace([({"generation": str(i)}, g["collections"]) for i, g in generations])
        with open("/proc/self/statm", "rb") as statm:
            virtual, resident = statm.read().split()[:2]
        self._process[0].set(int(virtual) * resource.getpagesize())
        self._process[1].set(int(resident) * resource.getpagesize())
        times = os.times()
        self._process[3].set(times.user + times.system)
        return "".join(f.text() for f in (self._collected, self._collections, self._info, *self._process))
