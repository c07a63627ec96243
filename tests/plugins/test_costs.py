# SPDX-License-Identifier: Apache-2.0
"""What answers cost: the types of Envoy AI Gateway, and expressions of CEL as its users wrote them."""

from __future__ import annotations

import builtins
import logging
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.api import ConfigError, Usage
from epp.plugins.costs.cel import COUNTS, LIMIT_CHARACTERS, VARIABLES, CelCost
from epp.plugins.costs.rules import CostRule, CostTable, Tokens, compile_costs, tokens_of

TYPES = (
    "InputToken", "CachedInputToken", "CacheCreationInputToken", "OutputToken", "TotalToken", "ReasoningToken",
)  # fmt: skip
EVERY = compile_costs([CostRule(name, name) for name in TYPES])  # type: ignore[arg-type]


def cel(expression: str) -> CostTable:
    return compile_costs([CostRule("cost", "CEL", expression)])


def costs_of(table: CostTable, usage: Usage, model: str = "m", backend: str = "b") -> dict[str, float]:
    tokens = tokens_of(usage)
    assert tokens is not None
    return table.of(tokens, model, backend)


def cost(expression: str, usage: Usage, model: str = "m", backend: str = "b") -> float | None:
    return costs_of(cel(expression), usage, model, backend).get("cost")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        # OpenAI: cached tokens are part of the prompt's.
        (Usage(24, 178, 202, 16, None, 64), (24, 16, 0, 178, 202, 64)),
        (Usage(24, 178, 202), (24, 0, 0, 178, 202, 0)),
        # Embeddings.
        (Usage(8, None, 8), (8, 0, 0, 0, 8, 0)),
        # Rerankers tell a total alone.
        (Usage(None, None, 8), (0, 0, 0, 0, 8, 0)),
        # Anthropic: what was cached is counted apart, and there is no total.
        (Usage(24, 178, 202, 16, 100, None, 116), (140, 16, 100, 178, 318, 0)),
        (Usage(24, None, None, 16, None, None, 16), (40, 16, 0, 0, 40, 0)),
        (Usage(None, 5, None), (0, 0, 0, 5, 5, 0)),
        (Usage(0, 0, 0), (0, 0, 0, 0, 0, 0)),
    ],
)
def test_every_type(usage: Usage, expected: tuple[int, ...]) -> None:
    costs = costs_of(EVERY, usage)
    assert tuple(costs[name] for name in TYPES) == expected
    assert all(type(value) is float for value in costs.values())


def test_an_answer_that_told_nothing_costs_nothing() -> None:
    assert tokens_of(Usage()) is None
    assert tokens_of(Usage(cached_tokens=5)) is None


@given(st.lists(st.none() | st.integers(0, 2**53), min_size=7, max_size=7))
def test_the_total_is_never_less_than_what_was_not_told(numbers: list[int | None]) -> None:
    tokens = tokens_of(Usage(*numbers))
    if tokens is None:
        assert numbers[:3] == [None] * 3
        return
    assert tokens._fields == tuple(name.removesuffix("_tokens") for name in COUNTS)
    if numbers[2] is None:
        assert tokens.total == tokens.input + tokens.output
    else:
        assert tokens.total == numbers[2] + (numbers[6] or 0)


FULL = Usage(1000, 500, 1500, 300, 100, 200)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # From the documentation and the tests of Envoy AI Gateway, where counts are unsigned.
        ("input_tokens", 1000),
        ("input_tokens + output_tokens", 1500),
        (
            "model == 'm' ? (input_tokens - cached_input_tokens - cache_creation_input_tokens) * output_tokens : 1u",
            300_000,
        ),
        ("model == 'other' ? input_tokens * output_tokens : total_tokens", 1500),
        ("1 + 1", 2),
        ("uint(1) + uint(1)", 2),
        ("int(input_tokens) - int(output_tokens)", 500),
        ("(input_tokens - cached_input_tokens) + cached_input_tokens / 10u + output_tokens * 4u", 2730),
        ("uint(double(input_tokens) * 0.1 + double(output_tokens) * 0.5)", 350),
        ("backend == 'b' ? reasoning_tokens * 2u : 0u", 400),
        ("model.startsWith('m') && total_tokens > 1000u ? 1u : 2u", 1),
        ("model in ['a', 'm'] ? total_tokens % 7u : 0u", 2),
        ("[1u, 2u, 3u].exists(x, x == 2u) ? 5 : 6", 5),
        # Plain integers, which are refused there.
        ("input_tokens + 2 * output_tokens", 2000),
        ("2 * input_tokens + 3u", 2003),
        ("model == '2u' ? 1u : input_tokens * 0x10U + 1", 16_001),
        ("input_tokens > 10 ? 1 : 0", 1),
        # Tried first with zeros, as there, but a division is not refused for that.
        ("total_tokens / input_tokens", 1),
        ("input_tokens // a comment\n + 1u // and another", 1001),
        ("18446744073709551615u - input_tokens", float(2**64 - 1001)),
    ],
)
def test_expressions(expression: str, expected: float) -> None:
    assert cost(expression, FULL) == expected


