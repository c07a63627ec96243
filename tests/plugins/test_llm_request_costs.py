# SPDX-License-Identifier: Apache-2.0
"""The plugin `llm-request-costs`: the configuration of the tutorials, what it leaves for Envoy, what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from epp.api import ConfigError, PluginContext, ResponseEnd, ResponseEndHook, Usage, UsageWish, UsageWisher
from epp.config.build import assemble
from epp.config.catalog import collect
from epp.config.load import load_text
from epp.contract.errors import EppError
from epp.observe.metrics.meter import CountingMeter
from epp.plugins.costs.llm_request_costs import MOST_SERIES, SECRET_HEADERS, LlmRequestCosts
from epp.plugins.costs.rules import CostRule
from epp.testing import RecordingMeter, make_context, make_plugin, make_request

SEED = """
    - metadataKey: llm_input_token
      type: InputToken    # Counts tokens in the request
    - metadataKey: llm_output_token
      type: OutputToken   # Counts tokens in the response
    - metadataKey: llm_total_token
      type: TotalToken   # Tracks combined usage
"""
RULES = (
    CostRule("llm_input_token", "InputToken"),
    CostRule("llm_output_token", "OutputToken"),
    CostRule("llm_total_token", "TotalToken"),
)
USAGE = Usage(24, 178, 202, 16, None, 64)
NAMESPACE = "io.envoy.ai_gateway"


def made(meter: RecordingMeter | None = None, **parameters: Any) -> LlmRequestCosts:
    plugin = make_plugin(LlmRequestCosts, context=make_context(meter=meter), **parameters)
    assert isinstance(plugin, LlmRequestCosts)
    return plugin


def configured(parameters: str) -> Any:
    """The plugin as a configuration file makes it."""
    text = (
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
        f"- type: llm-request-costs\n  name: costs\n  parameters:\n{parameters}"
        "- type: random-picker\nschedulingProfiles:\n- name: default\n  plugins:\n  - pluginRef: random-picker\n"
    )
    configuration = load_text(text, collect(points=()), source="test")
    return assemble(configuration, lambda: 0.0, 1).objects["costs"]


@pytest.mark.parametrize("name", ["costs", "llmRequestCosts"])
def test_the_list_of_the_tutorials_loads_unchanged(name: str) -> None:
    plugin = configured(f"    {name}:\n" + SEED)
    assert plugin.on_response_end(make_request(), ResponseEnd(200, USAGE)) == {
        NAMESPACE: {"llm_input_token": 24.0, "llm_output_token": 178.0, "llm_total_token": 202.0}
    }


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("    costs:\n    - {metadataKey: a, type: InputTokens}\n", '"InputTokens" is not known'),
        ("    costs:\n    - {type: InputToken}\n", "metadataKey: required"),
        ("    costs:\n    - {metadataKey: '', type: InputToken}\n", "metadataKey"),
        ("    costs:\n    - {metadataKey: a, type: InputToken}\n    - {metadataKey: a, type: TotalToken}\n",
         "costs[1].metadataKey: 'a' is used by costs[0] already"),
        ("    costs:\n    - {metadataKey: a, type: CEL, cel: input_tokns * 2}\n",
         "costs[0].cel: 'input_tokns * 2' is no cost: input_tokns is not known; allowed: an expression of model, "),
        ("    llmRequestCosts:\n    - {metadataKey: a, type: CEL}\n", "llmRequestCosts[0].cel: required for type CEL"),
        ("    tenantHeader: Authorization\n", "tenantHeader: 'authorization' holds a secret"),
        ("    tenantHeader: ':path'\n", "tenantHeader: ':path' is not a header's name"),
        ("    includeUsage: always\n", '"always" is not known'),
        ("    metadataNamespace: ''\n", "metadataNamespace"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_each(parameters: str, told: str) -> None:
    with pytest.raises(EppError) as caught:
        configured(parameters)
    [line] = [line for line in str(caught.value).splitlines() if "costs" in line and "llm-request-costs" in line]
    assert told in line


def test_two_names_of_one_list() -> None:
    with pytest.raises(ConfigError, match="two names of one list"):
        made(costs=RULES, llmRequestCosts=RULES)


@pytest.mark.parametrize("name", [*sorted(SECRET_HEADERS), "X-API-Key", " Cookie "])
def test_secrets_are_no_tenants(name: str) -> None:
    with pytest.raises(ConfigError, match="holds a secret"):
        made(tenantHeader=name)


@pytest.mark.parametrize("status", [None, 100, 301, 400, 404, 429, 500, 503])
def test_an_error_costs_nothing_even_when_it_tells_tokens(status: int | None) -> None:
    meter = RecordingMeter()
    assert made(meter, costs=RULES).on_response_end(make_request(), ResponseEnd(status, USAGE)) == {}
    assert not any(meter.counted.values())


def test_an_answer_without_usage_leaves_nothing_and_is_counted() -> None:
    meter = RecordingMeter()
    plugin = made(meter, costs=RULES)
    for usage in (None, Usage()):
        assert plugin.on_response_end(make_request(model="llama"), ResponseEnd(200, usage)) == {}
    # GET /v1/models and the like.
    assert plugin.on_response_end(make_request(model=""), ResponseEnd(200, None)) == {}
    assert meter.counted["epp_llm_answers_without_usage"] == {("llama",): 2.0}
    assert meter.counted["epp_llm_tokens"] == {}


def test_namespace_backend_and_model() -> None:
    rule = CostRule("c", "CEL", "model == 'llama' && backend == 'default/pool' ? input_tokens : 0u")
    plugin = made(costs=(rule,), metadataNamespace="my.own", backend="default/pool")
    request = make_request(model="llama", target_model="llama-lora-3")
    assert plugin.on_response_end(request, ResponseEnd(201, USAGE)) == {"my.own": {"c": 24.0}}


def test_tokens_are_counted_by_model_tenant_and_type() -> None:
    meter = RecordingMeter()
    plugin = made(meter)
    alice = make_request(model="llama", headers={"X-User-Id": "alice"})
    nobody = make_request(model="llama")
    assert plugin.on_response_end(alice, ResponseEnd(200, USAGE)) == {}
    plugin.on_response_end(alice, ResponseEnd(200, USAGE))
    plugin.on_response_end(nobody, ResponseEnd(200, Usage(24, 178, 202, 16, 100, None, 116)))
    assert meter.counted["epp_llm_tokens"] == {
        ("llama", "alice", "input"): 48.0,
        ("llama", "alice", "output"): 356.0,
        ("llama", "alice", "cached_input"): 32.0,
        ("llama", "alice", "reasoning"): 128.0,
        ("llama", "unknown", "input"): 140.0,
        ("llama", "unknown", "output"): 178.0,
        ("llama", "unknown", "cached_input"): 16.0,
        ("llama", "unknown", "cache_creation_input"): 100.0,
    }


@pytest.mark.parametrize(
    ("value", "tenant"),
    [
        ("a" * 128, "a" * 128),
        ("a" * 129, "a" * 128),
        ("ü" * 100, "ü" * 64),
        ("a" + "ü" * 100, "a" + "ü" * 63),
        ("\udcff\udcfe", "??"),
        ("", "unknown"),
    ],
)
def test_long_and_broken_names_of_tenants(value: str, tenant: str) -> None:
    meter = RecordingMeter()
    made(meter).on_response_end(make_request(headers={"x-user-id": value}), ResponseEnd(200, Usage(1, 0, 1)))
    assert list(meter.counted["epp_llm_tokens"]) == [("test-model", tenant, "input")]
    assert len(tenant.encode()) <= 128


def test_no_tenant_header_no_tenant() -> None:
    meter = RecordingMeter()
    made(meter, tenantHeader="").on_response_end(
        make_request(headers={"x-user-id": "alice"}), ResponseEnd(200, Usage(1, 0, 1))
    )
    assert list(meter.counted["epp_llm_tokens"]) == [("test-model", "", "input")]


def test_failed_expressions_are_counted_by_key() -> None:
    meter = RecordingMeter()
    plugin = made(meter, costs=(CostRule("bad", "CEL", "output_tokens - input_tokens"), *RULES))
    end = ResponseEnd(200, Usage(5, 1, 6))
    for _ in range(2):
        assert set(plugin.on_response_end(make_request(), end)[NAMESPACE]) == {rule.metadataKey for rule in RULES}
    assert meter.counted["epp_llm_cost_failures"] == {("bad",): 2.0}
    alone = made(costs=(CostRule("bad", "CEL", "output_tokens - input_tokens"),))
    assert alone.on_response_end(make_request(), end) == {}


@pytest.mark.parametrize("written", ["on", "'on'", "off", "hidden"])
def test_on_and_off_are_words_and_no_booleans(written: str) -> None:
    assert configured(f"    includeUsage: {written}\n").usage_wish is UsageWish(written.strip("'"))


@pytest.mark.parametrize("wish", list(UsageWish))
def test_it_wishes_for_usage_as_it_is_told(wish: UsageWish) -> None:
    plugin = made(includeUsage=wish.value)
    assert isinstance(plugin, UsageWisher)
    assert isinstance(plugin, ResponseEndHook)
    assert plugin.usage_wish is wish


def test_the_page_is_bounded_whoever_asks() -> None:
    meter = CountingMeter()
    context = PluginContext("costs", lambda: 0.0, make_context().rng, meter)
    plugin = make_plugin(LlmRequestCosts, context=context)
    for number in range(3000):
        request = make_request(model="llama", headers={"x-user-id": f"user-{number}"})
        plugin.on_response_end(request, ResponseEnd(200, Usage(1, 2, 3)))
    [rows] = [rows for family, rows in meter.families() if family.names[0].name == "epp_llm_tokens_total"]
    assert len(rows) <= MOST_SERIES
    sums: dict[str, float] = {}
    for labels, value in rows:
        assert isinstance(value, float)
        assert labels["model"] == "llama"
        sums[labels["type"]] = sums.get(labels["type"], 0.0) + value
    assert sums == {"input": 3000.0, "output": 6000.0}
