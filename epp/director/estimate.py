# SPDX-License-Identifier: Apache-2.0
"""How long requests take, learned per model from the few that are watched to their end.

    seconds to the first byte + min(max_output_tokens, output tokens) x seconds per output token

Each of the three is an exponentially weighted mean; until something was learned, the defaults below stand. The first
`FIRST` requests of a model are watched, then one in `EVERY`; while fewer than `FIRST` of them ended well, one in
`EVERY_UNTIL_LEARNED`. What a watched answer of 1,000 pieces costs is so spread over 1,000 requests.

An answer that was not streamed shows no first byte of its own, and one without usage no tokens: what is known of the
model then stands in for them, so that the sum comes out right.
"""

from __future__ import annotations

from epp.contract.requests import Cause, Completion

EVERY = 1000
EVERY_UNTIL_LEARNED = 16
FIRST = 8
WEIGHT = 0.1
"""Of a new value in the mean, once ten have been seen; before, all weigh the same."""
DEFAULT_FIRST_BYTE_S = 0.5
DEFAULT_TOKENS = 256.0
DEFAULT_TOKEN_S = 0.02
MOST_S = 600.0
"""No estimate is longer."""
MOST_MODELS = 1000
"""Clients choose the names; further models share one estimate."""


class Mean:
    """An exponentially weighted mean that starts as a plain one."""

    __slots__ = ("_seen", "value")

    def __init__(self, value: float) -> None:
        self.value = value
        self._seen = 0

    def add(self, value: float) -> None:
        """Another one; the first replaces the default."""
        self._seen += 1
        self.value += (value - self.value) * max(WEIGHT, 1.0 / self._seen)


class Estimate:
    """What is known of one model."""

    __slots__ = ("_first_byte", "_learned", "_requests", "_token", "_tokens")

    def __init__(self) -> None:
        self._first_byte = Mean(DEFAULT_FIRST_BYTE_S)
        self._token = Mean(DEFAULT_TOKEN_S)
        self._tokens = Mean(DEFAULT_TOKENS)
        self._requests = 0
        self._learned = 0

    def wants_next(self) -> bool:
        """Whether the request that is being routed should be watched to its end. Counts it."""
        number, self._requests = self._requests, self._requests + 1
        if number < FIRST or number % EVERY == 0:
            return True
        return self._learned < FIRST and number % EVERY_UNTIL_LEARNED == 0

    @property
    def first_byte_s(self) -> float:
        """Until the prompt is computed and the answer begins."""
        return min(self._first_byte.value, MOST_S)

    def generation_s(self, max_output_tokens: int | None) -> float:
        """From there to the end of the answer."""
        return min(self._expected_tokens(max_output_tokens) * self._token.value, MOST_S - self.first_byte_s)

    def learn(self, completion: Completion, max_output_tokens: int | None, streaming: bool) -> None:
        """A watched request ended. Only whole answers teach."""
        status = completion.status
        if completion.cause is not Cause.COMPLETE or status is None or not 200 <= status < 300:
            return
        self._learned += 1
        first_byte_s = completion.first_byte_s
        if streaming and first_byte_s is not None:
            self._first_byte.add(first_byte_s)
        else:
            first_byte_s = self.first_byte_s
        usage = completion.usage
        tokens = float(usage.completion_tokens or 0) if usage is not None else 0.0
        if tokens:
            self._tokens.add(tokens)
        self._learn_rate(completion.duration_s - first_byte_s, tokens or self._expected_tokens(max_output_tokens))

    def learn_duration(self, duration_s: float, max_output_tokens: int | None) -> None:
        """An unwatched request with a whole answer took so long, says the access log."""
        self._learn_rate(duration_s - self.first_byte_s, self._expected_tokens(max_output_tokens))

    def _learn_rate(self, seconds: float, tokens: float) -> None:
        self._token.add(max(0.0, seconds) / max(1.0, tokens))

    def _expected_tokens(self, max_output_tokens: int | None) -> float:
        tokens = self._tokens.value
        return tokens if max_output_tokens is None else min(tokens, max(0, max_output_tokens))


class Estimates:
    """One estimate per model."""

    __slots__ = ("_by_model",)

    def __init__(self) -> None:
        self._by_model: dict[str, Estimate] = {}

    def of(self, model: str) -> Estimate:
        """The model's own, or the one that late-comers share."""
        found = self._by_model.get(model)
        if found is None:
            if len(self._by_model) >= MOST_MODELS:
                model = ""
            found = self._by_model.setdefault(model, Estimate())
        return found
