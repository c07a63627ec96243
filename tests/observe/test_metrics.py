# SPDX-License-Identifier: Apache-2.0
"""The metrics page: every name, label and bucket of each generation, and both formats."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from epp.contract.endpoints import Endpoint, Endpoints
from epp.contract.requests import Cause, Completion, Usage
from epp.contract.signals import Signal
from epp.observe.metrics.counts import Readings, RequestMetrics, registry
from epp.observe.metrics.page import MetricsRegistry, page
from epp.observe.metrics.pool import PoolCollector
from epp.observe.metrics.scraping import ScrapeFigures, ScrapingCollector

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

# The specification's table, as text on purpose: nothing here is computed from the code that is tested.
L = "model_name target_model_name fairness_id priority"
MT = "model_name target_model_name"
B1 = (
    "0.005 0.025 0.05 0.1 0.2 0.4 0.6 0.8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120 180 240 300 360 480 600 900 "
    "1200 1800 2700 3600"
)
B2 = (
    "64 128 256 512 1024 2048 4096 8192 16384 32768 65536 131072 262144 524288 1.048576e+06 2.097152e+06 4.194304e+06 "
    "8.388608e+06 1.6777216e+07 3.3554432e+07 6.7108864e+07 1.34217728e+08 2.68435456e+08 5.36870912e+08 "
    "1.073741824e+09"
)
B3 = "1 8 16 32 64 128 256 512 1024 2048 4096 8192 16384 32778 65536"
B4 = f"{B3} 131072 262144 524288 1.048576e+06"
B5 = "1 8 16 32 64 128 256 512 1024 2048 4096 8192"
B6 = "0.001 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5 1 2 5 10"
B7 = "0.005 0.025 0.05 0.1 0.2 0.4 0.6 0.8 1 1.25 1.5 2 3 4 5 6 8 10 15 20 30 45 60 120"
B8 = "0.0005 0.00205 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.125 0.15 0.2 0.3 0.4 0.5 0.6 0.8 1 2"
B9 = "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.15 0.2 0.3 0.5 0.75 1 2"
B10 = "0.0001 0.0002 0.0005 0.001 0.002 0.005 0.01 0.02 0.05 0.1"
B11 = "0.0005 0.001 0.002 0.005 0.01 0.015 0.025 0.04 0.06 0.1 0.25 0.5 1 2.5 5 10"
RATIO = "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"
BYTES = "0 16 32 64 128 256 512 1024 2048 4096 8192 16384 32768 65536"
ATTEMPT = "status target_model_name endpoint_name namespace port"
CHOSEN = (
    'status="success",target_model_name="t",pod_name="qwen-instruct-kserve-6899dd5fb8-tqwn8",namespace="kserve-test",'
    'port="8000"'
)
PLUGIN = "extension_point plugin_type plugin_name"

GOLDEN: dict[str, tuple[str, str, str]] = {
    "llm_d_epp_request_total": ("counter", L, ""),
    "llm_d_epp_request_error_total": ("counter", f"{L} error_code", ""),
    "llm_d_epp_request_duration_seconds": ("histogram", L, B1),
    "llm_d_epp_request_size_bytes": ("histogram", L, B2),
    "llm_d_epp_response_size_bytes": ("histogram", L, B3),
    "llm_d_epp_request_input_tokens": ("histogram", L, B4),
    "llm_d_epp_request_output_tokens": ("histogram", L, B5),
    "llm_d_epp_request_cached_tokens": ("histogram", L, B4),
    "llm_d_epp_request_ntpot_seconds": ("histogram", L, B6),
    "llm_d_epp_request_ttft_seconds": ("histogram", f"{L} streaming", B7),
    "llm_d_epp_request_streaming_tpot_seconds": ("histogram", L, B8),
    "llm_d_epp_request_streaming_itl_seconds": ("histogram", L, B9),
    "llm_d_epp_request_running": ("gauge", L, ""),
    "llm_d_epp_average_kv_cache_utilization": ("gauge", "name", ""),
    "llm_d_epp_std_dev_kv_cache_utilization": ("gauge", "name", ""),
    "llm_d_epp_average_queue_size": ("gauge", "name", ""),
    "llm_d_epp_std_dev_queue_size": ("gauge", "name", ""),
    "llm_d_epp_average_running_requests": ("gauge", "name", ""),
    "llm_d_epp_std_dev_running_requests": ("gauge", "name", ""),
    "llm_d_epp_ready_endpoints": ("gauge", "name", ""),
    "llm_d_epp_per_endpoint_queue_size": ("gauge", "name model_server_endpoint", ""),
    "llm_d_epp_scheduler_e2e_duration_seconds": ("histogram", "", B10),
    "llm_d_epp_scheduler_attempts_total": ("counter", ATTEMPT, ""),
    "llm_d_epp_plugin_duration_seconds": ("histogram", PLUGIN, B10),
    "llm_d_epp_request_processing_duration_seconds": ("histogram", "", B11),
    "llm_d_epp_info": ("gauge", "commit build_ref", ""),
    "llm_d_epp_datalayer_poll_errors_total": ("counter", "source_type", ""),
    "llm_d_epp_prefix_indexer_size": ("gauge", "plugin_name plugin_type", ""),
    "llm_d_epp_prefix_indexer_hit_ratio": ("histogram", "plugin_name plugin_type", RATIO),
    "llm_d_epp_prefix_indexer_hit_bytes": ("histogram", "plugin_name plugin_type", BYTES),
    "inference_objective_request_total": ("counter", f"{MT} priority", ""),
    "inference_objective_request_error_total": ("counter", f"{MT} error_code", ""),
    "inference_objective_request_duration_seconds": ("histogram", MT, B1),
    "inference_objective_request_sizes": ("histogram", MT, B2),
    "inference_objective_response_sizes": ("histogram", MT, B3),
    "inference_objective_input_tokens": ("histogram", MT, B4),
    "inference_objective_output_tokens": ("histogram", MT, B5),
    "inference_objective_prompt_cached_tokens": ("histogram", MT, B4),
    "inference_objective_normalized_time_per_output_token_seconds": ("histogram", MT, B6),
    "inference_objective_request_ttft_seconds": ("histogram", MT, B7),
    "inference_objective_request_tpot_seconds": ("histogram", MT, B8),
    "inference_objective_running_requests": ("gauge", "model_name", ""),
    "inference_model_request_total": ("counter", MT, ""),
    "inference_model_request_error_total": ("counter", f"{MT} error_code", ""),
    "inference_model_request_duration_seconds": ("histogram", MT, B1),
    "inference_model_request_sizes": ("histogram", MT, B2),
    "inference_model_response_sizes": ("histogram", MT, B3),
    "inference_model_input_tokens": ("histogram", MT, B4),
    "inference_model_output_tokens": ("histogram", MT, B5),
    "inference_model_normalized_time_per_output_token_seconds": ("histogram", MT, B6),
    "inference_model_running_requests": ("gauge", "model_name", ""),
    "inference_pool_average_kv_cache_utilization": ("gauge", "name", ""),
    "inference_pool_average_queue_size": ("gauge", "name", ""),
    "inference_pool_average_running_requests": ("gauge", "name", ""),
    "inference_pool_ready_pods": ("gauge", "name", ""),
    "inference_pool_per_pod_queue_size": ("gauge", "name model_server_pod", ""),
    "inference_extension_scheduler_e2e_duration_seconds": ("histogram", "", B10),
    "inference_extension_scheduler_attempts_total": ("counter", ATTEMPT.replace("endpoint_name", "pod_name"), ""),
    "inference_extension_plugin_duration_seconds": ("histogram", PLUGIN, B10),
    "inference_extension_scheduler_plugin_duration_seconds": ("histogram", "plugin_type plugin_name", B10),
    "inference_extension_request_control_plugin_duration_seconds": ("histogram", "plugin_type plugin_name", B10),
    "inference_extension_info": ("gauge", "commit build_ref", ""),
    "inference_extension_prefix_indexer_size": ("gauge", "plugin_name plugin_type", ""),
    "inference_extension_prefix_indexer_hit_ratio": ("histogram", "plugin_name plugin_type", RATIO),
    "inference_extension_prefix_indexer_hit_bytes": ("histogram", "plugin_name plugin_type", BYTES),
    "llm_d_inference_scheduler_datalayer_poll_errors_total": ("counter", "source_type", ""),
    "epp_plugin_errors_total": ("counter", "plugin", ""),
    "epp_log_lines_dropped_total": ("counter", "", ""),
    "epp_in_flight_requests": ("gauge", "name", ""),
    "epp_in_flight_tokens": ("gauge", "name", ""),
    "epp_scrape_failures_total": ("counter", "endpoint", ""),
    "epp_scrape_interval_seconds": ("gauge", "name", ""),
    "epp_scrape_idle": ("gauge", "name", ""),
    "epp_scrape_busy_seconds_total": ("counter", "name", ""),
    "epp_scrape_page_bytes_total": ("counter", "name", ""),
    "epp_scrape_saved_bytes_total": ("counter", "name", ""),
    "epp_scrape_filtered_endpoints": ("gauge", "name", ""),
    "epp_signal_age_seconds": ("gauge", "name signal bound", ""),
    "epp_signal_stale_endpoints": ("gauge", "name signal", ""),
    "epp_signal_missing_endpoints": ("gauge", "name signal", ""),
}


@pytest.fixture
def everything(endpoints: Callable[..., Endpoints]) -> MetricsRegistry:
    """Metrics in which every family has something to show."""
    candidates = endpoints(2)
    candidates.columns.scraped_at_s[:] = 10.0
    requests = RequestMetrics()
    for fairness_id, priority in (("a", 0), ("b", 1)):
        series = requests.series("m", "t", fairness_id, priority)
        series.started(9000)
        series.failed("ModelServerError")
        series.first_byte(0.5, streaming=True)
        series.first_byte(0.5, streaming=False)
        series.inter_token(0.02)
        completion = Completion(Cause.COMPLETE, True, 200, Usage(100, 20, 120, 64), 2.5, 0.5, 4000)
        series.finished(completion, streaming=True)
        series.started(9000)
    requests.scheduled(0.00015, True, candidates[0], "t")
    requests.scheduled(0.00015, True, candidates[0], "t")
    requests.scheduled(0.00015, False, None, "t")
    requests.plugin_duration("Scorer", "queue-scorer", "q1").observe(0.00015)
    requests.plugin_duration("Scorer", "queue-scorer", "q2").observe(0.00015)
    requests.plugin_duration("PreRequest", "prefix-cache-scorer", "p").observe(0.00015)
    requests.request_processing.observe(0.0007)
    requests.prefix_index("p", "prefix-cache-scorer", lambda: 77).matched(750, 1000)
    readings = Readings(
        plugin_errors=lambda: {"q1": 2},
        scrape_failures=lambda: {"ns/pod": 3},
        poll_errors=lambda: {"metrics-data-source": 3},
        log_lines_dropped=lambda: 4,
    )
    pool = PoolCollector(lambda: candidates.columns, lambda: 11.0, 2.0, "pool")
    scraping = ScrapingCollector(lambda: candidates.columns, lambda: 11.0, 2.0, "pool")
    scraping.figures = lambda: ScrapeFigures((Signal.WAITING,))
    candidates.columns.seen_at_s[:] = 10.0
    return registry(requests, pool, readings, scraping, commit="abc", build_ref="v1")


def parsed(text: str) -> dict[str, Metric]:
    """Families by the name on the page (the parser takes `_total` off)."""
    return {m.name + "_total" if m.type == "counter" else m.name: m for m in parse_text(text)}


def is_ours(name: str) -> bool:
    return name.startswith(("llm_d_", "inference_", "epp_"))


def test_every_name_is_on_the_page_and_no_other(everything: MetricsRegistry) -> None:
    families = parsed(page(everything)[0].decode())
    assert {name for name in families if is_ours(name)} == set(GOLDEN)
    assert {"process_cpu_seconds_total", "python_info", "python_gc_collections_total"} <= set(families)


@pytest.mark.parametrize("name", GOLDEN)
def test_type_labels_and_buckets(everything: MetricsRegistry, name: str) -> None:
    kind, labels, buckets = GOLDEN[name]
    family = parsed(page(everything)[0].decode())[name]
    assert family.type == kind
    assert family.documentation.startswith("[ALPHA] ")
    assert family.samples
    for sample in family.samples:
        assert set(sample.labels) - {"le"} == set(labels.split())
    if kind == "histogram":
        bounds = [s.labels["le"] for s in family.samples if s.name == f"{name}_bucket"]
        assert bounds[: len(bounds) // bounds.count("+Inf")] == [*buckets.split(), "+Inf"]


def test_deprecated_names_point_to_the_newest(everything: MetricsRegistry) -> None:
    text = page(everything)[0].decode()
    assert "# HELP inference_model_request_sizes [ALPHA] Deprecated: use llm_d_epp_request_size_bytes. " in text
    assert "# HELP llm_d_epp_request_size_bytes [ALPHA] Request body size in bytes.\n" in text


@pytest.mark.parametrize(
    "line",
    [
        'llm_d_epp_request_total{model_name="m",target_model_name="t",fairness_id="b",priority="1"} 2',
        'inference_objective_request_total{model_name="m",target_model_name="t",priority="1"} 2',
        'inference_model_request_total{model_name="m",target_model_name="t"} 4',
        'inference_model_running_requests{model_name="m"} 2',
        'inference_model_request_error_total{model_name="m",target_model_name="t",error_code="ModelServerError"} 2',
        'inference_objective_request_ttft_seconds_count{model_name="m",target_model_name="t"} 4',
        'inference_model_request_duration_seconds_bucket{model_name="m",target_model_name="t",le="2"} 0',
        'inference_model_request_duration_seconds_bucket{model_name="m",target_model_name="t",le="3"} 2',
        'inference_model_request_duration_seconds_bucket{model_name="m",target_model_name="t",le="+Inf"} 2',
        'inference_model_request_duration_seconds_sum{model_name="m",target_model_name="t"} 5.0',
        f"inference_extension_scheduler_attempts_total{{{CHOSEN}}} 2",
        'llm_d_epp_scheduler_attempts_total{status="failure",target_model_name="t",endpoint_name="",namespace="",port=""} 1',
        'inference_extension_scheduler_e2e_duration_seconds_bucket{le="0.0002"} 3',
        "inference_extension_scheduler_e2e_duration_seconds_count 3",
        'inference_extension_scheduler_plugin_duration_seconds_count{plugin_type="Scorer",plugin_name="queue-scorer"} 2',
        'inference_extension_prefix_indexer_hit_ratio_bucket{plugin_name="p",plugin_type="prefix-cache-scorer",le="0.8"} 1',
        'inference_extension_prefix_indexer_hit_bytes_sum{plugin_name="p",plugin_type="prefix-cache-scorer"} 750.0',
        'llm_d_epp_prefix_indexer_size{plugin_name="p",plugin_type="prefix-cache-scorer"} 77.0',
        'llm_d_epp_info{commit="abc",build_ref="v1"} 1',
        'epp_plugin_errors_total{plugin="q1"} 2',
        'epp_scrape_failures_total{endpoint="ns/pod"} 3',
        "epp_log_lines_dropped_total 4",
        'llm_d_inference_scheduler_datalayer_poll_errors_total{source_type="metrics-data-source"} 3',
    ],
)
def test_values_are_summed_over_labels_a_name_does_not_have(everything: MetricsRegistry, line: str) -> None:
    assert line in page(everything)[0].decode().splitlines()


def canonical(families: list[Metric]) -> dict[str, object]:
    """Our families with all that a scraper reads; bucket bounds as numbers."""
    return {
        family.name: (
            family.type,
            family.documentation,
            [(s.name, {k: float(v) if k == "le" else v for k, v in s.labels.items()}, s.value) for s in family.samples],
        )
        for family in families
        if is_ours(family.name)
    }


def test_the_page_equals_prometheus_clients_own(everything: MetricsRegistry) -> None:
    text, content_type = page(everything)
    assert content_type.startswith("text/plain; version=")
    theirs = list(parse_text(generate_latest(everything).decode()))
    assert canonical(list(parse_text(text.decode()))) == canonical(theirs)

    text, content_type = page(everything, OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    theirs = list(parse_openmetrics(generate_openmetrics(everything).decode()))
    assert canonical(list(parse_openmetrics(text.decode()))) == canonical(theirs)
    assert text.endswith(b"# EOF\n")
    assert b'le="1.0"' in text
    assert b'le="1"' not in text


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_any_label_value_survives(endpoints: Callable[..., Endpoints], accept: str) -> None:
    names = ['quote"d', "back\\slash", "new\nline", "é\u2028", '{a="1"}', "", 'x,le="1.0"']
    requests = RequestMetrics()
    for name in names:
        requests.series(name, name, "f", 0).started(1)
    pool = PoolCollector(lambda: endpoints(1).columns, lambda: 0.0, 1.0, "pool")
    text = page(registry(requests, pool), accept)[0].decode()
    parse = parse_openmetrics if accept else parse_text
    families = {family.name: family for family in parse(text)}
    samples = families["inference_model_running_requests"].samples
    assert [sample.labels["model_name"] for sample in samples] == names


def test_nothing_counted_yet(endpoints: Callable[..., Endpoints]) -> None:
    pool = PoolCollector(lambda: endpoints(1).columns, lambda: 0.0, 1.0, "pool")
    families = parsed(page(registry(RequestMetrics(), pool))[0].decode())
    assert "llm_d_epp_request_total" not in families
    assert families["llm_d_epp_scheduler_e2e_duration_seconds"].samples[0].value == 0
    assert "llm_d_epp_info" in families


def test_attempts_forget_the_oldest_when_endpoints_come_and_go() -> None:
    requests = RequestMetrics()
    for number in range(10_050):
        requests.scheduled(0.0, True, Endpoint("ns", f"pod-{number}", "10.0.0.1", 8000), "t")
    requests.scheduled(0.0, True, Endpoint("ns", "pod-10049", "10.0.0.1", 8000), "t")
    rows = next(rows for family, rows in requests.families() if family.names[0].name.endswith("attempts_total"))
    assert len(rows) == 10_000
    assert rows[0][0]["endpoint_name"] == "pod-50"
    assert rows[-1] == ({**rows[-1][0], "endpoint_name": "pod-10049"}, 2)


def test_target_models_of_attempts_are_limited() -> None:
    requests = RequestMetrics(max_names=2)
    for name in ("a", "b", "c", "d", "d"):
        requests.scheduled(0.0, False, None, name)
    rows = next(rows for family, rows in requests.families() if family.names[0].name.endswith("attempts_total"))
    assert [(labels["target_model_name"], count) for labels, count in rows] == [("a", 1), ("b", 1), ("other", 3)]


def test_rendering_while_series_appear(endpoints: Callable[..., Endpoints]) -> None:
    requests = RequestMetrics(max_series=400)
    pool = PoolCollector(lambda: endpoints(1).columns, lambda: 0.0, 1.0, "pool")
    whole = registry(requests, pool)
    pages: list[bytes] = []
    failures: list[Exception] = []
    done = threading.Event()

    def scrape() -> None:
        try:
            while not done.is_set():
                pages.append(page(whole)[0])
        except Exception as error:  # kept for the assertion below
            failures.append(error)

    scraper = threading.Thread(target=scrape)
    scraper.start()
    for number in range(400):
        series = requests.series(f"m{number}", "t", f"f{number}", 0)
        series.started(number)
        series.failed(f"code{number % 7}")
        requests.scheduled(0.001, True, Endpoint("ns", f"pod-{number}", "10.0.0.1", 8000), f"m{number}")
        requests.plugin_duration("Scorer", "s", f"s{number}").observe(0.1)
    done.set()
    scraper.join()
    assert not failures
    for text in [*pages[-3:], page(whole)[0]]:
        for family in parse_text(text.decode()):
            counts = [s.value for s in family.samples if s.name.endswith("_bucket")]
            ends = [s.value for s in family.samples if s.name.endswith("_count") and family.type == "histogram"]
            assert counts[len(counts) // max(len(ends), 1) - 1 :: len(counts) // max(len(ends), 1) or 1] == ends
