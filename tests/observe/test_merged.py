# SPDX-License-Identifier: Apache-2.0
"""Many pools on one metrics page: every family once, every series told apart."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from epp.observe.metrics import families
from epp.observe.metrics.counts import Readings, ReadingsCollector, RequestMetrics
from epp.observe.metrics.families import Family
from epp.observe.metrics.merged import MergedCollector
from epp.observe.metrics.page import MetricsRegistry, page
from epp.observe.metrics.rows import FamilyCollector, Row


class Gauge(FamilyCollector):
    def __init__(self, value: float | None) -> None:
        self._value = value

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        yield families.POOL_READY, [] if self._value is None else [({"name": "llama"}, self._value)]


def requests(count: int) -> RequestMetrics:
    metrics = RequestMetrics()
    for _ in range(count):
        metrics.series("m", "m", "default-flow", 0).started(100)
    return metrics


def test_one_page() -> None:
    parts = {
        "a/llama": [requests(2), Gauge(4.0), ReadingsCollector(Readings(plugin_errors=lambda: {"p": 1.0}), "c", "r")],
        "b/llama": [requests(3), Gauge(None), ReadingsCollector(Readings(), "c", "r")],
    }
    process = ReadingsCollector(Readings(log_lines_dropped=lambda: 7.0), "c", "r")
    body, _ = page(MetricsRegistry(MergedCollector(parts.items), process))
    text = body.decode()
    titles = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(titles) == len(set(titles))
    samples = {
        (sample.name, sample.labels.get("pool", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for name in ("llm_d_epp_request_total", "inference_objective_request_total", "inference_model_request_total"):
        assert (samples[name, "a/llama"], samples[name, "b/llama"]) == (2, 3), name
    assert samples["inference_model_request_sizes_count", "b/llama"] == 3
    assert samples["inference_pool_ready_pods", "a/llama"] == 4
    assert ("inference_pool_ready_pods", "b/llama") not in samples
    assert samples["epp_plugin_errors_total", "a/llama"] == 1
    assert samples["epp_log_lines_dropped_total", ""] == 7
    assert [key for key in samples if key[0].endswith("_info")].count(("llm_d_epp_info", "")) == 1


def test_pools_come_and_go() -> None:
    parts: dict[str, list[FamilyCollector]] = {}
    merged = MergedCollector(parts.items)
    assert list(merged.families()) == []
    parts["a/x"] = [Gauge(1.0)]
    parts["a/y"] = [Gauge(2.0)]
    [(family, rows)] = merged.families()
    assert family.names[1].labels == ("name", "pool")
    assert [labels["pool"] for labels, _ in rows] == ["a/x", "a/y"]
    del parts["a/x"]
    [(again, rows)] = merged.families()
    assert again is family
    assert len(rows) == 1
