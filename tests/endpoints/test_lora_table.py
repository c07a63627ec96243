# SPDX-License-Identifier: Apache-2.0
"""Who uses which adapter: the index by name always says what the rows say."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from epp.contract.discovery import EndpointSpec
from epp.contract.lora import LoraState, LoraTable
from epp.contract.signals import Sample, Signal
from epp.endpoints.pool import Pool
from epp.testing import FakeClock

NAMES = st.frozensets(st.sampled_from("abcd"))
STEPS = st.lists(st.tuples(st.integers(0, 9), st.none() | st.builds(LoraState, NAMES, NAMES, st.integers(0, 4))))


@given(STEPS)
def test_the_index_says_what_the_rows_say(steps: list[tuple[int, LoraState | None]]) -> None:
    table = LoraTable(2)
    for row, state in steps:
        if row >= len(table.states):
            table.grow(row + 1)
        table.set(row, state)
        for name in "abcd":
            states = [known or LoraState() for known in table.states]
            assert table.running(name).tolist() == [name in known.running for known in states]
            assert table.waiting(name).tolist() == [name in known.waiting for known in states]
    used = {name for known in table.states if known for name in known.running | known.waiting}
    assert len(table) == len(used), "nothing is kept for names that nobody uses"


def test_the_pool_keeps_adapters_for_one_life() -> None:
    clock = FakeClock()
    pool = Pool(clock, capacity=1)
    specs = [EndpointSpec("ns", f"pod-{n}", f"10.0.0.{n}", 8000) for n in (1, 2)]
    pool.apply(specs[:1])
    first = pool.candidates()[0]
    pool.record(first, Sample(lora=LoraState(frozenset("ab"), frozenset("b"), 4)))
    pool.apply(specs)
    clock.advance(3.0)
    pool.record(first, Sample(waiting=1.0))
    seen = pool.candidates()
    assert (seen.runs_adapter("a").tolist(), seen.awaits_adapter("b").tolist()) == ([True, False], [True, False])
    assert (seen.lora_adapters.tolist(), seen.max_lora_adapters.tolist()) == ([2, 0], [4, 0])
    assert seen.signal_age_s(Signal.LORA).tolist() == [3.0, np.inf]
    pool.record(first, Sample(lora=LoraState(frozenset("c"), frozenset(), 4)))
    assert (seen.runs_adapter("a").tolist(), seen.runs_adapter("c").tolist()) == ([False, False], [True, False])
    pool.apply([specs[1]])
    pool.apply(specs)
    assert not pool.candidates().runs_adapter("c").any()
    assert pool.candidates().lora_adapters.tolist() == [0, 0]
    assert len(pool.columns.lora) == 0
