# SPDX-License-Identifier: Apache-2.0
"""The metrics pages of other engines, the filter by name, and the flags that choose them."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as PlainCounter
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from epp.local.sim.command import main
from epp.local.sim.engine import Engine, EngineConfig, Work
from epp.local.sim.metricsface import restricted
from epp.local.sim.pages import EnginePage, PageConfig
from epp.local.sim.sglang import SglangMetrics
from epp.local.sim.trtllm import TrtllmMetrics


def played(kind: type[EnginePage]) -> tuple[bytes, Engine]:
    """A page of an engine with two sequences running, one waiting, and one that has ended."""
    page = kind(PageConfig("m", 32_768, 16, 1000))  # type: ignore[call-arg]
    engine = Engine(EngineConfig(num_blocks=1000, max_num_seqs=2, decode_step_per_seq_s=0.0), page)
    hashes = tuple(range(10))
    engine.submit(0.0, Work(160, 3, hashes, 10))
    while engine.next_event_s is not None:
        engine.advance(engine.next_event_s)
    page.request_ended("stop", 1, None)
    for _ in range(3):
        engine.submit(1.0, Work(160, 50, hashes, 10))
    engine.advance(1.05)
    page.request_ended("abort", 1, None)
    return page.page(engine, 5.0), engine


def values(page: bytes) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_sglangs_page() -> None:
    page, engine = played(SglangMetrics)
    found = values(page)
    assert found["sglang:num_queue_reqs"][0][1] == 1
    assert found["sglang:num_running_reqs"][0][1] == 2
    assert found["sglang:token_usage"][0][1] == engine.blocks.utilization > 0
    assert found["sglang:num_used_tokens"][0][1] == engine.blocks.held * 16
    [(labels, one)] = found["sglang:cache_config_info"]
    assert (labels["page_size"], labels["num_pages"], one) == ("16", "1000", 1.0)
    assert {"model_name", "engine_type", "tp_rank", "pp_rank"} <= labels.keys()
    assert found["sglang:prompt_tokens_total"][0][1] == 480
    assert found["sglang:cached_tokens_total"][0][1] == 288
    assert found["sglang:num_requests_total"][0][1] == 2
    assert found["sglang:num_aborted_requests_total"][0][1] == 1
    assert found["sglang:time_to_first_token_seconds_count"][0][1] == 3
    assert not any(name.startswith(("vllm", "trtllm")) for name in found)


def test_tensorrt_llms_page() -> None:
    page, engine = played(TrtllmMetrics)
    found = values(page)
    assert found["trtllm_num_requests_waiting"][0][1] == 1
    assert found["trtllm_num_requests_running"][0][1] == 2
    assert found["trtllm_kv_cache_utilization"][0][1] == engine.blocks.utilization > 0
    assert found["trtllm_kv_cache_tokens_per_block"][0][1] == 16
    assert found["trtllm_kv_cache_max_blocks"][0][1] == 1000
    used, free = found["trtllm_kv_cache_used_blocks"][0][1], found["trtllm_kv_cache_free_blocks"][0][1]
    assert used + free == 1000
    reasons = {labels["finished_reason"]: count for labels, count in found["trtllm_request_success_total"]}
    assert reasons == {"stop": 1, "length": 0, "timeout": 0, "cancelled": 1}
    assert found["trtllm_e2e_request_latency_seconds_count"][0][1] == 1
    assert not any(name.startswith(("vllm", "sglang")) for name in found)


def test_the_filter_gives_what_prometheus_clients_gives() -> None:
    registry = CollectorRegistry()
    Gauge("depth", "A gauge.", ["pod"], registry=registry).labels("a b").set(3)
    PlainCounter("served", "A counter.", registry=registry).inc()
    Histogram("took", "A histogram.", buckets=(1.0,), registry=registry).observe(0.5)
    whole = generate_latest(registry)
    for names in (["depth"], ["served_total"], ["took_count", "took_sum"], ["took_bucket", "depth"], ["took"], ["no"]):
        theirs = generate_latest(registry.restricted_registry(names))  # type: ignore[arg-type]
        # Theirs is in the order of a set of collectors.
        assert sorted(restricted(whole, set(names)).splitlines()) == sorted(theirs.splitlines()), names


@contextmanager
def pods(*flags: str, count: int = 1) -> Iterator[list[tuple[str, str]]]:
    """Name and URL of each pod of one process."""
    argv = [sys.executable, "-m", "epp", "sim-pod", "--port", "0", *flags]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(count)]
            yield [(line.split()[0], line.split()[-1]) for line in lines]
        finally:
            process.kill()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        body: bytes = response.read()
        return body


def test_several_pods_in_one_process_with_another_engines_page() -> None:
    with pods("--count", "3", "--engine", "sglang", "--metrics-filter", "/metrics/", count=3) as running:
        assert len({url for _, url in running}) == len({name for name, _ in running}) == 3
        for _, url in running:
            query = urllib.parse.urlencode({"name[]": ["sglang:num_queue_reqs", "nothing"]}, doseq=True)
            assert re.fullmatch(
                rb"# HELP .*\n# TYPE .* gauge\nsglang:num_queue_reqs\{.*\} 0.0\n", get(f"{url}/metrics/?{query}")
            )
            assert len(get(f"{url}/metrics?{query}")) > 2000


@pytest.mark.parametrize(("flags", "there"), [((), True), (("--no-admin",), False), (("--host", "0.0.0.0"), False)])
def test_the_admin_path_is_there_on_loopback_only(flags: tuple[str, ...], there: bool) -> None:
    with pods(*flags) as [(_, url)]:
        address = url.replace("0.0.0.0", "127.0.0.1")
        if there:
            assert b'"requests"' in get(f"{address}/sim/state")
        else:
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get(f"{address}/sim/state")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--jitter", "1"], "--jitter 1.0: must be 0 or more and below 1"),
        (["--decode-step-ns-per-context-token", "-1"], "--decode-step-ns-per-context-token -1.0: must be 0 or more"),
        (["--engine", "trtllm", "--old-kv-metric"], "--old-kv-metric is a name of vLLM's, the engine is trtllm"),
        (["--port", "65535", "--count", "2"], "and 2 pods need as many"),
    ],
)
def test_wrong_flags_are_one_clear_line(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
