# SPDX-License-Identifier: Apache-2.0
"""Every target on its seeds and on a fixed set of mutations of them. `make fuzz` goes further."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.harness import KINDS, Edit, Run, Target, apply
from tests.fuzz.registry import NAMES, load

_PLACES = st.integers(0, 65535)


@functools.cache
def made(name: str) -> tuple[Target, Run]:
    """The target and its function, built once."""
    target = load(name)
    return target, target.make()


@pytest.mark.parametrize("name", NAMES)
def test_seeds(name: str) -> None:
    target, run = made(name)
    for seed in target.seeds():
        run(seed)
    run(b"")


@pytest.mark.parametrize("name", NAMES)
def test_mutations(name: str) -> None:
    target, run = made(name)
    payloads = st.binary(max_size=9)
    if target.words:
        payloads = st.sampled_from(list(target.words)) | payloads
    edits = st.lists(st.builds(Edit, st.integers(0, KINDS - 1), _PLACES, _PLACES, payloads), max_size=6)

    @settings(max_examples=100, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(list(target.seeds())), edits)
    def mutated(seed: bytes, edits: list[Edit]) -> None:
        run(apply(seed, edits))

    mutated()
