# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters from pages: the newest combination counts, and what is said when there is none."""

from __future__ import annotations

import pytest

from epp.contract.lora import LoraState
from epp.contract.plugins import Reads
from epp.signals.engine.names import VLLM
from epp.signals.engine.recognise import Engines, only
from epp.signals.engine.scan import PageScanner

OTHER = b"vllm:num_requests_waiting 1\n"


def line(running: str, waiting: str = "", fit: str = "4", value: str = "1.0") -> bytes:
    labels = f'max_lora="{fit}",running_lora_adapters="{running}",waiting_lora_adapters="{waiting}"'
    return f"vllm:lora_requests_info{{{labels}}} {value}\n".encode()


def state(running: str = "", waiting: str = "", fit: int = 4) -> LoraState:
    return LoraState(frozenset(running.split()), frozenset(waiting.split()), fit)


def read(*pages: bytes) -> list[LoraState | None]:
    scanner = PageScanner(only(VLLM), Reads.LORA)
    return [scanner.scan(OTHER + page).lora for page in pages]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (line("a"), state("a")),
        (line("a,b", "b,c"), state("a b", "b c")),
        (line(" a , b ,, "), state("a b")),
        (line(""), state()),
        (line("a", fit=""), state("a", fit=0)),
        (line("a", fit="none"), state("a", fit=0)),
        (line("a", value="7") + line("b", value="9") + line("c", value="8"), state("b")),
        (line("a", value="1.7550001e+09") + line("b", value="1.7550002e+09"), state("b")),
        (line("a", value="0"), state("a")),
        (line("a", value="5") + line("b", value="NaN") + line("c", value="-1"), state("a")),
        (line("a", value="x"), None),
        (b"", None),
        (b"# TYPE vllm:lora_requests_info gauge\n", None),
        (b"vllm:lora_requests_info 5\n", state(fit=0)),
        (b"vllm:lora_requests_info{broken 5\n", None),
    ],
)
def test_table(page: bytes, expected: LoraState | None) -> None:
    assert read(page) == [expected]


def test_the_newest_is_found_again_on_every_page() -> None:
    a, b = line("a", value="10"), line("b", value="20")
    pages = [a, a + b, line("a", value="30") + b, line("a", value="30") + b, b]
    assert read(*pages) == [state(names) for names in ("a", "b", "a", "a", "b")]


def test_what_does_not_change_is_the_same_object() -> None:
    first, second, third = read(line("a", value="1"), line("a", value="2"), line("b", value="3"))
    assert first is second
    assert third is not first


def test_a_family_that_disappears_ends_all_adapters() -> None:
    assert read(line("a", "b", fit="2"), b"", b"", line("c")) == [
        state("a", "b", 2),
        state(fit=2),
        state(fit=2),
        state("c"),
    ]


def test_thousands_of_combinations() -> None:
    many = b"".join(line(f"adapter-{number}", value=str(number)) for number in range(5000))
    assert read(many, many + line("last", value="9999"), many) == [
        state("adapter-4999"),
        state("last"),
        state("adapter-4999"),
    ]


def test_an_engine_that_knows_no_adapters_says_nothing_of_them() -> None:
    sample = PageScanner(Engines(), Reads.LORA).scan(b"sglang:num_queue_reqs 3\n")
    assert (sample.lora, sample.waiting) == (None, 3.0), "requests waiting tell that the page was read"


def test_a_page_that_says_nothing_at_all_says_nothing_of_adapters() -> None:
    scanner = PageScanner(only(VLLM), Reads.LORA)
    scanner.scan(OTHER + line("a"))
    assert scanner.scan(b"up 1\n").lora is None
