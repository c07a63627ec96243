# SPDX-License-Identifier: Apache-2.0
"""How each inference engine names its signals, as data, and how operators override the names.

A signal has alternatives: names that versions of one engine gave to the same thing. The first that the page has is
read. No alternative at all switches the signal off.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from epp.contract.errors import ConfigError
from epp.signals.series import SeriesSpec, parse_series_spec

log = logging.getLogger("epp.signals")

Alternatives = tuple[SeriesSpec, ...]


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Where an engine says what.

    * waiting, running: requests (gauges); kv_utilization: a share, 0..1
    * cache_info: a series whose labels `block_size_label` and `num_blocks_label` hold the cache configuration
    * block_size_tokens, num_blocks: the same as values of series of their own, for engines without such labels
    """

    name: str
    waiting: Alternatives = ()
    running: Alternatives = ()
    kv_utilization: Alternatives = ()
    cache_info: Alternatives = ()
    block_size_label: str = "block_size"
    num_blocks_label: str = "num_gpu_blocks"
    block_size_tokens: Alternatives = ()
    num_blocks: Alternatives = ()

    def override(self, signal: str, text: str) -> EngineMetrics:
        """Read `signal` (a field that holds alternatives) from the series `text` names; "" switches it off.

        When `text` is one of the names this engine has had, its other names stay as fall-backs, so that an argument
        written for one version goes on working with the next. Raises `ConfigError` when `text` cannot be read.
        """
        alternatives: Alternatives = ()
        if text.strip():
            spec = parse_series_spec(text)
            known: Alternatives = getattr(self, signal)
            others = tuple(other for other in known if other != spec) if spec in known else ()
            alternatives = (spec, *others)
        changes: dict[str, Any] = {signal: alternatives}
        return replace(self, **changes)


VLLM = EngineMetrics(
    name="vllm",
    waiting=(SeriesSpec("vllm:num_requests_waiting"),),
    running=(SeriesSpec("vllm:num_requests_running"),),
    kv_utilization=(SeriesSpec("vllm:kv_cache_usage_perc"), SeriesSpec("vllm:gpu_cache_usage_perc")),
    cache_info=(SeriesSpec("vllm:cache_config_info"),),
)

ENGINES: Mapping[str, EngineMetrics] = {VLLM.name: VLLM}

_SIGNALS = {
    "queuedRequestsSpec": "waiting",
    "runningRequestsSpec": "running",
    "kvUsageSpec": "kv_utilization",
    "cacheInfoSpec": "cache_info",
    "cacheBlockSizeSpec": "block_size_tokens",
    "cacheNumBlocksSpec": "num_blocks",
}
_LABELS = {"cacheBlockSizeLabelName": "block_size_label", "cacheNumBlocksLabelName": "num_blocks_label"}
_WITHOUT_EFFECT = ("loraSpec", "customMetrics")


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
