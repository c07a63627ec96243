# SPDX-License-Identifier: Apache-2.0
"""The configuration file: what is read, what is refused, and in which words."""

from __future__ import annotations

import pytest

from epp.contract.errors import ConfigError
from epp.gateway.config import CostConfig, GatewayConfig, ListenerConfig, ModelConfig, read_config, write_config

FULL = """\
{"listeners": {"80": {"models": {
    "qwen": {"target": "pool", "name": "kserve-test/qwen"},
    "llama3-1b": {"target": "backend", "name": "default/llama3-1b", "counts": true, "includeUsage": "hidden",
                  "costs": [{"metadataKey": "llm_total_token", "type": "TotalToken"},
                            {"metadataKey": "price", "type": "CEL", "cel": "input_tokens * 2u"}]}},
  "others": {"target": "backend", "name": "default/any", "counts": true}}},
 "tenantHeader": "x-team", "bodyLimitBytes": 1048576, "metadataNamespace": "io.envoy.ai_gateway",
 "pathPrefixes": ["", "/openai"]}
"""


def test_everything_is_read() -> None:
    config = read_config(FULL, "gateway.json")
    served = config.listeners["80"]
    assert served.models["qwen"] == ModelConfig("pool", "kserve-test/qwen")
    llama = served.models["llama3-1b"]
    assert (llama.target, llama.counts, llama.include_usage) == ("backend", True, "hidden")
    assert llama.costs[1] == CostConfig("price", "CEL", "input_tokens * 2u")
    assert served.others is not None
    assert served.others.name == "default/any"
    assert (config.tenant_header, config.body_limit_bytes) == ("x-team", 1 << 20)
    assert config.path_prefixes == ("", "/openai")


def test_defaults() -> None:
    config = read_config('{"listeners": {}}', "gateway.json")
    assert config == GatewayConfig({})
    assert (config.tenant_header, config.metadata_namespace) == ("x-user-id", "io.envoy.ai_gateway")


def test_what_is_written_is_read() -> None:
    config = read_config(FULL, "gateway.json")
    assert read_config(write_config(config), "again") == config
    assert read_config(write_config(GatewayConfig({"80": ListenerConfig()})), "again").listeners["80"].others is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Input data was truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "the document: listeners is missing"),
        (
            '{"listeners": {}, "tenant": "x"}',
            'the document: unknown field "tenant"; allowed: listeners, tenantHeader',
        ),
        (
            '{"listeners": {"80": {"models": {"m": {"target": "pod"}}}}}',
            'listeners.80.models.m.target: "pod" is unknown; allowed: pool, backend',
        ),
        ('{"listeners": {}, "bodyLimitBytes": 12}', "bodyLimitBytes: Expected `int` >= 1024"),
        ('{"listeners": {}, "tenantHeader": "X User"}', "tenantHeader 'X User' is no header name"),
        ('{"listeners": {}, "pathPrefixes": ["/a/"]}', "'/a/' is no path"),
        ('{"listeners": {}, "pathPrefixes": []}', "pathPrefixes is empty"),
        ('{"listeners": {"80": {"models": {"a\\nb": {"target": "pool"}}}}}', "has control characters"),
        (
            '{"listeners": {"80": {"models": {"m": {"target": "backend", "costs": [{"metadataKey": "k", "type": "T"}]}}}}}',
            'listeners.80.models.m.costs[0].type: "T" is unknown; allowed: InputToken, OutputToken, TotalToken',
        ),
        (
            '{"listeners": {"80": {"models": {"m": {"taget": "pool"}}}}}',
            "models.m: unknown field \"taget\"; did you mean 'target'?",
        ),
        ('{"listeners": {"80": {"models": {"m": {}}}}}', "listeners.80.models.m: target is missing"),
        ('{"listeners": {"80": {"others": {"target": 3}}}}', "listeners.80.others.target: "),
        ('{"listeners": {"80": {"models": []}}}', "listeners.80.models: Expected `object`, got `array`"),
        ('{"listeners": 1, "tenantHeader": 2}', "(and 1 more)"),
    ],
)
def test_mistakes_are_one_line_that_names_the_file(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_config(text, "gateway.json")
    line = str(raised.value)
    assert line.startswith("gateway configuration gateway.json: ")
    assert told in line
    assert "\n" not in line
