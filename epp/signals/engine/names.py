# SPDX-License-Identifier: Apache-2.0
"""How each inference engine names its signals, as data, and how operators override the names.

A signal has alternatives: names that versions of one engine gave to the same thing. The first that the page has is
read. No alternative at all switches the signal off.

What the names mean, where it is not plain:

* vLLM names its KV utilization kv_cache_usage_perc since 0.9, gpu_cache_usage_perc before, both in between.
* SGLang shows requests by `priority` besides their total, whose `priority` is empty; and with metrics of all
  schedulers, every tensor, pipeline and expert rank shows the same requests (`shard_labels`). Data-parallel ranks
  (`dp_rank`) have requests of their own.
* Triton's nv_inference_exec_count, which the Go EPP takes for requests running, counts batches executed since the start
  and only grows. Requests in execution are worked out from time counters instead (see `busy`); Triton has no gauge for
  them. nv_inference_pending_request_count is a gauge: requests accepted and not yet given to a backend.
* An ensemble and the models it consists of are models of their own in Triton; their requests add up.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from epp.contract.errors import ConfigError
from epp.signals.engine.series import SeriesSpec, parse_series_spec

log = logging.getLogger("epp.signals")

Alternatives = tuple[SeriesSpec, ...]


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Where an engine says what.

    * prefix: how the names on its pages begin, and on no other engine's; "" when it cannot be told from its page
    * waiting, running: requests (gauges); kv_utilization: a share, 0..1
    * cache_info: a series whose labels `block_size_label` and `num_blocks_label` hold the cache configuration
    * block_size_tokens, num_blocks: the same as values of series of their own, for engines without such labels
    * lora: a series whose labels name the adapters in use and whose value is the time of it
    * total_us, queued_us: time that requests took, and that they waited, from which `running` is worked out when it is
      not there
    * shard_labels: series that differ in these alone speak of the same requests
    """

    name: str
    prefix: str = ""
    waiting: Alternatives = ()
    running: Alternatives = ()
    kv_utilization: Alternatives = ()
    cache_info: Alternatives = ()
    block_size_label: str = "block_size"
    num_blocks_label: str = "num_gpu_blocks"
    block_size_tokens: Alternatives = ()
    num_blocks: Alternatives = ()
    lora: Alternatives = ()
    total_us: Alternatives = ()
    queued_us: Alternatives = ()
    shard_labels: frozenset[str] = frozenset()

    def override(self, signal: str, text: str) -> EngineMetrics:
        """Read `signal` (a field that holds alternatives) from the series `text` names; "" switches it off.

        When `text` is one of the names this engine has had, its other names stay as fall-backs, so that an argument
        written for one version goes on working with the next. A counter that is named as a gauge is not taken for
        one. Raises `ConfigError` when `text` cannot be read.
        """
        alternatives: Alternatives = ()
        if text.strip():
            spec = parse_series_spec(text)
            if spec.name in _COUNTERS:
                log.warning("metric %s counts since the start and is no number of requests; it is not read", spec)
                return self
            known: Alternatives = getattr(self, signal)
            others = tuple(other for other in known if other != spec) if spec in known else ()
            alternatives = (spec, *others)
        changes: dict[str, Any] = {signal: alternatives}
        if signal == "running":
            changes |= {"total_us": (), "queued_us": ()}
        return replace(self, **changes)


def _names(*names: str, **labels: str) -> Alternatives:
    return tuple(SeriesSpec(name, tuple(labels.items())) for name in names)


_COUNTERS = frozenset({"nv_inference_exec_count"})
_TRT_REQUESTS, _TRT_BLOCKS = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"

