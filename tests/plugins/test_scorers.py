# SPDX-License-Identifier: Apache-2.0
"""The formulas of the built-in scorers: tables of numbers from the specification, and what must hold for any input."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.plugins.scorers.active_request import ActiveRequestScorer
from epp.plugins.scorers.kv_cache import kv_cache_utilization
from epp.plugins.scorers.load_aware import LoadAwareScorer
from epp.plugins.scorers.queue import queue
from epp.plugins.scorers.running_requests import running_requests
from epp.testing import make_endpoints, make_plugin, make_request

REQUEST = make_request("Write a poem about clouds")


def scores(target: Any, parameters: Any = None, **columns: Any) -> list[float]:
    result = make_plugin(target, **(parameters or {})).score(REQUEST, make_endpoints(**columns))
    assert result.dtype == np.float64
    listed: list[float] = result.tolist()
    return listed


RELATIVE_TABLE = [
    pytest.param([0, 5, 10], [1.0, 0.5, 0.0], id="linear between the extremes"),
    pytest.param([10, 0, 4], [0.0, 1.0, 0.6], id="order of candidates is kept"),
    pytest.param([100, 101], [1.0, 0.0], id="only the difference counts"),
    pytest.param([7], [1.0], id="single candidate"),
    pytest.param([0], [1.0], id="single idle candidate"),
    pytest.param([0, 0, 0], [1.0, 1.0, 1.0], id="all idle"),
    pytest.param([9, 9], [1.0, 1.0], id="all equally busy"),
]


@pytest.mark.parametrize(("values", "expected"), RELATIVE_TABLE)
def test_queue(values: list[int], expected: list[float]) -> None:
    assert scores(queue, waiting=values) == expected


@pytest.mark.parametrize(("values", "expected"), RELATIVE_TABLE)
def test_running_requests(values: list[int], expected: list[float]) -> None:
    assert scores(running_requests, running=values) == expected


def test_relative_scorers_look_at_their_own_column() -> None:
    columns: dict[str, Any] = {"waiting": [0, 4], "running": [8, 2], "in_flight_requests": [3, 3]}
    assert scores(queue, **columns) == [1.0, 0.0]
    assert scores(running_requests, **columns) == [0.0, 1.0]


def test_extremes_are_those_of_the_candidates_not_of_the_pool() -> None:
    endpoints = make_endpoints(waiting=[0, 5, 10], in_flight_requests=[1, 4, 8])
    kept = endpoints.where(np.array([True, True, False]))
    assert make_plugin(queue).score(REQUEST, kept).tolist() == [1.0, 0.0]
    assert make_plugin(ActiveRequestScorer).score(REQUEST, kept).tolist() == [0.75, 0.0]


@pytest.mark.parametrize(
    ("utilization", "expected"),
    [([0.0, 0.25, 1.0], [1.0, 0.75, 0.0]), ([0.5], [0.5]), ([0.5, 0.5], [0.5, 0.5])],
)
def test_kv_cache_utilization(utilization: list[float], expected: list[float]) -> None:
    assert scores(kv_cache_utilization, kv_utilization=utilization) == expected


def test_kv_cache_above_one_is_left_to_the_scheduler_to_limit() -> None:
    assert scores(kv_cache_utilization, kv_utilization=[1.5]) == [-0.5]


@pytest.mark.parametrize(
    ("parameters", "waiting", "expected"),
    [
        pytest.param({"threshold": 10}, [2, 0, 15], [0.4, 0.5, 0.0], id="the specification's example"),
        pytest.param({}, [1], [0.49609375], id="default threshold 128"),
        pytest.param({"threshold": 128}, [128, 129, 10**6], [0.0, 0.0, 0.0], id="from the threshold on"),
        pytest.param({"threshold": 0}, [1], [0.49609375], id="zero means the default"),
        pytest.param({"threshold": -3}, [1], [0.49609375], id="negative means the default"),
        pytest.param({"threshold": 1}, [0, 1], [0.5, 0.0], id="smallest threshold"),
        pytest.param({}, [64, 64], [0.25, 0.25], id="absolute, not relative"),
    ],
)
def test_load_aware(parameters: dict[str, int], waiting: list[int], expected: list[float]) -> None:
    assert scores(LoadAwareScorer, parameters, waiting=waiting) == expected


@pytest.mark.parametrize(
    ("parameters", "in_flight", "expected"),
    [
        pytest.param({}, [0, 1, 4], [1.0, 0.75, 0.0], id="linear below the busiest"),
        pytest.param({}, [0, 0], [1.0, 1.0], id="all idle"),
        pytest.param({}, [3], [0.0], id="single busy candidate"),
        pytest.param({}, [2, 2], [0.0, 0.0], id="all equally busy"),
        pytest.param({"idleThreshold": 2}, [0, 2, 3, 4], [1.0, 1.0, 0.25, 0.0], id="at the idle threshold"),
        pytest.param({"idleThreshold": 9}, [3, 9], [1.0, 1.0], id="the busiest is idle"),
        pytest.param({"idleThreshold": -1}, [0, 0], [1.0, 1.0], id="negative idle threshold is ignored"),
        pytest.param({"maxBusyScore": 0.5}, [0, 1, 4], [1.0, 0.375, 0.0], id="busy endpoints capped"),
        pytest.param({"maxBusyScore": 0.0}, [0, 1, 4], [1.0, 0.0, 0.0], id="explicit zero counts"),
        pytest.param({"maxBusyScore": 1.5}, [0, 1, 4], [1.0, 0.75, 0.0], id="above one is ignored"),
        pytest.param({"maxBusyScore": -0.1}, [0, 1, 4], [1.0, 0.75, 0.0], id="below zero is ignored"),
        pytest.param({"maxBusyScore": math.nan}, [0, 1, 4], [1.0, 0.75, 0.0], id="nan is ignored"),
        pytest.param(
            {"requestTimeout": "2m", "inFlightLoadProducerName": "load"},
            [0, 1, 4],
            [1.0, 0.75, 0.0],
            id="accepted without effect",
        ),
    ],
)
def test_active_request(parameters: dict[str, Any], in_flight: list[int], expected: list[float]) -> None:
    assert scores(ActiveRequestScorer, parameters, in_flight_requests=in_flight) == expected


def test_never_scraped_endpoints_look_idle_and_win() -> None:
    columns: dict[str, Any] = {
        "waiting": [0, 6],
        "running": [0, 6],
        "kv_utilization": [0, 0.6],
        "age_s": [math.inf, 0.01],
    }
    assert scores(queue, **columns) == [1.0, 0.0]
    assert scores(running_requests, **columns) == [1.0, 0.0]
    assert scores(kv_cache_utilization, **columns) == [1.0, 0.4]
    assert scores(LoadAwareScorer, {"threshold": 12}, **columns) == [0.5, 0.25]


counts = st.lists(st.integers(0, 10_000), min_size=1, max_size=40)
shares = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def assert_falling(values: list[float], result: list[float], highest: float) -> None:
    """All within 0..highest, equal for equal values, never better for a higher value."""
    assert len(result) == len(values)
    assert all(0.0 <= score <= highest for score in result)
    ordered = sorted(zip(values, result, strict=True))
    for (value, score), (next_value, next_score) in itertools.pairwise(ordered):
        assert next_score <= score
        assert next_score == score or next_value != value


@pytest.mark.parametrize(("target", "column"), [(queue, "waiting"), (running_requests, "running")])
@given(values=counts)
def test_relative_scorers_use_the_whole_range(target: Callable[..., Any], column: str, values: list[float]) -> None:
    result = scores(target, **{column: values})
    assert_falling(values, result, 1.0)
    assert max(result) == 1.0
    assert min(result) == (0.0 if len(set(values)) > 1 else 1.0)


@given(values=shares)
def test_kv_cache_range_and_order(values: list[float]) -> None:
    assert_falling(values, scores(kv_cache_utilization, kv_utilization=values), 1.0)


@given(values=counts, threshold=st.integers(-5, 20_000))
def test_load_aware_range_and_order(values: list[float], threshold: int) -> None:
    assert_falling(values, scores(LoadAwareScorer, {"threshold": threshold}, waiting=values), 0.5)


@given(values=counts, idle=st.integers(-5, 100), cap=st.floats(-0.5, 1.5))
def test_active_request_range_and_order(values: list[float], idle: int, cap: float) -> None:
    result = scores(ActiveRequestScorer, {"idleThreshold": idle, "maxBusyScore": cap}, in_flight_requests=values)
    assert_falling(values, result, 1.0)


@pytest.mark.parametrize(
    "target", [queue, running_requests, kv_cache_utilization, LoadAwareScorer, ActiveRequestScorer]
)
def test_a_scorer_writes_nothing(target: Any) -> None:
    endpoints = make_endpoints(waiting=[1, 2], running=[3, 4], kv_utilization=[0.1, 0.2], in_flight_requests=[0, 5])
    columns = endpoints.columns
    before = {name: getattr(columns, name).copy() for name in columns.NAMES}
    make_plugin(target).score(REQUEST, endpoints)[:] = -1
    for name, values in before.items():
        np.testing.assert_array_equal(getattr(columns, name), values)