@given(st.tuples(*[st.integers(0, 2**53)] * 6))
def test_each_variable_is_its_count_and_unsigned(numbers: tuple[int, ...]) -> None:
    tokens = Tokens(*numbers)
    for name, number in zip(COUNTS, numbers, strict=True):
        assert BY_NAME[name].of(tokens, "m", "b") == {"cost": float(number)}


BY_NAME = {name: cel(f"type({name}) == uint ? {name} : 0u") for name in COUNTS}


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "required for type CEL"),
        ("1 +", "line 1, column 4: Syntax error: mismatched input '<EOF>'"),
        ("input_tokens\n+* 2", "line 2, column 2: Syntax error: extraneous input '*'"),
        ("prompt_tokens + 1u", "prompt_tokens is not known"),
        ("model == 'x' ? tokens : output", "output, tokens is not known"),
        ("input_tokens.sum", "No such overload"),
        ("nosuch(input_tokens)", "Undefined variable or function: 'nosuch'"),
        ("'1'", "its result '1' is not an integer"),
        ("input_tokens > 3u", "its result False is not an integer"),
        ("1.5", "its result 1.5 is not an integer"),
        ("double(input_tokens)", "its result 0.0 is not an integer"),
        ("null", "its result None is not an integer"),
        ("-1", "its result -1 is negative"),
        ("uint(1) - uint(1200)", "overflow"),
        ("input_tokens * 1.5", "uint * float"),
        ("1" + "+1" * LIMIT_CHARACTERS, f"longer than {LIMIT_CHARACTERS} characters"),
    ],
)
def test_what_is_no_expression_is_refused_in_one_line(expression: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        cel(expression)
    text = str(caught.value)
    assert text.startswith("costs[0].cel: ")
    assert told in text
    assert "\n" not in text
    assert len(text) < 600
    if "is no cost" in text:
        assert repr(expression) in text
        assert ", ".join(VARIABLES) in text


def test_one_expression_that_fails_leaves_out_its_key_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    table = compile_costs(
        [
            CostRule("less", "CEL", "output_tokens - input_tokens"),
            CostRule("negative", "CEL", "int(output_tokens) - int(input_tokens)"),
            CostRule("text", "CEL", "model == 'm' ? model : 1u"),
            CostRule("total", "TotalToken"),
            CostRule("more", "CEL", "input_tokens - output_tokens"),
        ]
    )
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert costs_of(table, FULL) == {"total": 1500.0, "more": 500.0}
    assert [record.message.partition(" failed for an answer: ")[0] for record in caplog.records] == [
        "costs[0].cel", "costs[1].cel", "costs[2].cel",
    ]  # fmt: skip
    assert costs_of(table, Usage(5, 9, 14), "x") == {"less": 4.0, "negative": 4.0, "text": 1.0, "total": 14.0}
    assert set(table.keys) == {"less", "negative", "text", "total", "more"}


class Panics:
    class _Panic(BaseException):
        pass

    def execute(self, variables: Any) -> Any:
        raise self._Panic("explicit panic")


def test_a_panic_of_the_package_costs_no_request() -> None:
    failing = CelCost("1", "costs[0].cel")
    failing._programs = (Panics(),)
    assert failing.of({}) is None


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ([("a", "InputToken"), ("b", "CEL", "1u"), ("a", "TotalToken")],
         "costs[2].metadataKey: 'a' is used by costs[0] already; give each cost its own"),
        ([("", "InputToken")], "costs[0].metadataKey: empty"),
        ([("a", "InputTokens")], "costs[0].type: 'InputTokens' is not known; allowed: InputToken, "),
    ],
)  # fmt: skip
def test_rules_that_cannot_be(rules: list[Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_costs([CostRule(*rule) for rule in rules])
    assert str(caught.value).startswith(told)


def test_an_expression_of_another_type_has_no_effect() -> None:
    assert costs_of(compile_costs([CostRule("a", "InputToken", "not ( CEL")]), FULL) == {"a": 1000.0}


def test_without_the_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "cel":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(
        ConfigError,
        match=r"needs the package common-expression-language \(cel\); run `pip install '\.\[cel\]'` in the source folder$",
    ):
        cel("input_tokens")
    assert costs_of(EVERY, FULL)["TotalToken"] == 1500.0


def test_the_package_is_imported_for_expressions_alone() -> None:
    code = (
        "import sys; from epp.plugins.costs.rules import *; from epp.plugins.costs.llm_request_costs import *;"
        "compile_costs([CostRule('a', 'InputToken')]); print('cel' in sys.modules);"
        "compile_costs([CostRule('a', 'CEL', '1u')]); print('cel' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "True"]
