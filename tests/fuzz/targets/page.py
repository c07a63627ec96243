# SPDX-License-Identifier: Apache-2.0
"""Metrics pages.

* Scanning raises nothing; what is read is finite and not negative, and a utilization at most 1.
* The pool takes every sample, and its columns stay finite.
* A scanner that has seen other pages reads the same as a new one, and so does one that finds the page inside a buffer.
* The lines of a family are those of a plain search, line by line.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import structs

from epp.contract.discovery import EndpointSpec
from epp.contract.errors import ScrapeError
from epp.contract.plugins import Reads
from epp.contract.signals import Sample
from epp.endpoints.pool import Pool
from epp.signals.engine.family import Family
from epp.signals.engine.names import VLLM, EngineMetrics
from epp.signals.engine.recognise import Engines, only
from epp.signals.engine.scan import PageScanner
from epp.signals.engine.series import SeriesSpec
from tests.fuzz.harness import Run, Target, one_line

_READS = Reads.WAITING | Reads.RUNNING | Reads.KV_UTILIZATION | Reads.CACHE_CONFIG | Reads.LORA
_LABELLED = EngineMetrics(
    "labelled",
    waiting=(SeriesSpec("q", (("model_name", "m"),)), SeriesSpec("vllm:num_requests_waiting")),
    running=(SeriesSpec("r"),),
    kv_utilization=(SeriesSpec("k", (("a", 'x"y\\'),)),),
    block_size_tokens=(SeriesSpec("size"),),
    num_blocks=(SeriesSpec("blocks"),),
)


def _make() -> Run:
    veterans = [(engine, _scanner(engine)) for engine in (VLLM, _LABELLED)]
    recognising = PageScanner(Engines(), _READS, clock=lambda: 0.0)

    pool = Pool(lambda: 0.0)
    pool.apply([EndpointSpec("default", "pod", "10.0.0.1", 8000)])
    (endpoint,) = pool

    def run(data: bytes) -> None:
        for engine, veteran in veterans:
            sample = _scanner(engine).scan(data)
            _check(sample)
            # Which alternative name is tried first is remembered, so one page may have both.
            if sum(data.count(spec.name.encode()) > 0 for spec in (*engine.waiting, *engine.kv_utilization)) < 2:
                assert _stateless(veteran.scan(data)) == _stateless(sample)
            framed = bytearray(b"q 1\n" + data + b"\nvllm:num_requests_waiting 7\n")
            assert _scanner(engine).scan(framed, 4, 4 + len(data)) == sample
            _check(veteran.scan(framed))
        for sample in (recognising.scan(data), veterans[0][1].scan(data)):
            _check(sample)
            pool.record(endpoint, sample)
        columns = pool.columns
        for name in ("waiting", "running", "kv_utilization", "block_size_tokens", "num_blocks"):
            assert np.isfinite(getattr(columns, name)).all()
        for scanner in (recognising, veterans[0][1]):
            one_line(ScrapeError(scanner.nothing_found(data)))
        for name in ("q", "vllm:num_requests_waiting"):
            assert Family(name).lines(data, 0, len(data)) == _plainly(name.encode(), data)

    return run


def veteran_and_new(page: bytes) -> None:
    """Read a page with a scanner that knows its engine, with one that has to find out, and as an explanation."""
    for scanner in (_scanner(VLLM), PageScanner(Engines(), _READS, clock=lambda: 0.0)):
        for _ in range(2):
            _check(scanner.scan(page))
        scanner.nothing_found(page)


def _scanner(engine: EngineMetrics) -> PageScanner:
    return PageScanner(only(engine), _READS, clock=lambda: 0.0)


def _stateless(sample: Sample) -> Sample:
    """Without the adapters, which outlive the page that named them."""
    return structs.replace(sample, lora=None)


def _check(sample: Sample) -> None:
    for field in ("waiting", "running", "kv_utilization", "block_size_tokens", "num_blocks"):
        value = getattr(sample, field)
        assert value is None or (math.isfinite(value) and value >= 0), f"{field} is {value}"
    assert sample.kv_utilization is None or sample.kv_utilization <= 1


def _plainly(name: bytes, page: bytes) -> list[bytes]:
    found: list[bytes] = []
    for line in page.split(b"\n")[:-1]:
        bare = line.lstrip(b" \t")
        if bare.startswith(name) and bare[len(name) : len(name) + 1] in (b"{", b" ", b"\t"):
            found.append(bare[len(name) :])
        elif found:
            break
    return found


_PAGE = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0 1700000000000
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000",x="a\\"b\\\\c}d,"} 1.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0"} 2.0 # {trace_id="x"} 1 2
"""
_OTHER = b'  q{model_name="m"} 5\nq{model_name="n",} 6e2\nr 7\nk{a="x\\"y\\\\"} 2\nsize 16\nblocks 1e3\n'
_LORA = (
    b'vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters=""} 1.7e9\n'
    b'sglang:num_queue_reqs{x="y"} 3\nsglang:token_usage 0.5\ntrtllm_num_requests_waiting 1\n'
    b'nv_trt_llm_request_metrics{request_type="waiting"} 2\nnv_inference_exec_count 5\n'
)
_WORDS = (
    b"\n", b"{", b"}", b'"', b"\\", b",", b"=", b" ", b"\t", b"#", b"NaN", b"+Inf", b"-1", b"1e308", b"1_0", b"0x10",
    b"\nvllm:num_requests_waiting ", b"vllm:gpu_cache_usage_perc", b"\nq 1.7e308\nq 1.7e308\n", b"\nq ", b"\xff", b" " * 200,
    b'num_gpu_blocks="1e308"', b'block_size="1e-300"', b"\n\n", b"q" * 50, b"\r",
    b"sglang:", b"\nnv_inference_exec_count 1e308\n", b"running_lora_adapters", b"max_lora=", b"\nvllm:lora_requests_info",
)  # fmt: skip
TARGET = Target("page", _make, lambda: [_PAGE, _OTHER, _PAGE + _OTHER, _OTHER * 3, _LORA, _PAGE + _LORA], _WORDS)
