# SPDX-License-Identifier: Apache-2.0
"""The prefix plugins: the producer that follows where prompts went, and the scorer that likes what is cached."""

from __future__ import annotations

import numpy as np

from epp.api import (
    PREFIX_MATCH,
    Completion,
    DataKey,
    Decision,
    Endpoint,
    Endpoints,
    FloatArray,
    InferenceRequest,
    Kind,
    PluginContext,
    PrefixMatch,
    Reads,
    plugin,
)
from epp.prefix.parameters import IndexSettings, ProducerParameters, ScorerParameters
from epp.prefix.tracker import PrefixTracker


def _reads(settings: IndexSettings) -> Reads:
    return Reads.PROMPT | Reads.CACHE_CONFIG if settings.auto_tune else Reads.PROMPT


@plugin("approx-prefix-cache-producer", Kind.PRODUCER, reads=Reads.PROMPT | Reads.CACHE_CONFIG)
class ApproxPrefixCacheProducer:
    """Guesses which endpoints hold which part of a prompt, from where earlier prompts were sent.

    Formula: per endpoint, the leading blocks of the prompt that it was sent and has not forgotten. A block is
        max(64, block size) tokens, the last one may be shorter. Sent are the primary profile's first target, and
        that of a profile named prefill. An endpoint keeps lruCapacityPerServer blocks (with autoTune: as many tokens
        as its cache has) and forgets the least recently sent chains first, from their ends.
    Range: 0..blocks of the prompt, at most maxPrefixTokensToMatch tokens of each of the first 64 prompts.
    Reads: the prompt, the model and the cache salt; with autoTune the endpoints' cache configuration.
    Cost: one pass over the prompt; a search over all endpoints at once; 16 to 32 bytes per block and endpoint kept.
    Without data: no match anywhere; without a cache configuration, the configured block size and capacity.
    Origin: approx-prefix-cache-producer of the Go EPP, where an endpoint could be credited with blocks after a gap,
        forgot chains from their beginning, and kept what was never delivered.
    """

    Parameters = ProducerParameters

    def __init__(self, parameters: ProducerParameters, context: PluginContext) -> None:
        self.tracker = PrefixTracker(parameters.settings(), context.name)

    @classmethod
    def reads_for(cls, parameters: ProducerParameters) -> Reads:
        """What an instance with these parameters reads."""
        return _reads(parameters.settings())

    def produce(self, request: InferenceRequest, endpoints: Endpoints) -> None:
        """Publish the match."""
        self.tracker.produce(request, endpoints)

    def on_routed(self, request: InferenceRequest, decision: Decision) -> None:
        """Record where the prompt goes."""
        self.tracker.on_routed(request, decision)

    def on_done(self, request: InferenceRequest, decision: Decision, completion: Completion) -> None:
        """Take the record back if the prompt did not get there."""
        self.tracker.on_done(request, completion)

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """It holds nothing."""
        self.tracker.on_endpoint_added(endpoint)

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        """Forget it."""
        self.tracker.on_endpoint_removed(endpoint)


@plugin("prefix-cache-scorer", Kind.SCORER, Kind.PRODUCER, reads=Reads.PREFIX_MATCH)
class PrefixCacheScorer:
    """Prefers endpoints that hold more of the prompt.

    Formula: ratio = matched / total blocks; length = min(1, matched tokens / matchLengthScaleTokens)^2;
        score = matchLengthWeight * length + (1 - matchLengthWeight) * ratio.
    Range: 0..1.
    Reads: the match of approx-prefix-cache-producer, or of prefixMatchInfoProducerName. With a parameter of earlier
        releases that describes an index (hashBlockSize, blockSize, blockSizeTokens, maxPrefixBlocksToMatch,
        maxPrefixTokensToMatch, lruCapacityPerServer, autoTune) the prompt instead: it then has an index of its own,
        in bytes as given, a shorter last block not counted, and publishes the match under its own name.
    Cost: a few array operations; with an index of its own, as approx-prefix-cache-producer.
    Without data: 0 for everybody.
    Origin: prefix-cache-scorer of the Go EPP, its first release to its newest.
    """

    Parameters = ScorerParameters

    def __init__(self, parameters: ScorerParameters, context: PluginContext) -> None:
        self.tracker: PrefixTracker | None = None
        self._key: DataKey[PrefixMatch] = DataKey(
            PREFIX_MATCH.name, parameters.prefixMatchInfoProducerName or PREFIX_MATCH.producer
        )
        if parameters.owns_index:
            self.tracker = PrefixTracker(parameters.settings(), context.name)
            self._key = self.tracker.key
        self._length_weight = parameters.matchLengthWeight
        self._scale_tokens = parameters.matchLengthScaleTokens

    @classmethod
    def reads_for(cls, parameters: ScorerParameters) -> Reads:
        """What an instance with these parameters reads."""
        return _reads(parameters.settings()) if parameters.owns_index else Reads.PREFIX_MATCH

    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        """See the class."""
        match = request.get(self._key)
        if match is None:
            return np.zeros(len(endpoints))
        ratio = match.ratio(endpoints)
        if not self._length_weight:
            return ratio
        tokens: FloatArray = endpoints.take(match.matched_blocks) * match.block_size_tokens
        length: FloatArray = np.minimum(1.0, tokens / self._scale_tokens) ** 2
        return self._length_weight * length + (1.0 - self._length_weight) * ratio

    def produce(self, request: InferenceRequest, endpoints: Endpoints) -> None:
        """Publish the match of the index of its own, if it has one."""
        if self.tracker is not None:
            self.tracker.produce(request, endpoints)

    def on_routed(self, request: InferenceRequest, decision: Decision) -> None:
        """Record where the prompt goes."""
        if self.tracker is not None:
            self.tracker.on_routed(request, decision)

    def on_done(self, request: InferenceRequest, decision: Decision, completion: Completion) -> None:
        """Take the record back if the prompt did not get there."""
        if self.tracker is not None:
            self.tracker.on_done(request, completion)

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """It holds nothing."""
        if self.tracker is not None:
            self.tracker.on_endpoint_added(endpoint)

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        """Forget it."""
        if self.tracker is not None:
            self.tracker.on_endpoint_removed(endpoint)
