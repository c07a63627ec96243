# SPDX-License-Identifier: Apache-2.0
"""The LoRA affinity scorer: a table of numbers, and that it agrees with the rules for any state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.api import LoraState
from epp.plugins.scorers.lora_affinity import lora_affinity
from epp.testing import make_endpoints, make_plugin, make_request


def state(running: str = "", waiting: str = "", fit: int = 2) -> LoraState:
    return LoraState(frozenset(running.split()), frozenset(waiting.split()), fit)


def scores(states: list[LoraState | None], model: str = "a", **fields: str) -> list[float]:
    result = make_plugin(lora_affinity).score(make_request("Hi", model=model, **fields), make_endpoints(lora=states))
    assert result.dtype == np.float64
    listed: list[float] = result.tolist()
    return listed


@pytest.mark.parametrize(
    ("given_state", "expected"),
    [
        pytest.param(state("a b"), 1.0, id="runs, though full"),
        pytest.param(state("a", "a"), 1.0, id="runs and waits"),
        pytest.param(state("b"), 0.8, id="room for one more"),
        pytest.param(state(), 0.8, id="all room"),
        pytest.param(state("b", "a", fit=3), 0.8, id="waits, and there is room"),
        pytest.param(state("b", "a"), 0.6, id="waits, full"),
        pytest.param(state("b", "c"), 0.0, id="full"),
        pytest.param(state("b", "c", fit=1), 0.0, id="more than full"),
        pytest.param(state("b", "b"), 0.8, id="one adapter in both lists takes one place"),
        pytest.param(state("b c", "b c", fit=3), 0.8, id="two adapters in both lists take two places"),
        pytest.param(state(fit=0), 0.0, id="does not say how many fit"),
        pytest.param(None, 0.0, id="never said anything"),
    ],
)
def test_table(given_state: LoraState | None, expected: float) -> None:
    assert scores([given_state]) == [expected]
    assert scores([None, given_state, state("a")]) == [0.0, expected, 1.0]


def test_the_adapter_is_the_model_after_rewriting() -> None:
    assert scores([state("a"), state("b", fit=1)], model="x", target_model="b") == [0.8, 1.0]


NAMES = st.frozensets(st.sampled_from("abcde"))
STATES = st.lists(st.none() | st.builds(LoraState, NAMES, NAMES, st.integers(0, 5)), min_size=1, max_size=8)


@given(STATES, st.sampled_from("abcdef"))
def test_agrees_with_the_rules_one_by_one(states: list[LoraState | None], model: str) -> None:
    def rule(known: LoraState | None) -> float:
        if known is None:
            return 0.0
        if model in known.running:
            return 1.0
        if len(known.running | known.waiting) < known.max_adapters:
            return 0.8
        return 0.6 if model in known.waiting else 0.0

    assert scores(states, model) == [rule(known) for known in states]
