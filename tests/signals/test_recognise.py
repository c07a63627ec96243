# SPDX-License-Identifier: Apache-2.0
"""Whose word counts when it is asked which engine an endpoint runs, and what is said when nobody is right."""

from __future__ import annotations

import pytest

from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Sample
from epp.signals.engine.names import ENGINES, EngineMetrics
from epp.signals.engine.recognise import LABEL, LEGACY_LABEL, Engines, only
from epp.signals.engine.scan import PageScanner, anything_wanted
from epp.signals.engine.series import SeriesSpec

MINE = EngineMetrics("mine", waiting=(SeriesSpec("my_queue"),))
KNOWN = {**ENGINES, "mine": MINE}
SGLANG_PAGE = b"# TYPE sglang:num_queue_reqs gauge\nsglang:num_queue_reqs 3\n"
VLLM_PAGE = b"vllm:num_requests_waiting 5\n"


@pytest.mark.parametrize(
    ("labels", "default", "engine"),
    [
        ({LABEL: "sglang"}, "", "sglang"),
        ({LEGACY_LABEL: "sglang"}, "", "sglang"),
        ({LABEL: "mine", LEGACY_LABEL: "sglang"}, "", "mine"),
        ({LABEL: "sglang"}, "mine", "sglang"),
        ({}, "mine", "mine"),
        ({LABEL: "unheard-of"}, "mine", "mine"),
        ({LABEL: "unheard-of"}, "", ""),
        ({LABEL: ""}, "", ""),
        ({"engine": "sglang"}, "", ""),
    ],
)
def test_labels_count_more_than_the_default(labels: dict[str, str], default: str, engine: str) -> None:
    named = Engines(KNOWN, default).named(labels)
    assert (named.name if named else "") == engine


@pytest.mark.parametrize(
    ("labels", "default", "whose", "said"),
    [
        ({LABEL: "sglang"}, "mine", "label", ""),
        ({}, "mine", "configuration", ""),
        ({LABEL: ""}, "", "", ""),
        ({LABEL: "foo"}, "", "", "its page tells the engine"),
        # The first label that an endpoint has counts, whatever the others say.
        ({LABEL: "foo", LEGACY_LABEL: "vllm"}, "", "", "its page tells the engine"),
        ({LABEL: "foo"}, "mine", "configuration", "it is read as mine"),
    ],
)
def test_a_label_of_no_engine_known_here_is_said(labels: dict[str, str], default: str, whose: str, said: str) -> None:
    engines = Engines({"vllm": ENGINES["vllm"], "sglang": ENGINES["sglang"], "mine": MINE}, default)
    assert engines.named_by(labels) == whose
    text = "label llm-d.ai/engine-type is 'foo', which is no engine known here (vllm, sglang, mine); "
    assert engines.unknown(labels) == (text + said if said else "")


def test_a_long_label_is_shown_in_part() -> None:
    assert f"is '{'x' * 63}...', which" in Engines().unknown({LABEL: "x" * 5000})


def test_the_label_key_can_be_another() -> None:
    engines = Engines(label_keys=("my/engine", LEGACY_LABEL))
    assert engines.named({"my/engine": "triton", LABEL: "sglang"}) is ENGINES["triton"]
    assert engines.named({LABEL: "sglang"}) is None


def test_a_page_tells_when_nobody_else_does() -> None:
    scanner = PageScanner(Engines(), SCRAPED)
    assert (scanner.engine, scanner.scan(b"up 1\n")) == ("", Sample())
    assert scanner.scan(SGLANG_PAGE) == Sample(waiting=3)
    assert (scanner.engine, scanner.wanted["waiting"]) == ("sglang", "sglang:num_queue_reqs{priority=}")
    assert scanner.scan(VLLM_PAGE) == Sample(waiting=5)
    assert scanner.engine == "vllm"


def test_a_page_does_not_tell_when_somebody_does() -> None:
    scanner = PageScanner(Engines(), SCRAPED, {LABEL: "vllm"})
    assert scanner.scan(SGLANG_PAGE) == Sample()
    assert scanner.engine == "vllm"


@pytest.mark.parametrize("page", [b"not_vllm:num_requests_waiting 1\n", b"# vllm: is coming\n", b'x{a="\\nvllm:"} 1\n'])
def test_a_prefix_counts_at_the_beginning_of_a_line(page: bytes) -> None:
    assert Engines().recognise(page, 0, len(page)) is None


def test_a_prefix_outside_of_the_page_does_not_count() -> None:
    buffer = b"vllm:x 1\n" + SGLANG_PAGE + b"vllm:x 1\n"
    found = Engines().recognise(buffer, 9, 9 + len(SGLANG_PAGE))
    assert found is ENGINES["sglang"]


@pytest.mark.parametrize(
    ("engines", "labels", "page", "said"),
    [
        (Engines(), {}, b"up 1\n", "the page is of no engine known here (vllm, sglang, trtllm-serve, triton-"),
        (Engines(), {}, b'[{"iter": 1}]', "the page is JSON; give the path of the Prometheus page (trtllm-serve: /pro"),
        (Engines(), {LABEL: "vllm"}, b"up 1\n", "the page has none of vllm:num_requests_waiting, vllm:num_requests_r"),
        (
            Engines(),
            {LABEL: "vllm"},
            SGLANG_PAGE,
            "it looks like a page of sglang: correct the label llm-d.ai/engine-t",
        ),
        (only(MINE), {}, b"up 1\n", "the page has none of my_queue"),
    ],
)
def test_what_is_said_of_a_page_that_says_nothing(
    engines: Engines, labels: dict[str, str], page: bytes, said: str
) -> None:
    scanner = PageScanner(engines, SCRAPED, labels)
    scanner.scan(page)
    assert said in scanner.nothing_found(page)


def test_what_is_wanted_of_an_unknown_engine_is_what_any_would_have() -> None:
    scanner = PageScanner(Engines(), Reads.WAITING)
    assert scanner.wanted["waiting"].startswith("vllm:num_requests_waiting or sglang:num_queue_reqs")


@pytest.mark.parametrize(
    ("engines", "reads", "wanted"),
    [
        (Engines(), Reads.NOTHING, False),
        (Engines(), Reads.BODY, False),
        (Engines(), Reads.LORA, True),
        (only(EngineMetrics("nothing")), SCRAPED, False),
        (only(MINE), Reads.KV_UTILIZATION, True),
    ],
)
def test_whether_there_is_anything_to_read(engines: Engines, reads: Reads, wanted: bool) -> None:
    assert anything_wanted(engines, reads) is wanted
