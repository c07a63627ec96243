# SPDX-License-Identifier: Apache-2.0
"""The plugins on a small pool: what is published, recorded, taken back, forgotten and scored."""

from __future__ import annotations

import inspect
import random
import struct
from typing import Any

import numpy as np
import pytest

from epp.api import (
    PREFIX_MATCH,
    Cause,
    Columns,
    Completion,
    DataKey,
    Decision,
    DoneHook,
    Endpoint,
    EndpointHook,
    Endpoints,
    InferenceRequest,
    PluginContext,
    PrefixMatch,
    Producer,
    ProfileResult,
    Reads,
    RoutedHook,
    Scorer,
)
from epp.contract.plugins import Kind, spec_of
from epp.prefix.plugin import ApproxPrefixCacheProducer, PrefixCacheScorer
from epp.prefix.tracker import MAX_PROMPTS


def context(name: str) -> PluginContext:
    return PluginContext(name, lambda: 0.0, random.Random(1))


def producer(name: str = "approx-prefix-cache-producer", **given: Any) -> ApproxPrefixCacheProducer:
    return ApproxPrefixCacheProducer(ApproxPrefixCacheProducer.Parameters(**given), context(name))


def scorer(name: str = "prefix-cache-scorer", **given: Any) -> PrefixCacheScorer:
    return PrefixCacheScorer(PrefixCacheScorer.Parameters(**given), context(name))


def pool(count: int = 4) -> Endpoints:
    columns = Columns(count + 2)
    endpoints = [Endpoint("ns", f"pod-{row}", "10.0.0.1", 8000 + row, row=row) for row in range(count)]
    columns.replace_endpoints((*endpoints, None, None))
    return Endpoints(columns, np.arange(count), 0.0)


def tokens(count: int, start: int = 0) -> bytes:
    return struct.pack(f"<{count}I", *range(start, start + count))


def request(*prompts: bytes, model: str = "m", **given: Any) -> InferenceRequest:
    return InferenceRequest("r", {}, model=model, target_model=model, prompts=prompts, **given)


def result(endpoints: Endpoints, row: int, profile: str) -> ProfileResult:
    position = endpoints.rows.tolist().index(row)
    return ProfileResult(profile, endpoints, (), (), np.zeros(len(endpoints)), (position,))


def decision(endpoints: Endpoints, row: int, **others: int) -> Decision:
    results = {"default": result(endpoints, row, "default")}
    results |= {name: result(endpoints, other, name) for name, other in others.items()}
    return Decision("r", "m", "m", "default", results, len(endpoints), 0.0)


def done(reached: bool) -> Completion:
    cause = Cause.COMPLETE if reached else Cause.CLIENT_GONE
    return Completion(cause, reached, 200 if reached else None, None, 0.1, None, 0)


def matched(plugin: Any, endpoints: Endpoints, asked: InferenceRequest) -> list[int]:
    plugin.produce(asked, endpoints)
    return endpoints.take(match_of(plugin, asked).matched_blocks).tolist()


def match_of(plugin: Any, asked: InferenceRequest) -> PrefixMatch:
    match = asked.get(plugin.tracker.key)
    assert match is not None
    return match


def send(plugin: Any, endpoints: Endpoints, asked: InferenceRequest, row: int, **others: int) -> None:
    plugin.produce(asked, endpoints)
    plugin.on_routed(asked, decision(endpoints, row, **others))


def test_tags() -> None:
    made = spec_of(ApproxPrefixCacheProducer)
    assert made is not None
    assert (made.type, made.kinds) == ("approx-prefix-cache-producer", {Kind.PRODUCER})
    made = spec_of(PrefixCacheScorer)
    assert made is not None
    assert (made.type, made.kinds) == ("prefix-cache-scorer", {Kind.SCORER, Kind.PRODUCER})
    for plugin in (producer(), scorer()):
        for protocol in (Producer, RoutedHook, DoneHook, EndpointHook):
            assert isinstance(plugin, protocol)
    assert isinstance(scorer(), Scorer)


