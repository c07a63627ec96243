# SPDX-License-Identifier: Apache-2.0
"""What flags and configuration say about inference engines and the names of their metrics.

The label of an endpoint comes first, then `core-metrics-extractor`'s `defaultEngine`, then what an endpoint's page
looks like. Metric flags speak of all endpoints without such a label. They are names out of one engine's vocabulary, so
they tell the engine as well, and what they leave out is read as that engine calls it.
"""

from __future__ import annotations

from epp.config.configuration import Configuration
from epp.config.declared import EngineConfig
from epp.contract.errors import ConfigError
from epp.service.flags.options import Options
from epp.signals.engine.names import ENGINES, VLLM, EngineMetrics, engine_from_config
from epp.signals.engine.recognise import LABEL, LEGACY_LABEL, Engines
from epp.signals.engine.series import parse_series_spec


def engines_of(options: Options, configuration: Configuration) -> Engines:
    """The engines there are and how an endpoint's is found. Raises `ConfigError` for a metric that cannot be read."""
    known: dict[str, EngineMetrics] = dict(ENGINES)
    default, keys = "", (LABEL, LEGACY_LABEL)
    extractor = configuration.of_type("core-metrics-extractor")
    if extractor is not None:
        given = extractor.parameters
        known |= {entry.name: engine_from_config(_given(entry)) for entry in given.engineConfigs}
        default = given.defaultEngine
        keys = tuple(dict.fromkeys((given.engineLabelKey, LEGACY_LABEL)))
        if default and default not in known:
            raise ConfigError(f"defaultEngine is {default!r}, which is no engine here; allowed: {', '.join(known)}")
    overrides = {
        "waiting": options.total_queued_requests_metric,
        "running": options.total_running_requests_metric,
        "kv_utilization": options.kv_cache_usage_percentage_metric,
        "lora": options.lora_info_metric,
        "cache_info": options.cache_info_metric,
    }
    told = {signal: text for signal, text in overrides.items() if text is not None}
    if told:
        engine = known.get(default) or _speaking(known, told)
        for signal, text in told.items():
            engine = engine.override(signal, text)
        known[engine.name] = engine
        default = engine.name
    return Engines(known, default, keys)


def _speaking(known: dict[str, EngineMetrics], told: dict[str, str]) -> EngineMetrics:
    """The engine that uses one of the names given, vLLM if none does."""
    for signal, text in told.items():
        spec = parse_series_spec(text) if text.strip() else None
        for engine in known.values():
            if spec in getattr(engine, signal):
                return engine
    return known.get(VLLM.name, VLLM)


def _given(entry: EngineConfig) -> dict[str, object]:
    return {name: getattr(entry, name) for name in entry.__dataclass_fields__ if getattr(entry, name)}