VLLM = EngineMetrics(
    name="vllm",
    prefix="vllm:",
    waiting=_names("vllm:num_requests_waiting"),
    running=_names("vllm:num_requests_running"),
    kv_utilization=_names("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    cache_info=_names("vllm:cache_config_info"),
    lora=_names("vllm:lora_requests_info"),
)
SGLANG = EngineMetrics(
    name="sglang",
    prefix="sglang:",
    waiting=_names("sglang:num_queue_reqs", priority=""),
    running=_names("sglang:num_running_reqs", priority=""),
    kv_utilization=_names("sglang:token_usage"),
    cache_info=_names("sglang:cache_config_info"),
    block_size_label="page_size",
    num_blocks_label="num_pages",
    shard_labels=frozenset({"tp_rank", "pp_rank", "moe_ep_rank"}),
)
TRTLLM_SERVE = EngineMetrics(
    name="trtllm-serve",
    prefix="trtllm_",
    waiting=_names("trtllm_num_requests_waiting"),
    running=_names("trtllm_num_requests_running"),
    kv_utilization=_names("trtllm_kv_cache_utilization"),
    block_size_tokens=_names("trtllm_kv_cache_tokens_per_block"),
    num_blocks=_names("trtllm_kv_cache_max_blocks"),
)
TRITON_TENSORRT_LLM = EngineMetrics(
    name="triton-tensorrt-llm",
    prefix="nv_trt_llm_",
    waiting=_names(_TRT_REQUESTS, request_type="waiting"),
    running=_names(_TRT_REQUESTS, request_type="scheduled"),
    kv_utilization=_names(_TRT_BLOCKS, kv_cache_block_type="fraction"),
    block_size_tokens=_names(_TRT_BLOCKS, kv_cache_block_type="tokens_per"),
    num_blocks=_names(_TRT_BLOCKS, kv_cache_block_type="max"),
)
TRITON = EngineMetrics(
    name="triton",
    prefix="nv_inference_",
    waiting=_names("nv_inference_pending_request_count"),
    total_us=_names("nv_inference_request_duration_us"),
    queued_us=_names("nv_inference_queue_duration_us"),
)

# A page of Triton with the TensorRT-LLM backend has the names of both, so the more particular one is looked for first.
ENGINES: Mapping[str, EngineMetrics] = MappingProxyType(
    {engine.name: engine for engine in (VLLM, SGLANG, TRTLLM_SERVE, TRITON_TENSORRT_LLM, TRITON)}
)

_SIGNALS = {
    "queuedRequestsSpec": "waiting",
    "runningRequestsSpec": "running",
    "kvUsageSpec": "kv_utilization",
    "loraSpec": "lora",
    "cacheInfoSpec": "cache_info",
    "cacheBlockSizeSpec": "block_size_tokens",
    "cacheNumBlocksSpec": "num_blocks",
}
_LABELS = {"cacheBlockSizeLabelName": "block_size_label", "cacheNumBlocksLabelName": "num_blocks_label"}
_WITHOUT_EFFECT = ("customMetrics",)


def engine_from_config(entry: Mapping[str, object]) -> EngineMetrics:
    """One entry of `core-metrics-extractor`'s `engineConfigs`; what it leaves out stays as the built-in engine of
    its name has it. Raises `ConfigError`.
    """
    name = entry.get("name")
    if not isinstance(name, str) or not name or name == "default":
        raise ConfigError(f"engineConfigs: name is {name!r}; give the engine a name ('default' is reserved)")
    engine = ENGINES.get(name, EngineMetrics(name))
    for key, value in entry.items():
        if key == "name" or key in _WITHOUT_EFFECT:
            continue
        if key not in _SIGNALS and key not in _LABELS:
            raise ConfigError(f"engineConfigs {name}: unknown field {key!r}{_nearest(key)}")
        if not isinstance(value, str):
            raise ConfigError(f"engineConfigs {name}: {key} is {value!r}; it must be a string")
        if key in _SIGNALS:
            engine = engine.override(_SIGNALS[key], value)
        else:
            changes: dict[str, Any] = {_LABELS[key]: value}
            engine = replace(engine, **changes)
    ignored = [key for key in _WITHOUT_EFFECT if entry.get(key)]
    if ignored:
        log.warning("engineConfigs %s: %s is accepted and has no effect yet", name, ", ".join(ignored))
    return engine


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, ["name", *_SIGNALS, *_LABELS, *_WITHOUT_EFFECT], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
