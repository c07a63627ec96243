# SPDX-License-Identifier: Apache-2.0
"""A discrete model of a vLLM engine: continuous batching, a waiting queue, chunked prefill, KV blocks, prefix cache.

Problem: routing is only worth testing against engines that get slower with load and faster with cached prefixes.
The engine works in steps. A step computes up to `max_batched_tokens`: one token for every sequence that is decoding,
the rest for prompts in order of arrival. Its length is

    (decode_step_s + decode_step_per_seq_s * decoding + decode_step_per_context_token_s * their context
     + prompt_tokens / prefill_tokens_per_s) * slowdown * (1 +- jitter) / speed

and its tokens appear at its end. When blocks run out, the sequence admitted last is preempted and computed again.

Time is whatever the caller passes, in seconds; it must not go back. Nothing here reads a clock or sleeps, and
randomness is a parameter, so the same calls give the same result in real and in virtual time. Steps that only decode
are executed as one run of equal steps, with the context of its beginning and one draw of the jitter, so an engine
that nobody watches costs one call per finished sequence, not one per token.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from epp.local.sim.blocks import BlockPool


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How fast and how large an engine is. Times are for `speed` 1; twice the speed halves them.

    `jitter` is the share, 0 to below 1, by which a step may be shorter or longer than the formula says.
    """

    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    prefill_tokens_per_s: float = 20_000.0
    decode_step_s: float = 0.010
    decode_step_per_seq_s: float = 0.0001
    decode_step_per_context_token_s: float = 0.0
    block_size_tokens: int = 16
    num_blocks: int = 16_384
    speed: float = 1.0
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """One sequence to generate.

    `block_hashes` names the full blocks of prompt and output together; the first `prompt_blocks` of them are full
    with the prompt alone. `watched` asks for progress after every token instead of at the end.
    """

    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()
    prompt_blocks: int = 0
    watched: bool = False
    adapter: str = ""


@dataclass(slots=True, eq=False)
class SequenceState:
    """A sequence in the engine. Times are the caller's; None until it happened."""

    work: Work
    arrived_s: float
    admitted_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    generated: int = 0
    cached_tokens: int = 0
    computed: int = 0
    named: list[int] = field(default_factory=list)
    unnamed: int = 0

    @property
    def finished(self) -> bool:
        """All its tokens are there."""
        return self.generated >= self.work.output_tokens

    @property
    def context_tokens(self) -> int:
        """Prompt and what was generated so far: what a preempted sequence computes again."""
        return self.work.prompt_tokens + self.generated

    @property
    def decoding(self) -> bool:
        """Only the newest token is not computed yet."""
        return self.generated > 0 and self.computed == self.context_tokens - 1


@dataclass(frozen=True, slots=True)
class Progress:
    """`tokens` new tokens of one sequence since the last time it was reported."""

    sequence: SequenceState
    tokens: int
    finished: bool


class Observer(Protocol):
    """Told what happens inside, for metrics."""

    def on_step(self, tokens: int, count: int) -> None:
        """`count` equal steps ended, each of which computed `tokens`."""
        ...

    def on_admitted(self, sequence: SequenceState, queried_tokens: int, hit_tokens: int) -> None:
        """A sequence left the queue; the prefix cache was asked for `queried_tokens` and had `hit_tokens`."""
        ...

    def on_tokens(self, sequence: SequenceState, first_gap_s: float | None, count: int, step_s: float) -> None:
        """`count` tokens: `first_gap_s` after the last one (None: its first token), then `step_s` apart."""
        ...

    def on_preempted(self, sequence: SequenceState) -> None:
        """A sequence lost its blocks and went back to the head of the queue."""
        ...

    def on_finished(self, sequence: SequenceState, now_s: float) -> None:
        """A sequence has all its tokens."""
        ...


@dataclass(slots=True)
class _Step:
    """`count` equal steps in progress, of which `done` have ended. With prefill, `count` is 1."""

    start_s: float
    step_s: float
    count: int
    decode: list[SequenceState]
    prefill: list[tuple[SequenceState, int]]
    watched: bool
    done: int = 0

    @property
    def tokens(self) -> int:
        return len(self.decode) + sum(tokens for _, tokens in self.prefill)

    def ended_by(self, now_s: float) -> int:
        # The tolerance keeps a timer that fires a rounding error early from waiting a whole step more.
        return min(self.count, math.floor((now_s - self.start_s) / self.step_s + 1e-6))


