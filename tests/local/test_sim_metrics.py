# SPDX-License-Identifier: Apache-2.0
"""The simulated pod's metrics page, read back with Prometheus' own parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.local.sim.engine import Engine, EngineConfig, Work
from epp.local.sim.instruments import Gauge, Page, number, series
from epp.local.sim.metrics import PodMetrics
from epp.local.sim.pages import PageConfig

MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


def pod(**config: object) -> tuple[PodMetrics, Engine]:
    options = {"model": MODEL, "max_model_len": 32_768, "block_size_tokens": 16, "num_blocks": 1000, **config}
    metrics = PodMetrics(PageConfig(**options))  # type: ignore[arg-type]
    engine = EngineConfig(num_blocks=1000, max_num_seqs=2, decode_step_s=0.01, decode_step_per_seq_s=0.0)
    return metrics, Engine(engine, metrics)


def samples(page: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(page: bytes, name: str, **labels: str) -> float:
    [found] = [v for have, v in samples(page)[name] if labels.items() <= have.items()]
    return found


def test_the_page_has_vllms_families_labels_and_size() -> None:
    metrics, engine = pod()
    page = metrics.page(engine, 1_785_414_856.5)
    assert 60_000 <= len(page) <= 80_000
    found = samples(page)
    for name in (
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:time_to_first_token_seconds_count",
        "vllm:inter_token_latency_seconds_sum",
        "vllm:e2e_request_latency_seconds_count",
        "vllm:request_prompt_tokens_count",
        "vllm:request_generation_tokens_count",
    ):
        assert [labels for labels, _ in found[name]] == [{"engine": "0", "model_name": MODEL}], name
    [(cache, one)] = found["vllm:cache_config_info"]
    assert (cache["block_size"], cache["num_gpu_blocks"], cache["engine"], one) == ("16", "1000", "0", 1.0)
    [(lora, stamp)] = found["vllm:lora_requests_info"]
    assert (lora, stamp) == (
        {"max_lora": "0", "running_lora_adapters": "", "waiting_lora_adapters": ""},
        1_785_414_856.5,
    )
    assert found["process_cpu_seconds_total"][0][1] > 0
    assert found["python_gc_collections_total"]


@pytest.mark.parametrize(
    ("old", "there", "absent"),
    [
        (False, "vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        (True, "vllm:gpu_cache_usage_perc", "vllm:kv_cache_usage_perc"),
    ],
)
def test_the_kv_metric_has_its_name_of_the_era(old: bool, there: str, absent: str) -> None:
    metrics, engine = pod(old_kv_name=old)
    found = samples(metrics.page(engine, 0.0))
    assert there in found
    assert absent not in found


def test_the_page_follows_the_engine() -> None:
    metrics, engine = pod(max_loras=2)
    hashes = tuple(range(1, 11))
    for adapter in ("one", "two", "three"):
        engine.submit(0.0, Work(160, 10, hashes, 10, adapter=adapter))
    engine.advance(0.05)
    page = metrics.page(engine, 1.0)
    assert value(page, "vllm:num_requests_running") == 2
    assert value(page, "vllm:num_requests_waiting") == 1
    assert value(page, "vllm:kv_cache_usage_perc") == engine.blocks.utilization > 0
    [(lora, _)] = samples(page)["vllm:lora_requests_info"]
    assert lora == {"max_lora": "2", "running_lora_adapters": "one,two", "waiting_lora_adapters": "three"}
    while (now_s := engine.next_event_s) is not None:
        engine.advance(now_s)
    metrics.request_ended("stop", 1, 10)
    page = metrics.page(engine, 2.0)
    assert value(page, "vllm:num_requests_running") == 0
    assert value(page, "vllm:prompt_tokens_total") == 480
    assert value(page, "vllm:generation_tokens_total") == 30
    assert value(page, "vllm:prefix_cache_queries_total") == 480
    cached = value(page, "vllm:prefix_cache_hits_total")
    assert cached in (144, 288)
    assert value(page, "vllm:prompt_tokens_by_source_total", source="local_cache_hit") == cached
    assert value(page, "vllm:time_to_first_token_seconds_count") == 3
    assert value(page, "vllm:inter_token_latency_seconds_count") == 27
    assert value(page, "vllm:e2e_request_latency_seconds_bucket", le="+Inf") == 3
    assert value(page, "vllm:request_success_total", finished_reason="stop") == 1


def test_unchanged_families_are_not_rendered_again() -> None:
    rendered = []

    class Counting(Gauge):
        def render(self) -> str:
            rendered.append(self.name)
            return super().render()

    families = [Counting(name, "help", {}) for name in ("a", "b")]
    page = Page(families)
    first = page.body()
    assert page.body() is first
    families[1].set(2.0)
    assert b"\nb 2.0\n" in page.body()
    assert rendered == ["a", "b", "b"]


@pytest.mark.parametrize(
    ("number_", "text"),
    [
        (0, "0.0"),
        (0.001, "0.001"),
        (999_999.5, "999999.5"),
        (1e6, "1.0e+06"),
        (1_785_414_856.271799, "1.785414856271799e+09"),
        (float("inf"), "+Inf"),
        (1e-7, "1e-07"),
    ],
)
def test_numbers_look_like_vllms(number_: float, text: str) -> None:
    assert number(number_) == text


def test_label_values_are_escaped() -> None:
    assert series("m", {"b": 'say "hi"', "a": "back\\slash"}) == 'm{a="back\\\\slash",b="say \\"hi\\""}'