@pytest.mark.parametrize("plugin", [ApproxPrefixCacheProducer, PrefixCacheScorer])
def test_docstrings_say_everything_in_order(plugin: type) -> None:
    spec = spec_of(plugin)
    assert spec is not None
    doc = inspect.cleandoc(spec.doc)
    places = [doc.index(f"\n{part}:") for part in ("Formula", "Range", "Reads", "Cost", "Without data", "Origin")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("plugin", "given", "reads"),
    [
        (ApproxPrefixCacheProducer, {}, Reads.PROMPT | Reads.CACHE_CONFIG),
        (ApproxPrefixCacheProducer, {"autoTune": False}, Reads.PROMPT),
        (PrefixCacheScorer, {}, Reads.PREFIX_MATCH),
        (PrefixCacheScorer, {"hashBlockSize": 5}, Reads.PROMPT),
        (PrefixCacheScorer, {"autoTune": True}, Reads.PROMPT | Reads.CACHE_CONFIG),
    ],
)
def test_what_instances_read(plugin: Any, given: dict[str, Any], reads: Reads) -> None:
    assert plugin.reads_for(plugin.Parameters(**given)) == reads


def test_a_routed_prompt_is_found_again() -> None:
    plugin, endpoints = producer(), pool()
    first = request(tokens(200))
    assert matched(plugin, endpoints, first) == [0, 0, 0, 0]
    plugin.on_routed(first, decision(endpoints, 2))
    assert matched(plugin, endpoints, request(tokens(200))) == [0, 0, 4, 0]
    # Three whole blocks are shared; the fourth was shorter.
    again = request(tokens(300))
    assert matched(plugin, endpoints, again) == [0, 0, 3, 0]
    match = match_of(plugin, again)
    assert (match.total_blocks, match.block_size_tokens) == (5, 64)
    assert match.matched_blocks.shape == (endpoints.columns.capacity,)
    assert again.get(PREFIX_MATCH) is match


def test_only_candidates_are_matched_and_by_row() -> None:
    plugin, endpoints = producer(), pool()
    for row in range(4):
        send(plugin, endpoints, request(tokens(64 * (row + 1))), row)
    some = Endpoints(endpoints.columns, np.array([3, 1]), 0.0)
    asked = request(tokens(64 * 3))
    assert matched(plugin, some, asked) == [3, 2]
    assert match_of(plugin, asked).matched_blocks.tolist() == [0, 2, 0, 3, 0, 0]


def test_model_and_salt_keep_apart() -> None:
    plugin, endpoints = producer(), pool(1)
    send(plugin, endpoints, request(tokens(64)), 0)
    assert matched(plugin, endpoints, request(tokens(64), model="adapter")) == [0]
    assert matched(plugin, endpoints, request(tokens(64), cache_salt="s")) == [0]
    assert matched(plugin, endpoints, request(tokens(64))) == [1]


def test_the_rewritten_model_counts() -> None:
    plugin, endpoints = producer(), pool(1)
    asked = InferenceRequest("r", {}, model="alias", target_model="m", prompts=(tokens(64),))
    send(plugin, endpoints, asked, 0)
    assert matched(plugin, endpoints, request(tokens(64))) == [1]


def test_prompts_are_summed_and_each_recorded() -> None:
    plugin, endpoints = producer(), pool(2)
    send(plugin, endpoints, request(tokens(128), tokens(64, 1000)), 1)
    asked = request(tokens(128), tokens(192, 1000), b"")
    assert matched(plugin, endpoints, asked) == [0, 3]
    assert match_of(plugin, asked).total_blocks == 5


def test_a_batch_of_thousands_is_matched_by_its_first_prompts() -> None:
    plugin, endpoints = producer(), pool(1)
    asked = request(*[tokens(64, i) for i in range(3 * MAX_PROMPTS)])
    plugin.produce(asked, endpoints)
    assert match_of(plugin, asked).total_blocks == MAX_PROMPTS


@pytest.mark.parametrize("prompts", [(), (b"",), (b"", b"")])
def test_without_a_prompt_total_is_zero(prompts: tuple[bytes, ...]) -> None:
    plugin, endpoints = producer(), pool()
    asked = request(*prompts)
    send(plugin, endpoints, asked, 0)
    assert match_of(plugin, asked).total_blocks == 0
    assert scorer().score(asked, endpoints).tolist() == [0, 0, 0, 0]
    plugin.on_done(asked, decision(endpoints, 0), done(False))


