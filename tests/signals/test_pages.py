# SPDX-License-Identifier: Apache-2.0
"""What is read from whole pages of every engine, in several versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epp.contract.lora import LoraState
from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Sample
from epp.signals.engine.names import ENGINES
from epp.signals.engine.recognise import LABEL, Engines
from epp.signals.engine.scan import PageScanner
from epp.testing import FakeClock

PAGES = Path(__file__).parent / "pages"


def adapters(running: str, waiting: str, fit: int) -> LoraState:
    return LoraState(frozenset(running.split()), frozenset(waiting.split()), fit)


TABLE = {
    "vllm-0.6.txt": ("vllm", Sample(17, 42, 0.8125, 16, 27447, adapters("sql-lora chat-lora", "code-lora", 2))),
    "vllm-0.8.txt": ("vllm", Sample(0, 12, 0.140625, 16, 9117)),
    "vllm-0.10.txt": ("vllm", Sample(4, 31, 0.5, 16, 18874, adapters("food-review", "food-review", 2))),
    "vllm-dp2.txt": ("vllm", Sample(0 + 9, 25 + 40, 0.96875, 64, 20480 + 20416)),
    "sglang-0.4.txt": ("sglang", Sample(2826, 162, 0.28)),
    "sglang-0.5-dp2.txt": ("sglang", Sample(0 + 7, 20 + 31, 0.31, 64, 2 * 6768)),
    "trtllm-serve-first.txt": ("trtllm-serve", Sample(kv_utilization=0.3125)),
    "trtllm-serve.txt": ("trtllm-serve", Sample(11, 57, 0.6875, 32, 11264)),
    "triton-trtllm-23.11.txt": ("triton-tensorrt-llm", Sample(None, 24, None, 64, 6239)),
    "triton-trtllm.txt": ("triton-tensorrt-llm", Sample(9, 22, 0.375, 32, 8192)),
    "triton.txt": ("triton", Sample(waiting=0 + 3 + 1 + 0)),
    "triton-later.txt": ("triton", Sample(waiting=2)),
}
every_page = pytest.mark.parametrize("name", TABLE)


def page(name: str) -> bytes:
    return (PAGES / name).read_bytes()


def test_every_page_is_in_the_table() -> None:
    assert {path.name for path in PAGES.glob("*.txt")} == set(TABLE)


@every_page
def test_the_page_is_a_page(name: str) -> None:
    families = [family.name for family in text_string_to_metric_families(page(name).decode())]
    assert len(families) > 6
    assert len(page(name)) < 65536


@every_page
def test_what_is_read(name: str) -> None:
    engine, expected = TABLE[name]
    scanner = PageScanner(Engines(), SCRAPED)
    for _ in range(3):
        assert scanner.scan(page(name)) == expected
    assert scanner.engine == engine
    named = PageScanner(Engines(), SCRAPED, {LABEL: engine})
    assert named.scan(page(name)) == expected, "the same with a label that names the engine"


@every_page
@pytest.mark.parametrize("need", [need for need in Reads if need in SCRAPED], ids=lambda need: str(need.name).lower())
def test_each_signal_alone_makes_a_page_that_was_read(name: str, need: Reads) -> None:
    expected = TABLE[name][1]
    sample = PageScanner(Engines(), need).scan(page(name))
    fields = {
        Reads.WAITING: ("waiting",),
        Reads.RUNNING: ("running",),
        Reads.KV_UTILIZATION: ("kv_utilization",),
        Reads.CACHE_CONFIG: ("block_size_tokens", "num_blocks"),
        Reads.LORA: ("lora",),
    }[need]
    for field in fields:
        assert getattr(sample, field) == getattr(expected, field)
    if expected.waiting is not None and need not in (Reads.KV_UTILIZATION, Reads.CACHE_CONFIG):
        assert sample != Sample()


@every_page
def test_the_families_named_are_enough(name: str) -> None:
    engine, expected = TABLE[name]
    scanner = PageScanner(Engines(), SCRAPED)
    assert scanner.families == (), "not known before the first page"
    scanner.scan(page(name))
    prefixes = tuple(f"{family}{after}".encode() for family in scanner.families for after in "{ ")
    kept = b"".join(line for line in page(name).splitlines(keepends=True) if line.startswith(prefixes))
    assert len(kept) < len(page(name)) / 4
    assert PageScanner(Engines(), SCRAPED, {LABEL: engine}).scan(kept) == expected


def test_requests_running_on_triton_are_worked_out_from_two_pages() -> None:
    clock = FakeClock()
    scanner = PageScanner(Engines(), SCRAPED, clock=clock)
    assert scanner.scan(page("triton.txt")).running is None
    clock.advance(10.0)
    # 51 s of execution ended in 10 s.
    assert scanner.scan(page("triton-later.txt")) == Sample(waiting=2, running=5.1)


def test_an_endpoint_that_comes_back_with_another_engine_is_read_as_that() -> None:
    scanner = PageScanner(Engines(), SCRAPED)
    for name in ("vllm-0.6.txt", "sglang-0.4.txt", "sglang-0.5-dp2.txt", "triton-trtllm.txt", "vllm-dp2.txt"):
        assert scanner.scan(page(name)) == TABLE[name][1]
        assert scanner.engine == TABLE[name][0]
    assert scanner.scan(b"") == Sample()
    assert scanner.engine == "vllm", "an empty page tells nothing"


@pytest.mark.parametrize("name", [name for name in TABLE if not name.startswith("triton-trtllm")])
def test_no_engine_reads_anything_from_the_page_of_another(name: str) -> None:
    for engine in ENGINES:
        if engine != TABLE[name][0]:
            assert PageScanner(Engines(), SCRAPED, {LABEL: engine}).scan(page(name)) == Sample()
