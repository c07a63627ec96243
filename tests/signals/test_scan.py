# SPDX-License-Identifier: Apache-2.0
"""Signals out of metrics pages: hand-made pages, and properties over all pages."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Sample
from epp.signals.engine.family import Family
from epp.signals.engine.names import VLLM, EngineMetrics
from epp.signals.engine.recognise import Engines, only
from epp.signals.engine.scan import PageScanner
from epp.signals.engine.series import SeriesSpec

ONE_ENGINE = b"""\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{implementation="CPython",version="3.12.3"} 1.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
# HELP vllm:num_requests_waiting_by_reason Not the same family.
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 99.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",engine="0",num_gpu_blocks="27447",swap_space="4"} 1.0
"""

TWO_ENGINES = b"""\
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="1",model_name="m"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.9
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.1
vllm:cache_config_info{block_size="32",engine="0",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="32",engine="1",num_gpu_blocks="1100"} 1.0
"""


def scan(page: bytes, engine: EngineMetrics = VLLM, reads: Reads = SCRAPED) -> Sample:
    return PageScanner(only(engine), reads).scan(page)


def waiting(page: bytes) -> float | None:
    return scan(page, EngineMetrics("x", waiting=(SeriesSpec("w"),))).waiting


def test_a_page_of_one_engine() -> None:
    assert scan(ONE_ENGINE) == Sample(2.0, 3.0, 0.25, 16.0, 27447.0)


def test_several_engines_become_one_endpoint() -> None:
    # Work and blocks add up; of the cache utilizations the largest counts; never the last series.
    assert scan(TWO_ENGINES) == Sample(
        waiting=7.0, running=8.0, kv_utilization=0.9, block_size_tokens=32.0, num_blocks=2100
    )


def test_the_kv_metrics_older_name_is_found() -> None:
    old = ONE_ENGINE.replace(b"kv_cache_usage_perc", b"gpu_cache_usage_perc")
    scanner = PageScanner(only(VLLM), SCRAPED)
    assert scanner.scan(old).kv_utilization == 0.25
    # The engine is upgraded under the same endpoint.
    assert scanner.scan(ONE_ENGINE).kv_utilization == 0.25
    assert scanner.scan(old).kv_utilization == 0.25


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        (Reads.NOTHING, Sample()),
        (Reads.WAITING, Sample(waiting=2.0)),
        (Reads.RUNNING | Reads.BODY, Sample(running=3.0)),
        (Reads.KV_UTILIZATION, Sample(kv_utilization=0.25)),
        (Reads.CACHE_CONFIG, Sample(block_size_tokens=16.0, num_blocks=27447.0)),
    ],
)
def test_only_what_is_read_is_looked_for(reads: Reads, expected: Sample) -> None:
    assert scan(ONE_ENGINE, reads=reads) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (b"w 5\n", 5.0),
        (b"w 5.5e1 1712345678901\n", 55.0),
        (b"w\t5\n", 5.0),
        (b"  w   5  \n", 5.0),
        (b"w 5\r\n", 5.0),
        (b'x 1\r\nw{a="b"} 5\r\ny 1\r\n', 5.0),
        (b"w{} 5\n", 5.0),
        (b'w {a="b"} 5\n', 5.0),
        (b'w{ a = "b" , } 5\n', 5.0),
        (b'w{a="}"} 5\n', 5.0),
        (b'w{a="x # {b=\\"c\\"} 9"} 5\n', 5.0),
        (b'w{a="b"} 5 # {trace="} 7"} 1.0\n', 5.0),
        (b'w{a="\nw 9\n"} 5\nz 1\n', 9.0),
        (b"w 1\nw 2\nw 4\n", 7.0),
        (b"# HELP w the w is\n# TYPE w gauge\nw 5\n", 5.0),
        (b'v{a="w 9"} 1\nw_total 9\nww 9\nw:x 9\nw 5\n', 5.0),
        (b"w NaN\n", None),
        (b"w +Inf\n", None),
        (b"w -Inf\n", None),
        (b"w 1e999\n", None),
        (b"w NaN\nw 3\n", 3.0),
        (b"w 1.7e308\nw 1.7e308\n", None),
        (b"w 9007199254740992\n", 2.0**53),
        (b"w 9007199254740994\nw 3\n", 3.0),
        (b"w -1\n", None),
        (b"w 0\n", 0.0),
        (b"w\n", None),
        (b"w \n", None),
        (b"w x\n", None),
        (b"w 1_000\n", None),
        (b"w 0x10\n", None),
        (b"w 1 2 3 4\n", None),
        (b"w 5", None),
        (b'w{a="b"} 1\nw{a="c"} 12', 1.0),
        (b'w{a="b" 5\n', None),
        (b"w{ 5\n", None),
        (b"w" + b"9" * 100 + b"\n", None),
        (b"w " + b"9" * 100 + b"\n", None),
        (b"", None),
        (b"\n\n\n", None),
        (b"<html>w 5</html>\n", None),
        (b"\x00\xff\xfew 5\n", None),
    ],
)
def test_lines(page: bytes, expected: float | None) -> None:
    assert waiting(page) == expected


def test_series_are_chosen_by_label() -> None:
    page = b'm{request_type="waiting"} 4\nm{request_type="scheduled"} 9\nm{request_type="waiting",gpu="1"} 2\nm 50\n'
    engine = EngineMetrics(
        "triton",
        waiting=(SeriesSpec("m", (("request_type", "waiting"),)),),
        running=(SeriesSpec("m", (("request_type", "scheduled"),)),),
    )
    sample = scan(page, engine)
    assert (sample.waiting, sample.running) == (6.0, 9.0)


def test_cache_configuration_as_values() -> None:
    engine = EngineMetrics("x", block_size_tokens=(SeriesSpec("size"),), num_blocks=(SeriesSpec("blocks"),))
    sample = scan(b'size{e="0"} 32\nsize{e="1"} 32\nblocks{e="0"} 10\nblocks{e="1"} 20\n', engine)
    assert (sample.block_size_tokens, sample.num_blocks) == (32.0, 30.0)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (b'block_size="16",num_gpu_blocks="None"', (16.0, None)),
        (b'block_size="x",num_gpu_blocks="0"', (None, None)),
        (b'num_gpu_blocks="5"', (None, 5.0)),
        (b'block_size="16"num_gpu_blocks="5"', (None, None)),
        (b"", (None, None)),
    ],
)
def test_cache_configuration_that_is_not_there(labels: bytes, expected: tuple[float | None, float | None]) -> None:
    sample = scan(b"vllm:cache_config_info{" + labels + b"} 1\n")
    assert (sample.block_size_tokens, sample.num_blocks) == expected


def test_cache_configuration_that_changes_is_read_again() -> None:
    scanner = PageScanner(only(VLLM), Reads.CACHE_CONFIG)
    page = b'vllm:cache_config_info{block_size="16",num_gpu_blocks="%d"} 1\n'
    assert [scanner.scan(page % blocks).num_blocks for blocks in (10, 10, 20)] == [10, 10, 20]


def test_a_utilization_above_one_is_full() -> None:
    assert scan(b"vllm:kv_cache_usage_perc 1.0000001\n").kv_utilization == 1.0


def test_a_page_inside_a_larger_buffer() -> None:
    buffer = bytearray(b"w 1\nx\nw 5\nw 2\nw 9\n")
    engine = EngineMetrics("x", waiting=(SeriesSpec("w"),))
    start, end = buffer.index(b"w 5"), buffer.index(b"w 9")
    for _ in range(2):
        assert PageScanner(only(engine), SCRAPED).scan(buffer, start, end).waiting == 7.0
    assert PageScanner(only(engine), SCRAPED).scan(buffer, start, end - 1).waiting == 5.0


def test_families_that_move_are_found_again() -> None:
    scanner = PageScanner(only(VLLM), SCRAPED)
    filler = b'filler{le="1"} 1\n'
    for before in (0, 500, 3, 500, 501, 2000, 0):
        assert scanner.scan(filler * before + ONE_ENGINE + filler * 100) == scan(ONE_ENGINE)


def test_a_group_that_now_begins_before_the_remembered_place() -> None:
    family = Family("w")
    page = b"x 1\n" * 300 + b"w 1\n"
    assert family.lines(page, 0, len(page)) == [b" 1"]
    more = b"x 1\n" * 10 + b"w 1\n" * 600
    assert len(family.lines(more, 0, len(more))) == 600


@pytest.mark.parametrize(
    "page",
    [
        b"w 1\n" * 100_000,
        b" w" * 200_000 + b"\nw 1\n",
        b'w{a="' + b"x" * 100_000 + b'"} 1\n',
        b" " * 300_000 + b"w 1\n",
    ],
    ids=["series", "hits", "line", "blanks"],
)
def test_pages_made_to_be_slow_are_given_up_on_or_read(page: bytes) -> None:
    assert waiting(page) in (None, 1.0)


LABEL_VALUES = st.text(max_size=12)
VALUES = st.floats(0, 1e6) | st.integers(0, 1000)


@st.composite
def pages(draw: st.DrawFn) -> tuple[bytes, float | None]:
    """A well-formed page, and the sum of its series `w`."""

    def series(name: str) -> tuple[str, float]:
        value = draw(VALUES)
        text = draw(LABEL_VALUES).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
        labels = draw(st.sampled_from(["", "{}", f'{{l="{text}"}}', f'{{a="b",l="{text}",}}']))
        stamp = draw(st.sampled_from(["", " 1712345678901"]))
        return f"{name}{labels} {value!r}{stamp}", value

    blocks: list[str] = []
    total: float | None = None
    names = draw(st.lists(st.sampled_from(["w", "ww", "w_total", "v", "a:w", "w_bucket"]), unique=True))
    for name in names:
        lines = [f"# HELP {name} about w 1", f"# TYPE {name} gauge"] if draw(st.booleans()) else []
        made = [series(name) for _ in range(draw(st.integers(1, 4)))]
        blocks.append("\n".join([*lines, *(line for line, _ in made)]))
        if name == "w":
            total = sum(value for _, value in made)
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return "".join(block.replace("\n", newline) + newline for block in blocks).encode(), total


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(pages(), min_size=1, max_size=4))
def test_what_a_page_says_is_read_back_whatever_came_before_it(made: list[tuple[bytes, float | None]]) -> None:
    scanner = PageScanner(only(EngineMetrics("x", waiting=(SeriesSpec("w"),))), SCRAPED)
    for page, total in made:
        value = scanner.scan(page).waiting
        assert value == (None if total is None else pytest.approx(total))


NAMES = (
    b"vllm:cache_config_info", b"vllm:num_requests_waiting", b'block_size="', b'num_gpu_blocks="', b"NaN", b"1e5",
    b"vllm:lora_requests_info", b'max_lora="', b'running_lora_adapters="', b"sglang:num_queue_reqs", b'priority="',
    b'tp_rank="', b"nv_inference_request_duration_us", b"nv_trt_llm_request_metrics", b'request_type="waiting"',
)  # fmt: skip
SIGNS = (b"{", b"}", b'"', b"\\", b"\n", b" ", b"#", b"=", b",", b"1", b"\r", b"\t", b"\xff", b"\x00")
FRAGMENTS = st.sampled_from([*NAMES, *SIGNS])


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=200) | st.lists(FRAGMENTS, max_size=60).map(b"".join), min_size=1, max_size=3))
@example([b"vllm:cache_config_info{" + b'a="' * 50])
def test_no_page_raises_and_no_value_is_out_of_range(made: list[bytes]) -> None:
    scanner = PageScanner(Engines(), SCRAPED)
    for page in made:
        sample = scanner.scan(bytearray(page))
        assert scanner.nothing_found(bytearray(page)).isprintable()
        for value in (sample.waiting, sample.running, sample.kv_utilization, sample.num_blocks):
            assert value is None or value >= 0
        assert sample.kv_utilization is None or sample.kv_utilization <= 1
