# SPDX-License-Identifier: Apache-2.0
"""A record holds the values of the moment of the decision, whatever becomes of the pool afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epp.contract.decision import Decision, FilterTrace, ProfileResult, ScoreTrace
from epp.contract.endpoints import Endpoint, Endpoints
from epp.contract.requests import Cause, Completion, Usage
from epp.contract.signals import Signal
from epp.contract.snapshot import MOST_PICKED_OUT, snapshot
from epp.observe.decision.record import MOST_CANDIDATES, Record
from epp.testing import make_endpoints, make_request

NOW_S = 1000.0


def decided(endpoints: Endpoints, totals: Any, picked: int = 0, dropped: Any = ()) -> Record:
    """A record of a choice among `endpoints` but those at positions `dropped`; `totals` are of those left."""
    known = snapshot(endpoints)
    keep = np.ones(len(endpoints), dtype=np.bool_)
    keep[list(dropped)] = False
    left = endpoints.where(keep)
    filters = (FilterTrace("label-filter", len(endpoints), endpoints.rows[~keep]),) if len(dropped) else ()
    raw = np.asarray(totals, dtype=np.float64)
    score = ScoreTrace("s", 2.0, raw)
    result = ProfileResult("default", left, filters, (score,), score.weighted, (picked,))
    decision = Decision("id-1", "m", "m", "default", {"default": result}, len(endpoints), NOW_S, known)
    return Record(decision, NOW_S - 0.25, NOW_S + 0.001, 0.0005, 96.0)


def seen(endpoints: Endpoints, **ages_s: float) -> None:
    """Say how long ago each signal was heard, of every endpoint; those not named never were."""
    endpoints.columns.seen_at_s[:] = -np.inf
    for name, age_s in ages_s.items():
        endpoints.columns.seen_at_s[Signal[name.upper()], endpoints.rows] = NOW_S - age_s


@pytest.mark.parametrize("count", [3, MOST_PICKED_OUT, MOST_PICKED_OUT + 1, 100])
def test_a_snapshot_stays_when_the_pool_goes_on(count: int) -> None:
    endpoints = make_endpoints(count, waiting=list(range(count)), in_flight_tokens=7.0)
    seen(endpoints, waiting=0.5)
    known = snapshot(endpoints)
    endpoints.columns.table[:] = -1.0
    endpoints.columns.grow(4 * count)
    assert known.column("waiting").tolist() == list(range(count))
    assert known.column("in_flight_tokens").tolist() == [7.0] * count
    assert known.age_s(Signal.WAITING).tolist() == [0.5] * count
    assert np.isinf(known.age_s(Signal.RUNNING)).all()
    some = known.only(endpoints.rows[[2, 0]])
    assert some.column("waiting").tolist() == [2, 0]
    assert [endpoint.name for endpoint in some.endpoints] == ["pod-2", "pod-0"]


def test_who_fell_by_which_filter_who_came_second_and_what_was_known() -> None:
    endpoints = make_endpoints(waiting=[4, 9, 1, 3], running=[1, 2, 3, 4], in_flight_requests=[5, 0, 2, 0], now_s=NOW_S)
    seen(endpoints, waiting=0.04, kv_utilization=3.5)
    record = decided(endpoints, [0.25, 1.5, 0.5], picked=1, dropped=[1])
    endpoints.columns.table[:] = 77.0
    told = record.as_dict(NOW_S + 2.0, 5_000.0, full=True)
    assert told["unix_s"] == 4_998.0
    assert told["age_s"] == 2.0
    assert told["endpoint"] == "default/pod-2"
    [profile] = told["profiles"]
    assert profile["filters"] == [{"name": "label-filter", "before": 4, "dropped": 1, "endpoints": ["default/pod-1"]}]
    assert profile["picked"]["scores"] == {"s": {"raw": 1.5, "clamped": 1.0, "weight": 2.0, "weighted": 2.0}}
    assert profile["picked"]["signals"] == {
        "waiting": 1.0,
        "running": 3.0,
        "kv_utilization": 0.0,
        "in_flight_requests": 2.0,
        "in_flight_tokens": 0.0,
        "age_s": {"waiting": 0.04, "running": None, "kv_utilization": 3.5},
    }
    assert profile["runner_up"]["endpoint"] == "default/pod-3"
    assert profile["margin"] == 1.0
    assert [other["endpoint"] for other in profile["others"]] == ["default/pod-0"]
    assert profile["others"][0]["signals"]["waiting"] == 4.0
    assert told["charged"] == {
        "requests": 1,
        "tokens": 96.0,
        "in_flight_requests_before": 2.0,
        "in_flight_tokens_before": 0.0,
    }
    assert told["timing"] == {"before_scheduling_s": 0.2505, "scheduling_s": 0.0005}
    assert "others" not in record.as_dict(NOW_S, 0.0)["profiles"][0]


def test_an_endpoint_that_is_gone_is_still_named() -> None:
    endpoints = make_endpoints(3, now_s=NOW_S)
    record = decided(endpoints, [1.0, 0.0], dropped=[2])
    stranger = Endpoint("other", "successor", "10.0.0.9", 8000)
    endpoints.columns.replace_endpoints((stranger,) * endpoints.columns.capacity)
    told = record.as_dict(NOW_S, 0.0)
    assert told["endpoint"] == "default/pod-0"
    assert told["profiles"][0]["filters"][0]["endpoints"] == ["default/pod-2"]


def test_how_it_ended() -> None:
    record = decided(make_endpoints(2), [1.0, 0.0])
    assert record.outcome(NOW_S + 1.0) == {"state": "in flight", "duration_s": 1.25}
    usage = Usage(prompt_tokens=24, completion_tokens=178, cached_tokens=16)
    record.completion = Completion(Cause.COMPLETE, True, 200, usage, 2.5, 0.125, 999)
    record.told_by = "response"
    assert record.outcome() == {
        "state": "ended",
        "cause": "natural",
        "status": 200,
        "reached_endpoint": True,
        "duration_s": 2.5,
        "first_byte_s": 0.125,
        "response_bytes": 999,
        "usage": {
            "prompt_tokens": 24,
            "completion_tokens": 178,
            "total_tokens": None,
            "cached_tokens": 16,
            "cache_creation_tokens": None,
            "reasoning_tokens": None,
            "prompt_tokens_apart": None,
        },
        "told_by": "response",
    }


def test_of_a_large_pool_the_best_are_kept_with_the_picked_one() -> None:
    count, worst = 1000, 3
    scores = np.random.default_rng(7).random(count - 1)
    scores[worst] = -1.0
    endpoints = make_endpoints(count, waiting=np.arange(count) * 1.0, now_s=NOW_S)
    record = decided(endpoints, scores, picked=worst, dropped=[0])
    before = record.as_dict(NOW_S, 0.0, full=True)
    record.describe(make_request("four byte", max_output_tokens=5, stream=True))
    after = record.as_dict(NOW_S, 0.0, full=True)
    [wide], [narrow] = before["profiles"], after["profiles"]
    assert narrow["omitted"] == count - 1 - MOST_CANDIDATES - 1
    assert narrow["picked"] == wide["picked"]
    assert narrow["runner_up"] == wide["runner_up"]
    assert narrow["candidates"] == wide["candidates"] == count - 1
    assert narrow["filters"] == wide["filters"]
    assert narrow["others"] == wide["others"][: MOST_CANDIDATES - 1]
    assert after["charged"] == before["charged"]
    assert after["candidates"] == count
    assert after["request"] == {
        "priority": 0,
        "stream": True,
        "body_bytes": 0,
        "prompt_tokens": 3,
        "max_output_tokens": 5,
    }
    assert record.decision.known is not None
    assert record.decision.known.table.shape[1] <= MOST_CANDIDATES + 1
