# SPDX-License-Identifier: Apache-2.0
"""A decision as plain values and as a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.contract.decision import Decision, FilterTrace, ProfileResult, ScoreTrace
from epp.contract.endpoints import Endpoints

Decide = Callable[..., Decision]


def test_winner_runner_up_and_margin(decide: Decide) -> None:
    scores = {"prefix": (2.0, [0.25, 0.75, 0.5]), "load": (0.5, [1.0, 0.2, 0.123456789])}
    decision = decide(scores, count=3, picked=1)
    assert decision.as_dict() == {
        "request_id": "4a3f6247-d02f-4a57-9a90-9b25b2daa18c",
        "model": "Qwen/Qwen2.5-0.5B-Instruct",
        "target_model": "Qwen/Qwen2.5-0.5B-Instruct",
        "endpoint": "kserve-test/pod-1",
        "address": "10.244.2.1:8000",
        "candidates": 3,
        "profiles": [
            {
                "profile": "default",
                "candidates": 3,
                "picked": {
                    "endpoint": "kserve-test/pod-1",
                    "address": "10.244.2.1:8000",
                    "total": 1.6,
                    "scores": {
                        "prefix": {"raw": 0.75, "clamped": 0.75, "weight": 2.0, "weighted": 1.5},
                        "load": {"raw": 0.2, "clamped": 0.2, "weight": 0.5, "weighted": 0.1},
                    },
                },
                "runner_up": {
                    "endpoint": "kserve-test/pod-2",
                    "address": "10.244.2.2:8000",
                    "total": 1.061728,
                    "scores": {
                        "prefix": {"raw": 0.5, "clamped": 0.5, "weight": 2.0, "weighted": 1.0},
                        "load": {"raw": 0.123457, "clamped": 0.123457, "weight": 0.5, "weighted": 0.061728},
                    },
                },
                "margin": 0.538272,
            }
        ],
    }
    assert (
        decision.explain()
        == "pod-1 1.600 (prefix 0.75x2, load 0.2x0.5); runner-up pod-2 1.062 (prefix 0.5x2, load 0.123x0.5)"
    )


def test_one_candidate_and_no_scorer(decide: Decide) -> None:
    alone = decide({"load": (1.0, [0.5])}, count=1)
    assert alone.explain() == "qwen-instruct-kserve-6899dd5fb8-tqwn8 0.500 (load 0.5x1); the only candidate"
    assert "runner_up" not in alone.as_dict()["profiles"][0]
    unscored = decide(count=3, picked=2)
    assert unscored.explain() == "pod-2 (no scorer; 3 candidates)"


def test_filters_and_abstentions_are_shown(endpoints: Callable[..., Endpoints]) -> None:
    filters = (FilterTrace("label", 5, np.array([1, 2])),)
    scores = (ScoreTrace("load", 1.0, np.zeros(3), error="ValueError: x"),)
    result = ProfileResult("default", endpoints(3), filters, scores, np.zeros(3), (0,))
    shown = Decision("r", "m", "m", "default", {"default": result}, 5, 0.0).as_dict()["profiles"][0]
    named = ["kserve-test/pod-1", "kserve-test/pod-2"]
    assert shown["filters"] == [{"name": "label", "before": 5, "dropped": 2, "endpoints": named}]
    assert shown["abstained"] == {"load": "ValueError: x"}


def test_every_profile_is_shown_and_the_primary_explained(endpoints: Callable[..., Endpoints]) -> None:
    decode = ProfileResult("decode", endpoints(2), (), (), np.array([0.0, 1.0]), (1,))
    prefill = ProfileResult("prefill", endpoints(2), (), (), np.array([1.0, 0.0]), (0,))
    decision = Decision("r", "m", "m", "decode", {"prefill": prefill, "decode": decode}, 2, 0.0)
    record = decision.as_dict()
    assert [profile["profile"] for profile in record["profiles"]] == ["prefill", "decode"]
    assert record["endpoint"] == "kserve-test/pod-1"
    assert decision.explain() == "pod-1 (no scorer; 2 candidates)"


@settings(deadline=None)
@given(
    raw=st.lists(st.floats(-1e9, 1e9) | st.sampled_from([0.0, 1.0, math.inf, -math.inf]), min_size=2, max_size=5),
    weight=st.floats(0.0, 1e3),
)
def test_values_agree_with_the_arrays(decide: Decide, raw: list[float], weight: float) -> None:
    decision = decide({"s": (weight, raw)}, count=len(raw))
    trace, result = decision.result.scores[0], decision.result
    profile = decision.as_dict()["profiles"][0]
    for shown, position in ((profile["picked"], 0), (profile["runner_up"], result.runner_up())):
        assert position is not None
        score = shown["scores"]["s"]
        assert score["raw"] == pytest.approx(float(trace.raw[position]), abs=1e-6)
        assert score["weighted"] == pytest.approx(float(trace.weighted[position]), abs=1e-6)
        assert shown["total"] == pytest.approx(float(result.total[position]), abs=1e-6)
    assert profile["margin"] == pytest.approx(profile["picked"]["total"] - profile["runner_up"]["total"], abs=2e-6)
