# SPDX-License-Identifier: Apache-2.0
"""Parameters of the prefix plugins, of every era, and what an index is set to because of them.

Field names are the names in configurations. Blocks were counted in bytes of prompt text once (a shorter last block
did not count, and any size was taken as given), in tokens later (it counts, and 64 tokens are the smallest block).
Four bytes of text stand for one token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from epp.api import ConfigError

TOKEN_BYTES = 4
MIN_BLOCK_TOKENS = 64
DEFAULT_CAPACITY_BLOCKS = 31_250

_DEFAULT_BLOCK_TOKENS = 16
_BYTE_ERA_BLOCK_BYTES = 64
_BYTE_ERA_MAX_BLOCKS = 256

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What an index and its chains are made of.

    * block_bytes: bytes of prompt stream per block; min_block_bytes: smaller ones become this
    * whole_blocks_only: a shorter last block does not count
    * max_prefix_bytes: how much of a prompt counts, 0 leaves it to max_prefix_blocks (0: all of it)
    * capacity_blocks: per endpoint; auto_tune: take block size and capacity from the endpoints' cache configuration
    """

    block_bytes: int
    min_block_bytes: int
    whole_blocks_only: bool
    max_prefix_bytes: int
    max_prefix_blocks: int
    capacity_blocks: int
    auto_tune: bool

    def effective_block_bytes(self, block_bytes: int) -> int:
        """The block size in use when `block_bytes` are asked for."""
        return max(block_bytes, self.min_block_bytes)

    def max_blocks(self, block_bytes: int) -> int | None:
        """Blocks of a prompt that count, None for all of them."""
        if self.max_prefix_bytes:
            return self.max_prefix_bytes // block_bytes
        return self.max_prefix_blocks or None


@dataclass(frozen=True, slots=True)
class ProducerParameters:
    """* autoTune: take the block size of the first candidate and each endpoint's capacity from its cache configuration
    * blockSizeTokens: tokens per block; less than 64 means 64
    * blockSize: deprecated, used when blockSizeTokens is not given
    * maxPrefixTokensToMatch: tokens of a prompt that count; 0 leaves it to maxPrefixBlocksToMatch
    * maxPrefixBlocksToMatch: deprecated; blocks of a prompt that count, 0 for all
    * lruCapacityPerServer: blocks kept per endpoint; 0 and less mean 31250
    """

    autoTune: bool = True
    blockSizeTokens: int = _DEFAULT_BLOCK_TOKENS
    blockSize: NotNegative = 0
    maxPrefixTokensToMatch: NotNegative = 131_072
    maxPrefixBlocksToMatch: NotNegative = 2048
    lruCapacityPerServer: int = DEFAULT_CAPACITY_BLOCKS

    def __post_init__(self) -> None:
        if self.blockSizeTokens <= 0 and not self.autoTune:
            raise ConfigError(
                f"blockSizeTokens: {self.blockSizeTokens} is not in range; allowed: 1 and above, or set autoTune: true"
            )

    def settings(self) -> IndexSettings:
        """The index these parameters ask for."""
        tokens = self.blockSizeTokens
        if self.blockSize and tokens == _DEFAULT_BLOCK_TOKENS:
            tokens = self.blockSize
        return IndexSettings(
            block_bytes=tokens * TOKEN_BYTES,
            min_block_bytes=MIN_BLOCK_TOKENS * TOKEN_BYTES,
            whole_blocks_only=False,
            max_prefix_bytes=self.maxPrefixTokensToMatch * TOKEN_BYTES,
            max_prefix_blocks=self.maxPrefixBlocksToMatch,
            capacity_blocks=_capacity(self.lruCapacityPerServer),
            auto_tune=self.autoTune,
        )


@dataclass(frozen=True, slots=True)
class ScorerParameters:
    """* prefixMatchInfoProducerName: whose match to read; empty means approx-prefix-cache-producer
    * matchLengthWeight: 0..1, how much the matched length counts against the matched share
    * matchLengthScaleTokens: the matched length that scores 1

    Of earlier releases, where the scorer had an index of its own; any of these gives it one again:

    * hashBlockSize, blockSize: bytes per block, 64 when not given; blockSizeTokens: the same in tokens
    * maxPrefixBlocksToMatch: blocks of a prompt that count, 256 when not given, 0 for all
    * maxPrefixTokensToMatch: the same in tokens; 0 leaves it to maxPrefixBlocksToMatch
    * lruCapacityPerServer: blocks kept per endpoint; 0 and less mean 31250
    * autoTune: take block size and capacity from the endpoints' cache configuration

    And `mode`: only "estimate" is available. indexerConfig and kvEventsConfig belong to the other mode; ignored.
    """

    prefixMatchInfoProducerName: str = ""
    matchLengthWeight: Annotated[float, Meta(ge=0, le=1)] = 0.0
    matchLengthScaleTokens: Annotated[float, Meta(gt=0)] = 8192
    hashBlockSize: Positive | None = None
    blockSize: Positive | None = None
    blockSizeTokens: Positive | None = None
    maxPrefixBlocksToMatch: NotNegative | None = None
    maxPrefixTokensToMatch: NotNegative | None = None
    lruCapacityPerServer: int | None = None
    autoTune: bool | None = None
    mode: Literal["estimate", "cache_tracking"] = "estimate"
    indexerConfig: dict[str, Any] | None = None
    kvEventsConfig: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mode == "cache_tracking":
            raise ConfigError(
                "mode: 'cache_tracking' is not available in this version, which has no precise index; "
                "allowed: 'estimate', so remove mode to use the approximate index"
            )
        if self.owns_index and self.prefixMatchInfoProducerName:
            raise ConfigError(
                f"prefixMatchInfoProducerName: '{self.prefixMatchInfoProducerName}' asks for another plugin's index, "
                f"{', '.join(self._given())} for one of this plugin's own; give one or the other"
            )

    @property
    def owns_index(self) -> bool:
        """Whether any parameter describes an index, which the scorer then has for itself."""
        return bool(self._given())

    def settings(self) -> IndexSettings:
        """The index these parameters ask for, when `owns_index`."""
        block_bytes = self.blockSize or self.hashBlockSize or _BYTE_ERA_BLOCK_BYTES
        if self.blockSizeTokens:
            block_bytes = self.blockSizeTokens * TOKEN_BYTES
        max_blocks = self.maxPrefixBlocksToMatch
        return IndexSettings(
            block_bytes=block_bytes,
            min_block_bytes=1,
            whole_blocks_only=True,
            max_prefix_bytes=(self.maxPrefixTokensToMatch or 0) * TOKEN_BYTES,
            max_prefix_blocks=_BYTE_ERA_MAX_BLOCKS if max_blocks is None else max_blocks,
            capacity_blocks=_capacity(self.lruCapacityPerServer or 0),
            auto_tune=bool(self.autoTune),
        )

    def _given(self) -> list[str]:
        return [name for name in _INDEX_NAMES if getattr(self, name) is not None]


_INDEX_NAMES = (
    "hashBlockSize",
    "blockSize",
    "blockSizeTokens",
    "maxPrefixBlocksToMatch",
    "maxPrefixTokensToMatch",
    "lruCapacityPerServer",
    "autoTune",
)


def _capacity(blocks: int) -> int:
    return blocks if blocks > 0 else DEFAULT_CAPACITY_BLOCKS