def test_without_candidates() -> None:
    plugin, endpoints = producer(), pool()
    nobody = endpoints.where(np.zeros(4, np.bool_))
    asked = request(tokens(64))
    assert matched(plugin, nobody, asked) == []
    assert scorer().score(asked, nobody).shape == (0,)


def test_a_cap_below_one_block_hashes_nothing() -> None:
    plugin, endpoints = producer(maxPrefixTokensToMatch=63), pool()
    asked = request(tokens(640))
    plugin.produce(asked, endpoints)
    assert match_of(plugin, asked).total_blocks == 0


def test_prefill_target_is_recorded_other_profiles_are_not() -> None:
    plugin, endpoints = producer(), pool()
    send(plugin, endpoints, request(tokens(64)), 0, prefill=2, encode=3)
    assert matched(plugin, endpoints, request(tokens(64))) == [1, 0, 1, 0]


def test_primary_called_prefill_is_recorded_once() -> None:
    plugin, endpoints = producer(), pool()
    asked = request(tokens(64))
    plugin.produce(asked, endpoints)
    results = {"prefill": result(endpoints, 1, "prefill")}
    plugin.on_routed(asked, Decision("r", "m", "m", "prefill", results, 4, 0.0))
    plugin.on_done(asked, decision(endpoints, 1), done(False))
    assert plugin.tracker.index.blocks(1) == 0


def test_undelivered_requests_leave_no_trace() -> None:
    plugin, endpoints = producer(), pool()
    send(plugin, endpoints, request(tokens(128)), 0)
    lost = request(tokens(640))
    send(plugin, endpoints, lost, 0, prefill=1)
    assert matched(plugin, endpoints, request(tokens(640))) == [10, 10, 0, 0]
    plugin.on_done(lost, decision(endpoints, 0), done(False))
    assert matched(plugin, endpoints, request(tokens(640))) == [2, 0, 0, 0]
    plugin.on_done(lost, decision(endpoints, 0), done(False))
    assert len(plugin.tracker.index) == 2


def test_delivered_requests_stay() -> None:
    plugin, endpoints = producer(), pool()
    asked = request(tokens(64))
    send(plugin, endpoints, asked, 0)
    plugin.on_done(asked, decision(endpoints, 0), done(True))
    assert matched(plugin, endpoints, request(tokens(64))) == [1, 0, 0, 0]


def test_hooks_without_produce_do_nothing() -> None:
    plugin, endpoints = producer(), pool()
    asked = request(tokens(64))
    plugin.on_routed(asked, decision(endpoints, 0))
    plugin.on_done(asked, decision(endpoints, 0), done(False))
    assert len(plugin.tracker.index) == 0


def test_removed_endpoints_are_forgotten_and_their_row_starts_empty() -> None:
    plugin, endpoints = producer(), pool()
    old = Endpoint("ns", "old", "10.0.0.1", 1, row=1, generation=1)
    new = Endpoint("ns", "new", "10.0.0.2", 1, row=1, generation=2)
    plugin.on_endpoint_added(old)
    endpoints.columns.replace_endpoints((endpoints[0], old, *endpoints.identities[2:]))
    before = Endpoints(endpoints.columns, np.arange(4), 0.0)
    waiting = request(tokens(64))
    lost = request(tokens(128))
    plugin.produce(waiting, before)
    send(plugin, before, lost, 1)
    plugin.on_endpoint_removed(old)
    assert matched(plugin, before, request(tokens(64))) == [0, 0, 0, 0]

    # Chosen from what was known before the removal: nothing is recorded, with or without a successor.
    plugin.on_routed(waiting, decision(before, 1))
    plugin.on_endpoint_added(new)
    plugin.produce(waiting, before)
    plugin.on_routed(waiting, decision(before, 1))
    assert len(plugin.tracker.index) == 0

    endpoints.columns.replace_endpoints((endpoints[0], new, *endpoints.identities[2:]))
    after = Endpoints(endpoints.columns, np.arange(4), 0.0)
    send(plugin, after, request(tokens(128)), 1)
    plugin.on_done(lost, decision(before, 1), done(False))
    plugin.on_endpoint_removed(old)
    assert matched(plugin, after, request(tokens(128))) == [0, 2, 0, 0]


