# SPDX-License-Identifier: Apache-2.0
"""`utilization-detector`: the pool's saturation by its formula, and the endpoints with room."""

from __future__ import annotations

from typing import Any

import pytest

from epp.plugins.detectors.utilization import UtilizationDetector
from epp.testing import make_endpoints, make_plugin, make_request

NEVER = float("inf")


def detector(**parameters: Any) -> UtilizationDetector:
    made = make_plugin(UtilizationDetector, **parameters)
    assert isinstance(made, UtilizationDetector)
    return made


@pytest.mark.parametrize(
    ("waiting", "kv", "age_s", "saturation"),
    [
        ([0.0], [0.0], 0.0, 0.0),
        ([5.0], [0.0], 0.0, 1.0),
        ([0.0], [0.8], 0.0, 1.0),
        ([10.0], [0.4], 0.0, 2.0),
        ([0.0, 10.0], [0.0, 0.0], 0.0, 1.0),
        ([1.0, 2.0], [0.4, 0.1], 0.0, (0.5 + 0.4) / 2),
        # A stale page, or none, counts as full: no more, and no less.
        ([0.0, 0.0], [0.0, 0.0], [0.0, 0.21], 0.5),
        ([0.0, 50.0], [0.0, 0.0], [0.0, NEVER], 0.5),
        ([0.0], [0.0], 0.2, 0.0),
    ],
)
def test_saturation(waiting: list[float], kv: list[float], age_s: Any, saturation: float) -> None:
    endpoints = make_endpoints(waiting=waiting, kv_utilization=kv, age_s=age_s, now_s=0.0)
    assert detector().saturation(endpoints) == pytest.approx(saturation)


def test_a_pool_without_endpoints_is_saturated() -> None:
    assert detector().saturation(make_endpoints(0)) == 1.0


def test_thresholds_are_parameters() -> None:
    endpoints = make_endpoints(waiting=[5.0], kv_utilization=[0.25], age_s=0.4, now_s=0.0)
    assert detector(queueDepthThreshold=10, metricsStalenessThreshold="1s").saturation(endpoints) == 0.5
    assert detector(kvCacheUtilThreshold=0.25, metricsStalenessThreshold="500ms").saturation(endpoints) == 1.0
    assert detector().saturation(endpoints) == 1.0


def test_pages_that_are_read_seldom_are_not_stale() -> None:
    made = detector()
    endpoints = make_endpoints(1, age_s=4.0, now_s=0.0)
    assert made.saturation(endpoints) == 1.0
    made.polled_within_s = lambda: 5.2
    assert made.saturation(endpoints) == 0.0
    made.polled_within_s = lambda: 0.05
    assert made.saturation(make_endpoints(1, age_s=0.15, now_s=0.0)) == 0.0


@pytest.mark.parametrize(
    ("headroom", "kept"),
    [(0.0, [True, False, False, False]), (0.5, [True, True, True, False])],
)
def test_the_filter_keeps_those_with_room(headroom: float, kept: list[bool]) -> None:
    endpoints = make_endpoints(
        waiting=[4.0, 5.0, 0.0, 0.0], kv_utilization=[0.7, 0.0, 0.9, 0.0], age_s=[0.0, 0.0, 0.0, 1.0], now_s=0.0
    )
    assert detector(headroom=headroom).filter(make_request(), endpoints).tolist() == kept


def test_the_filter_keeps_all_when_nobody_has_room() -> None:
    endpoints = make_endpoints(waiting=[9.0, 9.0])
    assert detector().filter(make_request(), endpoints).tolist() == [True, True]
