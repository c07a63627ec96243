# SPDX-License-Identifier: Apache-2.0
"""Parameters of every era: names, defaults, ranges, and the index they ask for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from epp.api import ConfigError
from epp.prefix.parameters import IndexSettings, ProducerParameters, ScorerParameters


def producer(**given: Any) -> IndexSettings:
    return msgspec.convert(given, ProducerParameters).settings()


def scorer(**given: Any) -> ScorerParameters:
    return msgspec.convert(given, ScorerParameters)


@pytest.mark.parametrize(
    ("given", "asked_bytes", "block_bytes"),
    [
        ({}, 64, 256),
        ({"blockSizeTokens": 64}, 256, 256),
        ({"blockSizeTokens": 128}, 512, 512),
        ({"blockSize": 100}, 400, 400),
        ({"blockSize": 100, "blockSizeTokens": 80}, 320, 320),
        ({"blockSize": 5}, 20, 256),
        ({"blockSizeTokens": 0}, 0, 256),
    ],
)
def test_producer_blocks(given: dict[str, int], asked_bytes: int, block_bytes: int) -> None:
    settings = producer(**given)
    assert settings.block_bytes == asked_bytes
    assert settings.effective_block_bytes(settings.block_bytes) == block_bytes
    assert not settings.whole_blocks_only


@pytest.mark.parametrize(
    ("given", "max_blocks"),
    [
        ({}, 2048),
        ({"maxPrefixTokensToMatch": 1000}, 15),
        ({"maxPrefixTokensToMatch": 63}, 0),
        ({"maxPrefixTokensToMatch": 0}, 2048),
        ({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 7}, 7),
        ({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 0}, None),
        ({"maxPrefixBlocksToMatch": 7}, 2048),
    ],
)
def test_producer_limits(given: dict[str, int], max_blocks: int | None) -> None:
    assert producer(**given).max_blocks(256) == max_blocks


@pytest.mark.parametrize(("given", "capacity"), [({}, 31250), ({"lruCapacityPerServer": 7}, 7)])
def test_capacity(given: dict[str, int], capacity: int) -> None:
    assert producer(**given).capacity_blocks == capacity
    assert producer(lruCapacityPerServer=0).capacity_blocks == 31250
    assert scorer(**given).settings().capacity_blocks == capacity
    assert scorer(lruCapacityPerServer=-1).settings().capacity_blocks == 31250


def test_producer_refuses() -> None:
    with pytest.raises(msgspec.ValidationError, match=r">= 0.*maxPrefixTokensToMatch"):
        producer(maxPrefixTokensToMatch=-1)
    with pytest.raises(ConfigError, match=r"blockSizeTokens: 0 .*allowed: 1 and above, or set autoTune: true"):
        producer(blockSizeTokens=0, autoTune=False)


@pytest.mark.parametrize(
    ("given", "block_bytes", "max_blocks"),
    [
        ({"hashBlockSize": 5}, 5, 256),
        ({"hashBlockSize": 64, "maxPrefixBlocksToMatch": 256, "lruCapacityPerServer": 31250}, 64, 256),
        ({"lruCapacityPerServer": 10}, 64, 256),
        ({"blockSize": 100, "maxPrefixBlocksToMatch": 3}, 100, 3),
        ({"maxPrefixBlocksToMatch": 0}, 64, None),
        ({"blockSizeTokens": 16}, 64, 256),
        ({"blockSizeTokens": 32, "blockSize": 5, "hashBlockSize": 6}, 128, 256),
        ({"blockSizeTokens": 16, "maxPrefixTokensToMatch": 1000}, 64, 62),
        ({"blockSizeTokens": 16, "maxPrefixTokensToMatch": 0}, 64, 256),
        ({"autoTune": True}, 64, 256),
    ],
)
def test_scorer_with_an_index_of_its_own(given: dict[str, Any], block_bytes: int, max_blocks: int | None) -> None:
    parameters = scorer(**given)
    assert parameters.owns_index
    settings = parameters.settings()
    assert settings.effective_block_bytes(settings.block_bytes) == block_bytes
    assert settings.max_blocks(block_bytes) == max_blocks
    assert settings.whole_blocks_only
    assert settings.auto_tune == given.get("autoTune", False)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"mode": "estimate"},
        {"prefixMatchInfoProducerName": "other", "matchLengthWeight": 0.5, "matchLengthScaleTokens": 100},
        {"indexerConfig": {"tokenizersPoolConfig": {}}, "kvEventsConfig": {"zmqEndpoint": "tcp://*:5557"}},
    ],
)
def test_scorer_that_reads_a_producer(given: dict[str, Any]) -> None:
    assert not scorer(**given).owns_index


@pytest.mark.parametrize(
    "given",
    [
        {"hashBlockSize": 0},
        {"blockSize": 0},
        {"blockSizeTokens": -1},
        {"maxPrefixBlocksToMatch": -1},
        {"matchLengthWeight": 1.1},
        {"matchLengthWeight": -0.1},
        {"matchLengthScaleTokens": 0},
        {"mode": "precise"},
    ],
)
def test_scorer_refuses_what_is_out_of_range(given: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError, match=next(iter(given))):
        scorer(**given)


def test_scorer_names_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"mode: 'cache_tracking' is not available.*remove mode"):
        scorer(mode="cache_tracking", indexerConfig={})
    with pytest.raises(ConfigError, match=r"'p1' asks for another.*hashBlockSize for one.*give one or the other"):
        scorer(prefixMatchInfoProducerName="p1", hashBlockSize=5)
