# SPDX-License-Identifier: Apache-2.0
"""Names per engine, and what overrides do to them."""

from __future__ import annotations

import logging

import pytest

from epp.contract.errors import ConfigError
from epp.signals.engine.names import VLLM, engine_from_config
from epp.signals.engine.series import SeriesSpec


def names(alternatives: tuple[SeriesSpec, ...]) -> list[str]:
    return [str(spec) for spec in alternatives]


def test_vllm_is_known_under_both_names_of_its_kv_metric() -> None:
    assert names(VLLM.kv_utilization) == ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"]


def test_a_name_given_by_a_flag_replaces_the_built_in_ones() -> None:
    engine = VLLM.override("waiting", "nv_trt_llm_request_metrics{request_type=waiting}")
    assert names(engine.waiting) == ["nv_trt_llm_request_metrics{request_type=waiting}"]
    assert engine.running == VLLM.running


def test_a_name_of_the_engines_past_comes_first_and_its_others_stay() -> None:
    engine = VLLM.override("kv_utilization", "vllm:gpu_cache_usage_perc")
    assert names(engine.kv_utilization) == ["vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"]


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_string_switches_a_signal_off(text: str) -> None:
    assert VLLM.override("running", text).running == ()


def test_an_override_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="'two words'"):
        VLLM.override("running", "two words")


def test_an_engine_config_changes_what_it_names_and_keeps_the_rest() -> None:
    engine = engine_from_config(
        {"name": "vllm", "queuedRequestsSpec": "q{a=b}", "kvUsageSpec": "", "cacheBlockSizeLabelName": "page_size"}
    )
    assert names(engine.waiting) == ["q{a=b}"]
    assert engine.kv_utilization == ()
    assert engine.running == VLLM.running
    assert engine.block_size_label == "page_size"
    assert engine.num_blocks_label == "num_gpu_blocks"


def test_an_engine_config_of_another_name_starts_from_nothing() -> None:
    engine = engine_from_config({"name": "mine", "runningRequestsSpec": "r", "cacheNumBlocksSpec": "blocks"})
    assert (engine.name, names(engine.running), names(engine.num_blocks)) == ("mine", ["r"], ["blocks"])
    assert engine.waiting == ()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "name is None"),
        ({"name": "default"}, "reserved"),
        ({"name": "x", "queuedRequestSpec": "q"}, "did you mean 'queuedRequestsSpec'"),
        ({"name": "x", "kvUsageSpec": 5}, "kvUsageSpec is 5"),
        ({"name": "x", "kvUsageSpec": "{"}, "cannot be read"),
    ],
)
def test_mistakes_in_an_engine_config_are_named(entry: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine_from_config(entry)


def test_what_has_no_effect_yet_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "epp.signals"):
        engine_from_config({"name": "vllm", "customMetrics": ({"attributeKey": "a", "metricSpec": "m"},)})
    assert "customMetrics" in caplog.text
