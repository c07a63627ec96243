# SPDX-License-Identifier: Apache-2.0
"""What an answer costs, from the tokens it told of, as `llmRequestCosts` of Envoy AI Gateway defines it.

| type | tokens |
| --- | --- |
| InputToken | the whole prompt: `prompt_tokens`, `input_tokens`; with Anthropic cached and cache creation ones added |
| CachedInputToken | of the prompt, read from a cache |
| CacheCreationInputToken | of the prompt, written to a cache |
| OutputToken | the completion; none for embeddings |
| TotalToken | as the answer says; input and output, where it says none (Anthropic) |
| ReasoningToken | of the completion, spent on reasoning |
| CEL | what the expression makes of `model`, `backend` and these six |

What an answer does not tell counts as 0, and its key is there. A key whose expression fails for an answer is left out.
(Envoy AI Gateway fails the answer instead, and cuts the result of an expression to 32 bits.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta

from epp.api import ConfigError, Usage
from epp.plugins.costs.cel import COUNTS, CelCost

CostType = Literal[
    "InputToken", "OutputToken", "TotalToken", "CachedInputToken", "CacheCreationInputToken", "ReasoningToken", "CEL"
]


@dataclass(frozen=True, slots=True)
class CostRule:
    """One item of `llmRequestCosts`.

    * metadataKey: where the number is left
    * type: what is counted
    * cel: the expression of type CEL; without effect for other types, as in Envoy AI Gateway
    """

    metadataKey: Annotated[str, Meta(min_length=1)]
    type: CostType
    cel: str = ""


class Tokens(NamedTuple):
    """Tokens of one answer; 0 where it did not tell. Their order is that of `COUNTS`."""

    input: int
    cached_input: int
    cache_creation_input: int
    output: int
    total: int
    reasoning: int


_PLACES = {
    "InputToken": 0,
    "CachedInputToken": 1,
    "CacheCreationInputToken": 2,
    "OutputToken": 3,
    "TotalToken": 4,
    "ReasoningToken": 5,
}


def tokens_of(usage: Usage) -> Tokens | None:
    """The tokens of an answer, None when it told none of prompt, completion and total."""
    prompt, completion, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if prompt is None and completion is None and total is None:
        return None
    apart = usage.prompt_tokens_apart or 0
    whole = (prompt or 0) + apart
    output = completion or 0
    # Who counts a part of the prompt apart has said no total: it is the sum of what `Usage` holds, without that part.
    total = whole + output if total is None else total + apart
    return Tokens(
        whole, usage.cached_tokens or 0, usage.cache_creation_tokens or 0, output, total, usage.reasoning_tokens or 0
    )


class CostTable:
    """Rules, ready to be applied. `keys` are their metadata keys, in order."""

    __slots__ = ("_expressions", "_plain", "keys")

    def __init__(self, plain: Sequence[tuple[str, int]], expressions: Sequence[tuple[str, CelCost]]) -> None:
        self._plain = tuple(plain)
        self._expressions = tuple(expressions)
        self.keys = tuple(key for key, _ in (*self._plain, *self._expressions))

    def of(self, tokens: Tokens, model: str, backend: str) -> dict[str, float]:
        """Metadata key -> cost, for an answer of `model` (as the client named it) by `backend`; without the keys whose
        expression failed."""
        costs = {key: float(tokens[place]) for key, place in self._plain}
        if self._expressions:
            variables = dict(zip(COUNTS, tokens, strict=True), model=model, backend=backend)
            for key, expression in self._expressions:
                cost = expression.of(variables)
                if cost is not None:
                    costs[key] = cost
        return costs


def compile_costs(costs: Sequence[CostRule], name: str = "costs") -> CostTable:
    """The table of these rules; `name` is the list's, for messages.

    Raises ConfigError: an unknown type, a key that stands twice or is empty, an expression that is none.
    """
    plain: list[tuple[str, int]] = []
    expressions: list[tuple[str, CelCost]] = []
    places: dict[str, int] = {}
    for number, rule in enumerate(costs):
        key, where = rule.metadataKey, f"{name}[{number}]"
        if not key:
            raise ConfigError(f"{where}.metadataKey: empty; give each cost a key, for instance llm_total_token")
        first = places.setdefault(key, number)
        if first != number:
            raise ConfigError(
                f"{where}.metadataKey: '{key}' is used by {name}[{first}] already; give each cost its own"
            )
        if rule.type == "CEL":
            if not rule.cel.strip():
                raise ConfigError(f"{where}.cel: required for type CEL, for instance input_tokens + 2u * output_tokens")
            expressions.append((key, CelCost(rule.cel, f"{where}.cel")))
        elif rule.type in _PLACES:
            plain.append((key, _PLACES[rule.type]))
        else:
            raise ConfigError(f"{where}.type: '{rule.type}' is not known; allowed: {', '.join([*_PLACES, 'CEL'])}")
    return CostTable(plain, expressions)
