# SPDX-License-Identifier: Apache-2.0
"""The simulated engine in virtual time: how long things take, what waits, what the prefix cache saves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.local.sim.blocks import chain_hashes
from epp.local.sim.engine import Engine, EngineConfig, SequenceState, Work

CONFIG = EngineConfig(prefill_tokens_per_s=1000, decode_step_s=0.010, decode_step_per_seq_s=0.0)


def work(prompt: int = 100, output: int = 5, *, watched: bool = False, text: str = "") -> Work:
    hashes = chain_hashes(text.encode(), 16) if text else ()
    return Work(prompt, output, hashes, min(len(hashes), prompt // 16), watched=watched)


def drain(engine: Engine) -> list[tuple[float, SequenceState, int]]:
    """Advance from event to event until idle: (time, sequence, tokens)."""
    seen = []
    while (now_s := engine.next_event_s) is not None:
        seen += [(round(now_s, 6), p.sequence, p.tokens) for p in engine.advance(now_s)]
    return seen


def test_one_request_takes_prefill_plus_a_step_a_token() -> None:
    engine = Engine(CONFIG)
    engine.submit(1.0, work(prompt=100, output=5, watched=True))
    times = [(t, n) for t, _, n in drain(engine)]
    assert times == [(1.11, 1), (1.12, 1), (1.13, 1), (1.14, 1), (1.15, 1)]


def test_an_unwatched_decode_is_one_event() -> None:
    engine = Engine(CONFIG)
    engine.submit(0.0, work(prompt=100, output=500))
    assert [(t, n) for t, _, n in drain(engine)] == [(0.11, 1), (5.1, 499)]


def test_watching_changes_nothing_but_the_reports() -> None:
    ends = []
    for watched in (False, True):
        engine = Engine(CONFIG)
        sequences = [engine.submit(0.0, work(50 + i, 20 + i, watched=watched)) for i in range(5)]
        drain(engine)
        ends.append([t for s in sequences for t in (s.first_token_s, s.last_token_s)])
    assert ends[0] == pytest.approx(ends[1])


@pytest.mark.parametrize(("speed", "end_s"), [(1.0, 0.15), (2.0, 0.075), (0.5, 0.3)])
def test_speed_divides_all_times(speed: float, end_s: float) -> None:
    engine = Engine(EngineConfig(prefill_tokens_per_s=1000, decode_step_s=0.01, decode_step_per_seq_s=0.0, speed=speed))
    sequence = engine.submit(0.0, work())
    drain(engine)
    assert sequence.last_token_s == pytest.approx(end_s)


def test_a_step_is_longer_with_more_sequences_in_it() -> None:
    engine = Engine(EngineConfig(prefill_tokens_per_s=1e9, decode_step_s=0.01, decode_step_per_seq_s=0.001))
    for _ in range(10):
        engine.submit(0.0, work(prompt=1, output=2))
    last = max(t for t, _, _ in drain(engine))
    # The first sequence starts alone; the others wait for its step, then run together in steps of 11 to 20 ms.
    assert last == pytest.approx(0.01 + 0.011 + 0.019, abs=1e-5)


def test_more_than_max_num_seqs_wait_their_turn() -> None:
    engine = Engine(EngineConfig(max_num_seqs=2, prefill_tokens_per_s=1e9, decode_step_s=0.01))
    sequences = [engine.submit(0.0, work(prompt=1, output=3)) for _ in range(4)]
    engine.advance(0.012)
    assert (len(engine.running), len(engine.waiting)) == (2, 2)
    order = [s for _, s, _ in drain(engine) if s.finished]
    assert [sequences.index(s) for s in dict.fromkeys(order)] == [0, 1, 2, 3]


def test_a_long_prompt_is_computed_in_chunks_while_others_decode() -> None:
    engine = Engine(EngineConfig(max_batched_tokens=101, prefill_tokens_per_s=1000, decode_step_s=0.01))
    short = engine.submit(0.0, work(prompt=1, output=50, watched=True))
    engine.advance(0.02)
    long = engine.submit(0.02, work(prompt=300, output=1))
    before = short.generated
    while long.first_token_s is None:
        engine.advance(engine.next_event_s or 0.0)
    assert short.generated - before in (3, 4)


def test_a_cached_prefix_saves_its_prefill() -> None:
    engine = Engine(CONFIG)
    text = "x" * 400
    first = engine.submit(0.0, work(100, 1, text=text))
    drain(engine)
    again = engine.submit(10.0, work(100, 1, text=text))
    drain(engine)
    assert (first.cached_tokens, again.cached_tokens) == (0, 96)
    assert again.first_token_s == pytest.approx(10.0 + 0.01 + 0.004)


def test_the_last_prompt_token_is_always_computed() -> None:
    engine = Engine(CONFIG)
    for now_s in (0.0, 5.0):
        sequence = engine.submit(now_s, work(64, 1, text="y" * 256))
        drain(engine)
    assert sequence.cached_tokens == 48


def test_an_answer_is_cached_for_the_next_turn() -> None:
    engine = Engine(CONFIG)
    turn = "p" * 256 + "a" * 256
    engine.submit(0.0, Work(64, 64, chain_hashes(turn.encode(), 16), 4))
    drain(engine)
    following = engine.submit(9.0, work(160, 1, text=turn + "q" * 128))
    drain(engine)
    assert following.cached_tokens == 112  # 128 less the block whose last token was never computed


def test_an_aborted_sequence_frees_its_slot_and_blocks() -> None:
    engine = Engine(
        EngineConfig(max_num_seqs=1, decode_step_s=0.01, decode_step_per_seq_s=0.0, prefill_tokens_per_s=1e9)
    )
    first = engine.submit(0.0, work(prompt=160, output=1000))
    second = engine.submit(0.0, work(prompt=16, output=2))
    engine.advance(0.055)
    engine.abort(first)
    assert engine.blocks.held == 0
    drain(engine)
    assert first.generated == 5
    assert second.last_token_s == pytest.approx(0.08, abs=2e-4)
    engine.abort(second)


def test_a_sequence_without_room_is_preempted_and_finishes_later() -> None:
    engine = Engine(EngineConfig(num_blocks=10, prefill_tokens_per_s=1e9, decode_step_s=0.01))
    both = [engine.submit(0.0, work(prompt=64, output=60)) for _ in range(2)]
    drain(engine)
    assert [s.generated for s in both] == [60, 60]
    assert both[0].last_token_s is not None
    assert both[1].last_token_s is not None
    assert both[1].last_token_s > both[0].last_token_s + 0.1
    assert engine.blocks.held == 0


@pytest.mark.parametrize(("prompt", "output"), [(0, 1), (1, 0), (100_000, 200_000)])
def test_work_that_cannot_be_done_is_refused(prompt: int, output: int) -> None:
    with pytest.raises(ValueError):
        Engine(CONFIG).submit(0.0, Work(prompt, output))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.integers(1, 60), st.floats(0, 0.05), st.booleans(), st.integers(0, 3)),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 6),
)
def test_everything_submitted_ends_with_all_its_tokens(
    jobs: list[tuple[int, int, float, bool, int]], max_num_seqs: int
) -> None:
    engine = Engine(EngineConfig(max_num_seqs=max_num_seqs, num_blocks=20, decode_step_s=0.01, max_batched_tokens=64))
    now_s = 0.0
    told: dict[SequenceState, int] = {}
    sequences = []

    def take(until_s: float) -> None:
        for progress in engine.advance(until_s):
            told[progress.sequence] = told.get(progress.sequence, 0) + progress.tokens

    for prompt, output, gap_s, watched, text in jobs:
        now_s += gap_s
        take(now_s)
        sequences.append(engine.submit(now_s, work(prompt, output, watched=watched, text=f"{text}" * prompt * 4)))
        assert engine.blocks.held <= engine.blocks.size
    while (next_s := engine.next_event_s) is not None:
        assert next_s >= now_s - 1e-9
        now_s = max(now_s, next_s)
        take(next_s)
    assert [told[s] for s in sequences] == [s.work.output_tokens for s in sequences]
    assert all(s.first_token_s is not None and s.first_token_s >= s.arrived_s for s in sequences)
    assert (engine.blocks.held, engine.running, len(engine.waiting)) == (0, [], 0)