@pytest.mark.parametrize(
    ("first_candidate", "auto_tune", "block_tokens"),
    [(16, True, 64), (128, True, 128), (128, False, 64), (0, True, 64), (float("nan"), True, 64), (np.inf, True, 64)],
)
def test_block_size_of_the_first_candidate(first_candidate: float, auto_tune: bool, block_tokens: int) -> None:
    plugin, endpoints = producer(autoTune=auto_tune), pool()
    endpoints.columns.block_size_tokens[:] = [first_candidate, 256, 256, 256, 0, 0]
    asked = request(tokens(256))
    plugin.produce(asked, endpoints)
    assert match_of(plugin, asked).block_size_tokens == block_tokens


def test_a_block_size_once_known_stays_while_a_candidate_is_not_scraped() -> None:
    plugin, endpoints = producer(), pool()
    endpoints.columns.block_size_tokens[1] = 128
    asked = request(tokens(256))
    plugin.produce(asked, Endpoints(endpoints.columns, np.array([1, 0]), 0.0))
    plugin.produce(asked, Endpoints(endpoints.columns, np.array([0, 1]), 0.0))
    assert match_of(plugin, asked).block_size_tokens == 128


@pytest.mark.parametrize(
    ("num_blocks", "block_size", "auto_tune", "capacity"),
    [
        (1000, 16, True, 250),
        (1000, 128, True, 1000),
        (0, 16, True, 500),
        (1000, 16, False, 500),
        (1, 16, True, 1),
        (1e12, 1e12, True, 1 << 20),
        (np.inf, 16, True, 500),
    ],
)
def test_capacity_of_the_endpoint(num_blocks: float, block_size: float, auto_tune: bool, capacity: int) -> None:
    plugin, endpoints = producer(autoTune=auto_tune, lruCapacityPerServer=500), pool()
    if block_size == 128:
        endpoints.columns.block_size_tokens[0] = 128
    endpoints.columns.num_blocks[2] = num_blocks
    endpoints.columns.block_size_tokens[2] = block_size
    send(plugin, endpoints, request(tokens(64)), 2)
    assert plugin.tracker.index.capacity(2) == capacity
    assert plugin.tracker.index.capacity(1) == 500


def scored(plugin: PrefixCacheScorer, total: int, block_tokens: float, held: list[int], key: Any = PREFIX_MATCH) -> Any:
    endpoints = pool(len(held))
    asked = request()
    asked.publish(key, PrefixMatch(np.array([*held, 0, 0]), total, block_tokens))
    return plugin.score(asked, endpoints).tolist()


@pytest.mark.parametrize(
    ("weight", "scale", "total", "block_tokens", "held", "expected"),
    [
        (0.0, 8192, 10, 64, [0, 5, 10], [0.0, 0.5, 1.0]),
        (1.0, 8192, 200, 64, [0, 64, 128, 200], [0.0, 0.25, 1.0, 1.0]),
        (0.5, 8192, 128, 64, [64, 128], [0.5 * 0.25 + 0.5 * 0.5, 1.0]),
        (0.25, 1000, 100, 2.5, [100], [0.25 * 0.0625 + 0.75]),
        (0.5, 8192, 0, 64, [0, 0], [0.0, 0.0]),
        (0.0, 8192, 0, 64, [0, 0], [0.0, 0.0]),
    ],
)
def test_score(weight: float, scale: float, total: int, block_tokens: float, held: list[int], expected: Any) -> None:
    plugin = scorer(matchLengthWeight=weight, matchLengthScaleTokens=scale)
    assert scored(plugin, total, block_tokens, held) == pytest.approx(expected)


def test_score_without_a_match_is_zero() -> None:
    assert scorer().score(request(tokens(64)), pool(3)).tolist() == [0, 0, 0]


def test_score_reads_the_named_producer() -> None:
    key: DataKey[PrefixMatch] = DataKey(PREFIX_MATCH.name, "p1")
    named = scorer(prefixMatchInfoProducerName="p1")
    assert scored(named, 4, 64, [1, 3], key) == [0.25, 0.75]
    assert scored(named, 4, 64, [1, 3]) == [0, 0]


