# SPDX-License-Identifier: Apache-2.0
"""What holds of the simulated engine whatever comes: requests of any size, aborts, slow spells, jitter, few blocks."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.local.sim.blocks import BlockPool, chain_hashes
from epp.local.sim.engine import Engine, EngineConfig, SequenceState, Work
from epp.local.sim.profiles import PROFILES

BLOCK = 16


@dataclass
class Job:
    prompt: int
    output: int
    gap_s: float
    watched: bool
    text: int
    aborted_after_s: float | None


JOBS = st.lists(
    st.builds(
        Job,
        prompt=st.integers(1, 250),
        output=st.integers(1, 60),
        gap_s=st.floats(0, 0.05),
        watched=st.booleans(),
        text=st.integers(0, 3),
        aborted_after_s=st.none() | st.floats(0, 0.2),
    ),
    min_size=1,
    max_size=20,
)
ENGINES = st.builds(
    EngineConfig,
    max_num_seqs=st.integers(1, 6),
    max_batched_tokens=st.integers(1, 100),
    num_blocks=st.integers(20, 60),
    decode_step_per_context_token_s=st.sampled_from([0.0, 1e-5]),
    jitter=st.sampled_from([0.0, 0.3]),
)


class Watched:
    """An engine whose invariants are looked at after every move."""

    def __init__(self, config: EngineConfig) -> None:
        self.admitted: list[SequenceState] = []
        self.preempted: list[SequenceState] = []
        self.engine = Engine(config, self, random.Random(1))

    def on_step(self, tokens: int, count: int) -> None:
        config = self.engine.config
        assert 1 <= tokens <= max(config.max_batched_tokens, config.max_num_seqs + 1)
        assert count >= 1

    def on_admitted(self, sequence: SequenceState, queried_tokens: int, hit_tokens: int) -> None:
        assert 0 <= hit_tokens < queried_tokens
        assert hit_tokens % BLOCK == 0
        self.admitted.append(sequence)

    def on_tokens(self, sequence: SequenceState, first_gap_s: float | None, count: int, step_s: float) -> None:
        assert first_gap_s is None or first_gap_s > 0

    def on_preempted(self, sequence: SequenceState) -> None:
        self.preempted.append(sequence)

    def on_finished(self, sequence: SequenceState, now_s: float) -> None:
        assert sequence.generated == sequence.work.output_tokens

    def check(self) -> None:
        engine, blocks = self.engine, self.engine.blocks
        assert len(engine.running) <= engine.config.max_num_seqs
        assert blocks.held + blocks.cached <= blocks.size
        # Every block that is held is held by a running sequence, shared ones once.
        named = {block for sequence in engine.running for block in sequence.named}
        assert blocks.held == len(named) + sum(sequence.unnamed for sequence in engine.running)
        for sequence in (*engine.running, *engine.waiting):
            assert sequence.cached_tokens < sequence.work.prompt_tokens
            assert sequence.generated <= sequence.work.output_tokens
        for sequence in engine.waiting:
            assert (sequence.named, sequence.unnamed) == ([], 0)


def of(job: Job) -> Work:
    text = (f"{job.text}" * (job.prompt * 4)).encode()
    hashes = chain_hashes(text, BLOCK)
    return Work(job.prompt, job.output, hashes, len(hashes), watched=job.watched)


@settings(max_examples=60, deadline=None)
@given(JOBS, ENGINES, st.sampled_from([1.0, 0.5, 7.0]))
def test_blocks_batch_and_queue_are_in_order_and_everything_ends(
    jobs: list[Job], config: EngineConfig, factor: float
) -> None:
    watched = Watched(config)
    engine, now_s = watched.engine, 0.0
    arrived: list[SequenceState] = []
    aborts: list[tuple[float, SequenceState]] = []

    def run_until(until_s: float) -> None:
        nonlocal now_s
        while True:
            moments = [moment for moment, _ in aborts if moment <= until_s]
            if engine.next_event_s is not None and engine.next_event_s <= until_s:
                moments.append(engine.next_event_s)
            if not moments:
                break
            now_s = max(now_s, min(moments))
            engine.advance(now_s)
            watched.check()
            for moment, sequence in [entry for entry in aborts if entry[0] <= now_s]:
                aborts.remove((moment, sequence))
                engine.abort(sequence)
                watched.check()
        now_s = max(now_s, until_s)
        engine.advance(now_s)

    for number, job in enumerate(jobs):
        run_until(now_s + job.gap_s)
        if number == len(jobs) // 2:
            engine.slow_down(factor)
        sequence = engine.submit(now_s, of(job))
        arrived.append(sequence)
        watched.check()
        if job.aborted_after_s is not None:
            aborts.append((now_s + job.aborted_after_s, sequence))
    gone = {id(sequence) for _, sequence in aborts}
    while engine.next_event_s is not None or aborts:
        run_until(min([moment for moment, _ in aborts] + [engine.next_event_s or 1e9]))
    assert (engine.blocks.held, engine.running, len(engine.waiting)) == (0, [], 0)
    assert all(s.finished for s, job in zip(arrived, jobs, strict=True) if job.aborted_after_s is None)
    assert len(gone) <= len(jobs)
    # Who came first is admitted first; only a preempted sequence is admitted again.
    first = list(dict.fromkeys(watched.admitted))
    assert first == [sequence for sequence in arrived if sequence in set(first)]
    assert len(watched.admitted) <= len(first) + len(watched.preempted)
    assert engine.preemptions == len(watched.preempted)


MOVES = st.lists(st.tuples(st.sampled_from(["admit", "end"]), st.integers(0, 3), st.integers(1, 6)), max_size=60)


@given(MOVES, st.integers(4, 12))
def test_the_block_pool_agrees_with_a_plain_model(moves: list[tuple[str, int, int]], size: int) -> None:
    pool = BlockPool(size)
    live: list[tuple[list[int], int]] = []
    cached: list[int] = []  # oldest first
    for move, text, length in moves:
        chain = [text * 100 + place for place in range(length)]
        held = {block for named, _ in live for block in named}
        if move == "admit":
            known = held | set(cached)
            hits = chain[: next((i for i, block in enumerate(chain) if block not in known), length)]
            assert pool.match(chain) == len(hits)
            pool.hold(hits)
            cached = [block for block in cached if block not in hits]
            held |= set(hits)
            fresh = len(chain) - len(hits)
            room = size - len(held) - sum(unnamed for _, unnamed in live)
            assert pool.take(fresh) == (fresh <= room)
            if fresh > room:
                pool.release(hits, 0)
                cached += [block for block in reversed(hits) if all(block not in named for named, _ in live)]
            else:
                evicted = len(cached) - (room - fresh)
                cached = cached[max(0, evicted) :]
                live.append((hits, fresh))
        elif live:
            named, unnamed = live.pop(text % len(live))
            pool.release(named, unnamed)
            cached += [block for block in reversed(named) if all(block not in other for other, _ in live)]
        if move == "admit" and live and live[-1][1]:
            # What has been computed is named, unless somebody was quicker.
            named, unnamed = live.pop()
            for block in chain[len(named) :]:
                if not pool.name(block):
                    break
                named, unnamed = [*named, block], unnamed - 1
            live.append((named, unnamed))
        assert pool.held == len({b for named, _ in live for b in named}) + sum(unnamed for _, unnamed in live)
        assert pool.cached == len(cached)
        assert pool.held + pool.cached <= size


def length_s(config: EngineConfig, prompt: int, output: int, seed: int = 0) -> float:
    engine = Engine(config, rng=random.Random(seed))
    sequence = engine.submit(0.0, Work(prompt, output))
    while engine.next_event_s is not None:
        engine.advance(engine.next_event_s)
    assert sequence.last_token_s is not None
    return sequence.last_token_s


@pytest.mark.parametrize(
    ("profile", "prompt", "output", "seconds"),
    [
        # 8192 tokens of prompt, and a token of it: the prefill rate and one step.
        ("qwen3-32b-2xh100", 8191, 1, 8191 / 15_928 + 15.6e-3),
        ("llama-3.1-8b-h100", 8191, 1, 8191 / 31_000 + 7.7e-3),
        # A decode step of one sequence with 16,000 tokens of context: 15.6 ms + 4.4 us + 1.2 ms.
        ("qwen3-32b-2xh100", 16_000, 2, 16_000 / 15_928 + 2 * 15.6e-3 + 15.6e-3 + 4.4e-6 + 16_001 * 7.6e-8),
    ],
)
def test_profiles_have_the_step_times_of_their_sources(
    profile: str, prompt: int, output: int, seconds: float
) -> None:  # fmt: skip
    assert length_s(PROFILES[profile], prompt, output) == pytest.approx(seconds, rel=1e-6)


def test_the_capacity_of_the_reference_pod_is_the_measured_one() -> None:
    config = PROFILES["qwen3-32b-2xh100"]
    assert config.num_blocks * config.block_size_tokens == pytest.approx(307_328, abs=16)


def test_jitter_moves_a_step_by_at_most_its_share_and_is_seeded() -> None:
    steady = EngineConfig()
    shaky = EngineConfig(jitter=0.2)
    base_s = length_s(steady, 10, 1)
    seen = [length_s(shaky, 10, 1, seed) for seed in range(200)]
    assert all(0.8 * base_s <= value <= 1.2 * base_s for value in seen)
    assert max(seen) - min(seen) > 0.3 * base_s
    assert seen[:5] == [length_s(shaky, 10, 1, seed) for seed in range(5)]


def test_a_slow_spell_stretches_the_steps_that_begin_in_it() -> None:
    engine = Engine(EngineConfig(decode_step_s=0.01, decode_step_per_seq_s=0.0, prefill_tokens_per_s=1e9))
    sequence = engine.submit(0.0, Work(1, 10))
    engine.advance(0.025)
    engine.slow_down(10.0)
    engine.advance(0.05)
    assert sequence.generated == 3  # the step that was under way ends as it would have
    engine.advance(0.131)
    assert sequence.generated == 4
    engine.slow_down(1.0)
    engine.advance(0.26)
    assert sequence.generated >= 5
