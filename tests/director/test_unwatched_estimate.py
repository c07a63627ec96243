# SPDX-License-Identifier: Apache-2.0
"""What is learned from watched requests, and who is watched."""

from __future__ import annotations

from typing import Any

import pytest

from epp.contract.requests import Cause, Completion, Usage
from epp.director.estimate import (
    DEFAULT_FIRST_BYTE_S,
    DEFAULT_TOKEN_S,
    DEFAULT_TOKENS,
    EVERY,
    EVERY_UNTIL_LEARNED,
    FIRST,
    MOST_MODELS,
    MOST_S,
    Estimate,
    Estimates,
)


def completion(
    duration_s: float, tokens: int | None = None, first_byte_s: float | None = 0.2, **more: Any
) -> Completion:
    usage = None if tokens is None else Usage(completion_tokens=tokens)
    fields: dict[str, Any] = {"cause": Cause.COMPLETE, "reached_endpoint": True, "status": 200, **more}
    return Completion(usage=usage, duration_s=duration_s, first_byte_s=first_byte_s, response_bytes=1, **fields)


def test_before_anything_was_learned_the_defaults_stand() -> None:
    estimate = Estimate()
    assert estimate.first_byte_s == DEFAULT_FIRST_BYTE_S
    assert estimate.generation_s(None) == pytest.approx(DEFAULT_TOKENS * DEFAULT_TOKEN_S)
    assert estimate.generation_s(10) == pytest.approx(10 * DEFAULT_TOKEN_S)
    assert estimate.generation_s(0) == 0.0


def test_the_first_watched_answer_replaces_the_defaults() -> None:
    estimate = Estimate()
    estimate.learn(completion(10.2, tokens=1000), None, True)
    assert estimate.first_byte_s == pytest.approx(0.2)
    assert estimate.generation_s(None) == pytest.approx(10.0)
    assert estimate.generation_s(100) == pytest.approx(1.0)
    assert estimate.generation_s(5000) == pytest.approx(10.0)


def test_later_ones_move_the_means() -> None:
    estimate = Estimate()
    for _ in range(50):
        estimate.learn(completion(1.2, tokens=100), None, True)
    assert estimate.generation_s(None) == pytest.approx(1.0)
    for _ in range(50):
        estimate.learn(completion(4.4, tokens=200, first_byte_s=0.4), None, True)
    assert estimate.first_byte_s == pytest.approx(0.4, rel=0.01)
    assert estimate.generation_s(None) == pytest.approx(4.0, rel=0.02)


def test_an_answer_that_came_whole_teaches_the_sum() -> None:
    estimate = Estimate()
    estimate.learn(completion(2.5, tokens=50, first_byte_s=2.5), None, False)
    assert estimate.first_byte_s == DEFAULT_FIRST_BYTE_S
    assert estimate.first_byte_s + estimate.generation_s(None) == pytest.approx(2.5)
    # Faster than the first byte is taken to be: nothing negative comes of it.
    estimate.learn(completion(0.1, tokens=50, first_byte_s=0.1), None, False)
    assert estimate.generation_s(None) >= 0.0


def test_without_usage_the_sum_comes_out_right_all_the_same() -> None:
    estimate = Estimate()
    estimate.learn(completion(5.2), 64, True)
    assert estimate.first_byte_s + estimate.generation_s(64) == pytest.approx(5.2)


def test_the_access_log_teaches_durations() -> None:
    estimate = Estimate()
    for _ in range(100):
        estimate.learn_duration(3.0, None)
    assert estimate.first_byte_s + estimate.generation_s(None) == pytest.approx(3.0)


@pytest.mark.parametrize(
    "bad",
    [
        completion(9.0, tokens=5, cause=Cause.CLIENT_GONE),
        completion(9.0, tokens=5, cause=Cause.ERROR, status=None),
        completion(9.0, tokens=5, status=503),
        completion(9.0, tokens=5, status=None),
    ],
)
def test_only_whole_answers_teach(bad: Completion) -> None:
    estimate = Estimate()
    estimate.learn(bad, None, True)
    assert estimate.first_byte_s == DEFAULT_FIRST_BYTE_S
    assert estimate.generation_s(None) == pytest.approx(DEFAULT_TOKENS * DEFAULT_TOKEN_S)


def test_no_estimate_is_longer_than_the_cap() -> None:
    estimate = Estimate()
    estimate.learn(completion(1e6, tokens=10, first_byte_s=1e5), None, True)
    assert estimate.first_byte_s + estimate.generation_s(None) == MOST_S


def test_the_first_are_watched_then_one_in_many() -> None:
    estimate = Estimate()
    for _ in range(FIRST):
        estimate.learn(completion(1.0, tokens=10), None, True)
    watched = [number for number in range(3 * EVERY) if estimate.wants_next()]
    assert watched == [*range(FIRST), EVERY, 2 * EVERY]


def test_more_are_watched_as_long_as_nothing_was_learned() -> None:
    estimate = Estimate()
    watched = [number for number in range(100) if estimate.wants_next()]
    assert watched == [*range(FIRST), *range(EVERY_UNTIL_LEARNED, 100, EVERY_UNTIL_LEARNED)]


def test_models_have_estimates_of_their_own_up_to_a_bound() -> None:
    estimates = Estimates()
    own = [estimates.of(f"m-{n}") for n in range(MOST_MODELS)]
    assert len(set(map(id, own))) == MOST_MODELS
    assert estimates.of("late") is estimates.of("later")
    assert estimates.of("m-0") is own[0]