def test_scorer_without_an_index_publishes_nothing() -> None:
    plugin, endpoints = scorer(), pool()
    asked = request(tokens(64))
    assert plugin.produce(asked, endpoints) is None
    plugin.on_routed(asked, decision(endpoints, 0))
    plugin.on_done(asked, decision(endpoints, 0), done(False))
    plugin.on_endpoint_added(endpoints[0])
    plugin.on_endpoint_removed(endpoints[0])
    assert not asked.data


def test_scorer_with_blocks_of_bytes() -> None:
    plugin, endpoints = scorer(hashBlockSize=5), pool()
    send(plugin, endpoints, request(b"hello world, hello".ljust(20, b"\0")), 1)
    asked = request(b"hello world\0")
    plugin.produce(asked, endpoints)
    # Eleven bytes are two blocks of five; the padding of the last token is no text.
    assert plugin.score(asked, endpoints).tolist() == [0, 1, 0, 0]
    match = match_of(plugin, asked)
    assert (match.total_blocks, match.block_size_tokens) == (2, 1.25)
    assert asked.get(PREFIX_MATCH) is None
    other = request(b"hello there you\0")
    plugin.produce(other, endpoints)
    assert plugin.score(other, endpoints).tolist() == pytest.approx([0, 1 / 3, 0, 0])


@pytest.mark.parametrize(("text", "blocks"), [(b"", 0), (b"abcd", 0), (b"abcde", 1), (b"a" * 9, 1), (b"a" * 10, 2)])
def test_padding_makes_no_block_of_bytes(text: bytes, blocks: int) -> None:
    plugin, endpoints = scorer(hashBlockSize=5), pool()
    asked = request(text + b"\0" * (-len(text) % 4))
    plugin.produce(asked, endpoints)
    assert match_of(plugin, asked).total_blocks == blocks


def test_zeros_beyond_one_token_are_no_padding() -> None:
    plugin, endpoints = scorer(hashBlockSize=5), pool()
    asked = request(b"abcde" + b"\0" * 11)
    plugin.produce(asked, endpoints)
    assert match_of(plugin, asked).total_blocks == 2


def test_scorer_with_an_index_forgets_and_takes_back() -> None:
    plugin, endpoints = scorer(hashBlockSize=64, maxPrefixBlocksToMatch=3, lruCapacityPerServer=100), pool()
    lost = request(tokens(160))
    send(plugin, endpoints, lost, 0)
    assert matched(plugin, endpoints, request(tokens(160))) == [3, 0, 0, 0]
    plugin.on_done(lost, decision(endpoints, 0), done(False))
    assert matched(plugin, endpoints, request(tokens(160))) == [0, 0, 0, 0]
    send(plugin, endpoints, request(tokens(160)), 0)
    plugin.on_endpoint_removed(endpoints[0])
    assert matched(plugin, endpoints, request(tokens(160))) == [0, 0, 0, 0]


def test_scorer_tuned_by_the_cache_configuration() -> None:
    plugin, endpoints = scorer(autoTune=True), pool()
    endpoints.columns.block_size_tokens[:] = 16
    endpoints.columns.num_blocks[:] = 500
    send(plugin, endpoints, request(tokens(40)), 3)
    assert matched(plugin, endpoints, request(tokens(40))) == [0, 0, 0, 2]
    assert plugin.tracker is not None
    assert plugin.tracker.index.capacity(3) == 500


def test_a_block_size_below_one_token_is_not_taken() -> None:
    plugin, endpoints = scorer(autoTune=True), pool()
    assert plugin.tracker is not None
    before = plugin.tracker.block_bytes
    endpoints.columns.block_size_tokens[:] = 0.5
    matched(plugin, endpoints, request(tokens(40)))
    assert plugin.tracker.block_bytes == before


def test_a_burst_of_equal_prompts_finds_the_first_one() -> None:
    plugin, endpoints = producer(), pool()
    for _ in range(3):
        asked = request(tokens(640))
        best = int(np.argmax(matched(plugin, endpoints, asked)))
        plugin.on_routed(asked, decision(endpoints, best))
    assert matched(plugin, endpoints, request(tokens(640))) == [10, 0, 0, 0]
