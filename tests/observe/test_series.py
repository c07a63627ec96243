# SPDX-License-Identifier: Apache-2.0
"""Counting: histograms, one request's life, and how many label sets there may be."""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.contract.requests import Cause, Completion, Usage
from epp.observe.metrics.histogram import Histogram, cumulative, merge
from epp.observe.metrics.series import MAX_NAMES, OTHER, Series, SeriesTable


def done(
    cause: Cause = Cause.COMPLETE,
    usage: Usage | None = None,
    *,
    reached: bool = True,
    duration_s: float = 3.0,
    first_byte_s: float | None = 1.0,
) -> Completion:
    return Completion(cause, reached, 200 if reached else None, usage, duration_s, first_byte_s, 4000)


def observed(series: Series) -> dict[str, tuple[int, float]]:
    """Number and sum of every histogram that counted something."""
    histograms = {name: getattr(series, name) for name in Series.__slots__}
    return {
        name: (sum(h.counts), pytest.approx(h.sum))
        for name, h in histograms.items()
        if isinstance(h, Histogram) and any(h.counts)
    }


def test_a_value_belongs_to_the_first_bound_not_below_it() -> None:
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in (0.0, 0.1, 0.100001, 1.0, 10.0, 10.1, 1e9):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1, 2]
    assert cumulative(histogram.counts) == [2, 4, 5, 7]


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1e6), max_size=30), min_size=1, max_size=4))
def test_merged_histograms_count_what_each_counted(values: list[list[float]]) -> None:
    bounds = (0.5, 2.0, 1000.0)
    histograms = [Histogram(bounds) for _ in values]
    for histogram, some in zip(histograms, values, strict=True):
        for value in some:
            histogram.observe(value)
    counts, total = merge(histograms)
    everything = [value for some in values for value in some]
    for position, bound in enumerate(bounds):
        assert cumulative(counts)[position] == sum(value <= bound for value in everything)
    assert cumulative(counts)[-1] == len(everything)
    assert total == pytest.approx(math.fsum(everything))


def test_a_complete_streamed_request() -> None:
    series = Series("m", "t", "f", 2)
    series.started(9000)
    assert (series.requests, series.running) == (1, 1)
    series.first_byte(1.0, streaming=True)
    series.inter_token(0.02)
    series.finished(done(usage=Usage(100, 5, 105, 64)), streaming=True)
    assert series.running == 0
    assert observed(series) == {
        "request_size": (1, 9000),
        "ttft_streaming": (1, 1.0),
        "inter_token_gap": (1, 0.02),
        "duration": (1, 3.0),
        "response_size": (1, 4000),
        "input_tokens": (1, 100),
        "output_tokens": (1, 5),
        "cached_tokens": (1, 64),
        "ntpot": (1, 0.6),
        "tpot": (1, 0.5),
    }
    assert series.labels == {"model_name": "m", "target_model_name": "t", "fairness_id": "f", "priority": "2"}


@pytest.mark.parametrize(
    ("completion", "streaming", "names"),
    [
        (done(), False, {"duration", "response_size"}),
        (done(usage=Usage(0, 0, 0, 0)), True, {"duration", "response_size"}),
        (done(usage=Usage(7, None)), False, {"duration", "response_size", "input_tokens"}),
        (done(usage=Usage(None, 3)), False, {"duration", "response_size", "output_tokens", "ntpot"}),
        (done(usage=Usage(None, 3)), True, {"duration", "response_size", "output_tokens", "ntpot", "tpot"}),
        (done(usage=Usage(None, 1)), True, {"duration", "response_size", "output_tokens", "ntpot"}),
        (done(usage=Usage(None, 3), first_byte_s=None), True, {"duration", "response_size", "output_tokens", "ntpot"}),
        (done(Cause.CLIENT_GONE, Usage(7, 3)), True, {"input_tokens", "output_tokens"}),
        (done(Cause.ERROR, Usage(7, 3), reached=False), True, set()),
        (None, False, set()),
    ],
)
def test_what_an_end_counts(completion: Completion | None, streaming: bool, names: set[str]) -> None:
    series = Series("m", "t", "f", 0)
    series.started(10)
    series.finished(completion, streaming)
    assert set(observed(series)) == {"request_size"} | names
    assert series.running == 0


