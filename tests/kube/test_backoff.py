# SPDX-License-Identifier: Apache-2.0
"""How long the next attempt waits."""

from __future__ import annotations

import random

import pytest

from epp.kube.backoff import FIRST_S, MOST_S, Backoff


def test_waits_double_up_to_a_bound_and_begin_anew() -> None:
    backoff = Backoff(random.Random(1))
    for expected_s in (0.5, 1, 2, 4, 8, 16, 30, 30):
        assert backoff.next_s() == pytest.approx(expected_s, rel=0.25)
    assert backoff.next_s() <= MOST_S * 1.25
    backoff.reset()
    assert backoff.next_s() == pytest.approx(FIRST_S, rel=0.25)


@pytest.mark.parametrize("asked_s", [1, 5, 300])
def test_a_server_that_says_how_long_is_asked_soon_after(asked_s: float) -> None:
    backoff = Backoff(random.Random(1))
    waits_s = [backoff.next_s(asked_s) for _ in range(20)]
    assert min(waits_s) >= asked_s
    assert max(waits_s) <= 4 * asked_s
    assert asked_s == 300 or max(waits_s) > 1.5 * asked_s
