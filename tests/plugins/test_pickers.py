# SPDX-License-Identifier: Apache-2.0
"""The built-in pickers: exact choices where there is one, frequencies with fixed seeds where chance decides.

Frequencies are held to five standard deviations of a binomial; with the seeds fixed they do not vary between runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.plugins.pickers.max_score import MaxScorePicker
from epp.plugins.pickers.random import RandomPicker
from epp.plugins.pickers.weighted_random import WeightedRandomPicker
from epp.testing import make_context, make_endpoints, make_plugin, make_request

REQUEST = make_request("Write a poem about clouds")
PICKERS = [MaxScorePicker, RandomPicker, WeightedRandomPicker]
DRAWS = 4000


def pick(picker: Any, total: list[float], in_flight: Sequence[float] | float = 0) -> list[int]:
    endpoints = make_endpoints(len(total), in_flight_requests=in_flight)
    positions = picker.pick(REQUEST, endpoints, np.array(total, dtype=np.float64))
    assert positions.dtype == np.int64
    listed: list[int] = positions.tolist()
    return listed


def frequencies(picker: Any, total: list[float], in_flight: Sequence[float] | float = 0) -> list[float]:
    endpoints = make_endpoints(len(total), in_flight_requests=in_flight)
    array = np.array(total, dtype=np.float64)
    firsts = Counter(int(picker.pick(REQUEST, endpoints, array)[0]) for _ in range(DRAWS))
    return [firsts[position] / DRAWS for position in range(len(total))]


def assert_frequencies(measured: list[float], expected: list[float]) -> None:
    for got, want in zip(measured, expected, strict=True):
        assert abs(got - want) <= 5 * math.sqrt(want * (1 - want) / DRAWS), (measured, expected)


@pytest.mark.parametrize(
    ("count", "total", "in_flight", "expected"),
    [
        pytest.param(1, [0.2, 2.5, 1.0], 0, [1], id="highest total"),
        pytest.param(1, [0.7], 0, [0], id="single candidate"),
        pytest.param(1, [1.0, 2.0], [0, 99], [1], id="a better total beats an idle endpoint"),
        pytest.param(1, [1.0, 2.0, 2.0, 2.0], [0, 7, 3, 5], [2], id="fewest in flight wins a tie"),
        pytest.param(1, [-3.0, -1.0, -2.0], 0, [1], id="negative totals"),
        pytest.param(3, [0.1, 0.4, 0.3, 0.2], 0, [1, 2, 3], id="several, the best first"),
        pytest.param(3, [1.0, 1.0, 2.0, 1.0], [5, 0, 9, 2], [2, 1, 3], id="several, ties by in flight"),
        pytest.param(9, [0.1, 0.2], 0, [1, 0], id="no more than there are"),
        pytest.param(0, [0.1, 0.2], 0, [1], id="zero means one"),
        pytest.param(-4, [0.1, 0.2], 0, [1], id="negative means one"),
    ],
)
def test_max_score(count: int, total: list[float], in_flight: Any, expected: list[int]) -> None:
    assert pick(make_plugin(MaxScorePicker, maxNumOfEndpoints=count), total, in_flight) == expected


def test_max_score_breaks_full_ties_uniformly() -> None:
    picker = make_plugin(MaxScorePicker, context=make_context(seed=11))
    assert_frequencies(frequencies(picker, [0.0] * 5), [0.2] * 5)


def test_max_score_breaks_ties_uniformly_among_the_least_in_flight() -> None:
    picker = make_plugin(MaxScorePicker, context=make_context(seed=12))
    assert_frequencies(frequencies(picker, [1, 1, 1, 1, 0.5], [2, 0, 0, 3, 0]), [0, 0.5, 0.5, 0, 0])


def test_max_score_breaks_ties_uniformly_when_it_picks_several() -> None:
    picker = make_plugin(MaxScorePicker, context=make_context(seed=13), maxNumOfEndpoints=2)
    assert_frequencies(frequencies(picker, [1, 1, 1, 0.5], 0), [1 / 3, 1 / 3, 1 / 3, 0])


def test_a_burst_spreads_over_equal_endpoints() -> None:
    picker = make_plugin(MaxScorePicker)
    endpoints = make_endpoints(4)
    for _ in range(20):
        chosen = picker.pick(REQUEST, endpoints, np.zeros(4))[0]
        endpoints.columns.in_flight_requests[endpoints.rows[chosen]] += 1
    assert endpoints.in_flight_requests.tolist() == [5, 5, 5, 5]


def test_random_is_uniform_whatever_the_totals() -> None:
    picker = make_plugin(RandomPicker, context=make_context(seed=21))
    assert_frequencies(frequencies(picker, [9.0, 0.0, -1.0, 0.5], [0, 9, 9, 9]), [0.25] * 4)


def test_random_orders_several_uniformly() -> None:
    picker = make_plugin(RandomPicker, context=make_context(seed=22), maxNumOfEndpoints=3)
    orders = Counter(tuple(pick(picker, [1.0, 2.0, 3.0])) for _ in range(DRAWS))
    assert_frequencies([n / DRAWS for n in orders.values()], [1 / 6] * 6)


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        pytest.param([1, 2, 5], [0.125, 0.25, 0.625], id="in proportion"),
        pytest.param([0.002, 0.006], [0.25, 0.75], id="small totals do not underflow"),
        pytest.param([3, 0, 1, -2], [0.75, 0, 0.25, 0], id="nothing for zero and less"),
        pytest.param([0, 1e-12], [0, 1], id="anything beats zero"),
        pytest.param([0, 0, 0, 0], [0.25] * 4, id="all zero: uniform"),
        pytest.param([-1, 0, -5], [1 / 3] * 3, id="all zero or less: uniform"),
    ],
)
def test_weighted_random_frequencies(total: list[float], expected: list[float]) -> None:
    picker = make_plugin(WeightedRandomPicker, context=make_context(seed=31))
    assert_frequencies(frequencies(picker, total), expected)


def test_weighted_random_draws_without_replacement() -> None:
    # The chance of (first, second) is w1/W * w2/(W - w1): what sequential weighted draws give.
    picker = make_plugin(WeightedRandomPicker, context=make_context(seed=32), maxNumOfEndpoints=2)
    weights = [1.0, 2.0, 3.0]
    pairs = Counter(tuple(pick(picker, weights)) for _ in range(DRAWS))
    keys = [(a, b) for a in range(3) for b in range(3) if a != b]
    expected = [weights[a] / 6 * weights[b] / (6 - weights[a]) for a, b in keys]
    assert_frequencies([pairs[key] / DRAWS for key in keys], expected)


def test_weighted_random_puts_zero_totals_last_in_random_order() -> None:
    picker = make_plugin(WeightedRandomPicker, context=make_context(seed=33), maxNumOfEndpoints=4)
    picks = [pick(picker, [0, 1, -1, 2]) for _ in range(DRAWS)]
    assert all(set(order[:2]) == {1, 3} for order in picks)
    assert_frequencies([sum(order[2] == last for order in picks) / DRAWS for last in (0, 2)], [0.5, 0.5])


@pytest.mark.parametrize("target", PICKERS)
@pytest.mark.parametrize("count", [1, 3])
def test_equal_seeds_give_equal_choices(target: Any, count: int) -> None:
    def run(seed: int) -> list[list[int]]:
        picker = make_plugin(target, context=make_context(seed=seed), maxNumOfEndpoints=count)
        return [pick(picker, [1.0] * 8) for _ in range(20)]

    assert run(5) == run(5)
    assert run(5) != run(6)


# Any float that a total can be, subnormal numbers included.
totals = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20)


@pytest.mark.parametrize("target", PICKERS)
@given(total=totals, count=st.integers(-2, 25), seed=st.integers(0, 2**32))
def test_picks_are_distinct_candidates(target: Any, total: list[float], count: int, seed: int) -> None:
    picker = make_plugin(target, context=make_context(seed=seed), maxNumOfEndpoints=count)
    picked = pick(picker, total, [i % 3 for i in range(len(total))])
    assert len(picked) == min(max(count, 1), len(total))
    assert len(set(picked)) == len(picked)
    assert set(picked) <= set(range(len(total)))


@given(total=totals, count=st.integers(1, 25), seed=st.integers(0, 2**32))
def test_max_score_order(total: list[float], count: int, seed: int) -> None:
    in_flight = [(i * 7) % 4 for i in range(len(total))]
    picker = make_plugin(MaxScorePicker, context=make_context(seed=seed), maxNumOfEndpoints=count)
    picked = pick(picker, total, in_flight)
    ranks = [(-total[i], in_flight[i]) for i in picked]
    best = sorted((-t, f) for t, f in zip(total, in_flight, strict=True))
    assert ranks == best[: len(picked)]