def test_first_bytes_are_counted_apart_by_streaming() -> None:
    series = Series("m", "t", "f", 0)
    series.first_byte(0.3, streaming=False)
    series.first_byte(0.5, streaming=True)
    assert observed(series) == {"ttft": (1, 0.3), "ttft_streaming": (1, 0.5)}


def test_errors_are_counted_by_code_and_do_not_end_a_request() -> None:
    series = Series("m", "t", "f", 0)
    series.started(1)
    for code in ("BadRequest", "ModelServerError", "BadRequest"):
        series.failed(code)
    assert series.errors == {"BadRequest": 2, "ModelServerError": 1}
    assert series.running == 1


EVENTS = st.one_of(
    st.tuples(st.just("started"), st.integers(0, 1 << 31)),
    st.tuples(st.just("finished"), st.sampled_from(list(Cause)), st.booleans(), st.integers(0, 5000), st.booleans()),
    st.tuples(st.just("first_byte"), st.floats(0, 1000), st.booleans()),
    st.tuples(st.just("inter_token"), st.floats(0, 10)),
    st.tuples(st.just("failed"), st.sampled_from(["BadRequest", "Internal"])),
)


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=80))
def test_any_sequence_keeps_counts_consistent(events: list[tuple[Any, ...]]) -> None:
    series = Series("m", "t", "f", 0)
    started = finished = complete = with_tokens = 0
    for name, *arguments in events:
        if name == "finished":
            cause, reached, tokens, streaming = arguments
            series.finished(done(cause, Usage(tokens, tokens), reached=reached), streaming)
            finished += 1
            complete += reached and cause is Cause.COMPLETE
            with_tokens += reached and tokens > 0
        else:
            getattr(series, name)(*arguments)
            started += name == "started"
        assert 0 <= series.running <= started
    assert series.requests == started == sum(series.request_size.counts)
    if finished <= started:
        assert series.running >= started - finished
    assert sum(series.duration.counts) == sum(series.response_size.counts) == complete
    assert sum(series.output_tokens.counts) == with_tokens
    assert sum(series.inter_token_gap.counts) == sum(event[0] == "inter_token" for event in events)
    assert sum(series.errors.values()) == sum(event[0] == "failed" for event in events)
    gaps = [event[1] for event in events if event[0] == "inter_token"]
    expected = [0] * len(series.inter_token_gap.counts)
    for gap in gaps:
        expected[bisect_left(series.inter_token_gap.bounds, gap)] += 1
    assert series.inter_token_gap.counts == expected


def test_the_same_labels_give_the_same_series() -> None:
    table = SeriesTable()
    first = table.get("m", "t", "f", 0)
    assert table.get("m", "t", "f", 0) is first
    assert table.get("m", "t", "f", 1) is not first
    assert len(table.all()) == 2


def test_the_1001st_model_and_fairness_id_are_other() -> None:
    table = SeriesTable(max_series=5000)
    for number in range(MAX_NAMES + 500):
        name = f"m{number}"
        table.get(name, name, "f", 0)
    names = [series.labels["model_name"] for series in table.all()]
    assert names == [f"m{number}" for number in range(1000)] + [OTHER]
    assert table.get("unheard of", "unheard of", "f", 0) is table.get("m1400", "m1400", "f", 0)
    for number in range(1500):
        table.get("m0", "m0", f"f{number}", 0)
    ids = {series.labels["fairness_id"] for series in table.all()}
    assert len(ids) == 1001
    assert OTHER in ids
    assert table.get("m3", "m3", "f", 0).labels["model_name"] == "m3", "known names stay"


def test_all_series_together_are_bounded() -> None:
    table = SeriesTable(max_series=10)
    for number in range(200):
        table.get(f"m{number % 20}", "t", f"f{number}", number)
    assert len(table.all()) == 11
    assert table.all()[-1].labels == {
        "model_name": OTHER,
        "target_model_name": OTHER,
        "fairness_id": OTHER,
        "priority": "0",
    }


@pytest.mark.parametrize("name", ["x" * 257, "\udcff"], ids=["too long", "no text"])
def test_a_name_that_is_no_fit_label_is_other(name: str) -> None:
    series = SeriesTable().get(name, "t", name, 0)
    assert (series.labels["model_name"], series.labels["fairness_id"]) == (OTHER, OTHER)
