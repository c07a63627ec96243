# SPDX-License-Identifier: Apache-2.0
"""Where the built-in plugins are: type or alias -> "module:object".

Only what a configuration names is imported. A test keeps the table and the tags of the plugins in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

BUILTIN: Mapping[str, str] = MappingProxyType(
    {
        "single-profile-handler": "epp.plugins.handlers.single_profile:SingleProfileHandler",
        "queue-scorer": "epp.plugins.scorers.queue:queue",
        "kv-cache-utilization-scorer": "epp.plugins.scorers.kv_cache:kv_cache_utilization",
        "kv-cache-scorer": "epp.plugins.scorers.kv_cache:kv_cache_utilization",
        "running-requests-size-scorer": "epp.plugins.scorers.running_requests:running_requests",
        "load-aware-scorer": "epp.plugins.scorers.load_aware:LoadAwareScorer",
        "lora-affinity-scorer": "epp.plugins.scorers.lora_affinity:lora_affinity",
        "active-request-scorer": "epp.plugins.scorers.active_request:ActiveRequestScorer",
        "header-based-testing-filter": "epp.plugins.filters.header_based_testing:HeaderBasedTestingFilter",
        "destination-endpoint-served-verifier": (
            "epp.plugins.responses.destination_endpoint_served:DestinationEndpointServedVerifier"
        ),
        "llm-request-costs": "epp.plugins.costs.llm_request_costs:LlmRequestCosts",
        "utilization-detector": "epp.plugins.detectors.utilization:UtilizationDetector",
        "max-score-picker": "epp.plugins.pickers.max_score:MaxScorePicker",
        "random-picker": "epp.plugins.pickers.random:RandomPicker",
        "weighted-random-picker": "epp.plugins.pickers.weighted_random:WeightedRandomPicker",
        "prefix-cache-scorer": "epp.prefix.plugin:PrefixCacheScorer",
        "approx-prefix-cache-producer": "epp.prefix.plugin:ApproxPrefixCacheProducer",
        "file-discovery": "epp.discovery.plugin:FileDiscoveryPlugin",
        "metrics-data-source": "epp.config.declared:MetricsDataSource",
        "core-metrics-extractor": "epp.config.declared:CoreMetricsExtractor",
        "model-server-protocol-metrics": "epp.config.declared:CoreMetricsExtractor",
        "token-producer": "epp.config.declared:TokenProducer",
        "tokenizer": "epp.config.declared:TokenProducer",
        "openai-parser": "epp.config.declared:OpenAIParser",
        "anthropic-parser": "epp.config.declared:AnthropicParser",
        "passthrough-parser": "epp.config.declared:PassthroughParser",
    }
)