class Engine:
    """One engine. Call `advance(now)` at or after `next_event_s`, and before reading anything. `rng` is drawn from
    only with jitter."""

    def __init__(
        self, config: EngineConfig, observer: Observer | None = None, rng: random.Random | None = None
    ) -> None:  # fmt: skip
        self.config = config
        self._rng = rng or random.Random(0)
        self.blocks = BlockPool(config.num_blocks)
        self.waiting: deque[SequenceState] = deque()
        self.running: list[SequenceState] = []
        self._observer = observer
        self._step: _Step | None = None
        self.slowdown = 1.0
        self.preemptions = 0

    @property
    def next_event_s(self) -> float | None:
        """When `advance` will next have something to report; None when idle."""
        step = self._step
        if step is None:
            return None
        return step.start_s + (step.done + 1 if step.watched else step.count) * step.step_s

    @property
    def max_context_tokens(self) -> int:
        """The longest sequence that fits: prompt and output."""
        return self.config.num_blocks * self.config.block_size_tokens

    def submit(self, now_s: float, work: Work) -> SequenceState:
        """Queue a sequence. It is admitted when the step in progress ends, at once when the engine is idle."""
        if work.prompt_tokens < 1 or work.output_tokens < 1:
            raise ValueError("a sequence has at least one prompt token and one output token")
        if work.prompt_tokens + work.output_tokens > self.max_context_tokens:
            raise ValueError(f"{work.prompt_tokens + work.output_tokens} tokens do not fit the cache")
        sequence = SequenceState(work, arrived_s=now_s)
        self.waiting.append(sequence)
        if self._step is None:
            self._begin(now_s)
        else:
            self._cut_short()
        return sequence

    def abort(self, sequence: SequenceState) -> None:
        """Forget a sequence; its blocks are free at once. Nothing happens when it has ended already."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        elif sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
            self._cut_short()

    def slow_down(self, factor: float) -> None:
        """Steps take `factor` times as long as the configuration says, from the next one on."""
        self.slowdown = factor
        self._cut_short()

    def advance(self, now_s: float) -> list[Progress]:
        """Do every step that has ended by `now_s`; one entry per sequence that got tokens, in order of admission."""
        tokens: dict[SequenceState, int] = {}
        while (step := self._step) is not None:
            ended = step.ended_by(now_s)
            if ended > step.done:
                self._apply(step, ended - step.done, tokens)
            if step.done < step.count:
                break
            self._begin(step.start_s + step.count * step.step_s)
        return [Progress(sequence, count, sequence.finished) for sequence, count in tokens.items()]

    def _cut_short(self) -> None:
        step = self._step
        if step is not None:
            step.count = min(step.count, step.done + 1)

    def _begin(self, now_s: float) -> None:
        """Plan what the engine does from `now_s` on."""
        self._admit(now_s)
        decode = [s for s in self.running if s.decoding]
        budget = max(1, self.config.max_batched_tokens - len(decode))
        prefill: list[tuple[SequenceState, int]] = []
        for sequence in self.running:
            if budget and not sequence.decoding:
                take = min(sequence.context_tokens - sequence.computed, budget)
                prefill.append((sequence, take))
                budget -= take
        if not prefill and not decode:
            self._step = None
            return
        count = 1 if prefill else min(s.work.output_tokens - s.generated for s in decode)
        count = self._grow(decode, count)
        decode = [s for s in decode if s.admitted_s is not None]
        prefill = [(s, n) for s, n in prefill if s.admitted_s is not None]
        self._step = _Step(
            now_s,
            self._step_s(decode, sum(n for _, n in prefill)),
            count,
            decode,
            prefill,
            any(s.work.watched for s in decode),
        )

    def _step_s(self, decode: list[SequenceState], prompt_tokens: int) -> float:
        config = self.config
        step_s = config.decode_step_s + config.decode_step_per_seq_s * len(decode)
        if config.decode_step_per_context_token_s:
            step_s += config.decode_step_per_context_token_s * sum(s.context_tokens for s in decode)
        step_s += prompt_tokens / config.prefill_tokens_per_s
        if config.jitter:
            step_s *= self._rng.uniform(1 - config.jitter, 1 + config.jitter)
        return step_s * self.slowdown / config.speed

    def _admit(self, now_s: float) -> None:
        """Move sequences from the queue into the batch, in order, while there is room."""
        size = self.config.block_size_tokens
        while self.waiting and len(self.running) < self.config.max_num_seqs:
            sequence = self.waiting[0]
            work = sequence.work
            # The last prompt token is always computed: its output is the first token.
            usable = work.block_hashes[: min(work.prompt_blocks, (work.prompt_tokens - 1) // size)]
            hits = list(usable[: self.blocks.match(usable)])
            self.blocks.hold(hits)
            needed = -(-sequence.context_tokens // size) - len(hits)
            if not self.blocks.take(needed):
                self.blocks.release(hits, 0)
                return
            self.waiting.popleft()
            self.running.append(sequence)
            sequence.named, sequence.unnamed = hits, needed
            sequence.computed = len(hits) * size
            if sequence.first_token_s is None:
                sequence.cached_tokens = sequence.computed
            sequence.admitted_s = now_s
            if self._observer is not None:
                self._observer.on_admitted(sequence, work.prompt_tokens, sequence.computed)

    def _grow(self, decode: list[SequenceState], count: int) -> int:
        """Take the blocks that `count` more tokens each need. Returns the count there is room for, at least 1."""
        size = self.config.block_size_tokens

        def missing(sequence: SequenceState, tokens: int) -> int:
            held = len(sequence.named) + sequence.unnamed
            return max(0, -(-(sequence.context_tokens + tokens) // size) - held)

        if sum(missing(s, count) for s in decode) > self.blocks.available:
            count = 1
        for sequence in decode:
            while sequence.admitted_s is not None and not self.blocks.take(missing(sequence, count)):
                self._preempt(self.running[-1])
            if sequence.admitted_s is not None:
                sequence.unnamed += missing(sequence, count)
        return count

    def _preempt(self, sequence: SequenceState) -> None:
        self.running.remove(sequence)
        self._release(sequence)
        sequence.admitted_s = None
        sequence.computed = 0
        self.waiting.appendleft(sequence)
        self.preemptions += 1
        if self._observer is not None:
            self._observer.on_preempted(sequence)

    def _apply(self, step: _Step, count: int, tokens: dict[SequenceState, int]) -> None:
        """Book the results of `count` steps that ended."""
        end_s = step.start_s + (step.done + count) * step.step_s
        first_end_s = step.start_s + (step.done + 1) * step.step_s
        step.done += count
        live = set(self.running)
        if self._observer is not None:
            self._observer.on_step(step.tokens, count)
        for sequence in step.decode:
            if sequence in live:
                sequence.computed += count
                self._emit(sequence, count, first_end_s, end_s, step.step_s, tokens)
        for sequence, computed in step.prefill:
            if sequence in live:
                sequence.computed += computed
                if sequence.computed == sequence.context_tokens:
                    self._name(sequence)
                    self._emit(sequence, 1, end_s, end_s, step.step_s, tokens)

    def _emit(
        self,
        sequence: SequenceState,
        count: int,
        first_end_s: float,
        end_s: float,
        step_s: float,
        tokens: dict[SequenceState, int],
    ) -> None:
        gap_s = None if sequence.last_token_s is None else first_end_s - sequence.last_token_s
        if sequence.first_token_s is None:
            sequence.first_token_s = first_end_s
        sequence.last_token_s = end_s
        sequence.generated += count
        tokens[sequence] = tokens.get(sequence, 0) + count
        if self._observer is not None:
            self._observer.on_tokens(sequence, gap_s, count, step_s)
        if sequence.finished:
            self.running.remove(sequence)
            self._release(sequence)
            if self._observer is not None:
                self._observer.on_finished(sequence, end_s)

    def _name(self, sequence: SequenceState) -> None:
        """Enter what is computed into the prefix cache. A block another sequence entered first stays unnamed here."""
        work = sequence.work
        full = work.prompt_blocks
        if sequence.generated:
            # The newest token's KV is computed by the next step.
            full = max(full, (sequence.context_tokens - 1) // self.config.block_size_tokens)
        for block in work.block_hashes[len(sequence.named) : full]:
            if sequence.unnamed == 0 or not self.blocks.name(block):
                return
            sequence.named.append(block)
            sequence.unnamed -= 1

    def _release(self, sequence: SequenceState) -> None:
        if sequence.generated:
            self._name(sequence)
        self.blocks.release(sequence.named, sequence.unnamed)
        sequence.named, sequence.unnamed = [], 0
