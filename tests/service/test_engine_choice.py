# SPDX-License-Identifier: Apache-2.0
"""What flags and configuration make of the engines: whose names are read from which endpoint."""

from __future__ import annotations

import logging

import pytest

from epp.config.catalog import collect
from epp.config.load import load_text
from epp.contract.errors import ConfigError
from epp.contract.plugins import SCRAPED
from epp.contract.signals import Sample
from epp.service.engines import engines_of
from epp.service.flags.parsing import parse
from epp.signals.engine.names import ENGINES
from epp.signals.engine.recognise import Engines
from epp.signals.engine.scan import PageScanner

TRITON_PAGE = b"""\
nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 4
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 9
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.5
"""
LABEL = "llm-d.ai/engine-type"


def engines(flags: str = "", extractor: str = "") -> Engines:
    document = "plugins:\n- type: queue-scorer\n"
    if extractor:
        document += f"- {{type: core-metrics-extractor, parameters: {extractor}}}\n"
    return engines_of(parse(flags.split(), {}), load_text(document, collect(points=()), source="test"))


def read(chosen: Engines, page: bytes, **labels: str) -> Sample:
    return PageScanner(chosen, SCRAPED, {key.replace("_", "/"): value for key, value in labels.items()}).scan(page)


def test_without_a_word_about_engines_pages_tell() -> None:
    chosen = engines()
    assert (dict(chosen.known), chosen.default) == (dict(ENGINES), "")
    assert chosen.label_keys == (LABEL, "inference.networking.k8s.io/engine-type")
    assert read(chosen, TRITON_PAGE) == Sample(4, 9, 0.5)


def test_the_default_engine_is_that_of_endpoints_without_label() -> None:
    chosen = engines(extractor="{defaultEngine: sglang, engineLabelKey: my-engine}")
    assert chosen.named({}) is ENGINES["sglang"]
    assert chosen.named({"my-engine": "vllm"}) is ENGINES["vllm"]
    assert chosen.named({"inference.networking.k8s.io/engine-type": "triton"}) is ENGINES["triton"]


def test_an_engine_of_ones_own() -> None:
    chosen = engines(extractor="{defaultEngine: mine, engineConfigs: [{name: mine, queuedRequestsSpec: 'q{kind=w}'}]}")
    assert read(chosen, b'q{kind="w"} 3\nq{kind="r"} 5\n') == Sample(3)


def test_a_built_in_engine_with_another_name_for_a_signal() -> None:
    chosen = engines(extractor="{engineConfigs: [{name: vllm, queuedRequestsSpec: my_queue}]}")
    assert read(chosen, b"vllm:num_requests_running 2\nmy_queue 6\n") == Sample(6, 2)


def test_a_default_engine_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"defaultEngine is 'vlm', which is no engine here; allowed: vllm, sglang,"):
        engines(extractor="{defaultEngine: vlm}")


def test_flags_that_name_an_engines_metrics_name_the_engine() -> None:
    # As the manifests for Triton have it, which leave out the running requests.
    flags = (
        "-totalQueuedRequestsMetric nv_trt_llm_request_metrics{request_type=waiting}"
        " -kvCacheUsagePercentageMetric nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"
        " -loraInfoMetric="
    )
    chosen = engines(flags)
    assert chosen.default == "triton-tensorrt-llm"
    assert chosen.known[chosen.default].lora == ()
    assert read(chosen, TRITON_PAGE) == Sample(4, 9, 0.5)


def test_flags_with_names_of_nobody_change_vllm() -> None:
    chosen = engines("--total-queued-requests-metric my_queue --cache-info-metric=")
    assert chosen.default == "vllm"
    assert read(chosen, b"vllm:num_requests_running 2\nmy_queue 6\n") == Sample(6, 2)


def test_flags_say_nothing_of_endpoints_with_a_label_of_another_engine() -> None:
    chosen = engines("--total-queued-requests-metric vllm:num_requests_waiting")
    assert chosen.named({LABEL: "sglang"}) is ENGINES["sglang"]
    assert chosen.named({}) == ENGINES["vllm"]


def test_a_counter_is_not_taken_for_requests_running(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "epp.signals"):
        chosen = engines(extractor="{engineConfigs: [{name: triton, runningRequestsSpec: nv_inference_exec_count}]}")
    assert chosen.known["triton"] == ENGINES["triton"]
    assert "nv_inference_exec_count counts since the start" in caplog.text
