# SPDX-License-Identifier: Apache-2.0
"""Durations, quantities, metric specifications and near names."""

from __future__ import annotations

from decimal import Decimal

import pytest

from epp.config.declared import MetricSpec, parse_metric_spec
from epp.config.findings import nearest, remedy, show
from epp.contract.units import parse_duration_s, parse_quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("50ms", 0.05), ("1m30s", 90.0), ("1h", 3600.0), ("1.5s", 1.5), (".5s", 0.5), ("2us", 2e-6),
     ("3µs", 3e-6), ("7ns", 7e-9), ("-1s", -1.0), ("+2s", 2.0), ("1h1m1s", 3661.0)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1d", "1 s", "1s ", "one", "1s1", "9" * 100 + "s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("500", 500), ("2k", 2000), ("1Gi", 2**30), ("1.5Ki", 1536), ("1e3", 1000), ("5m", Decimal("0.005")),
     ("-1", -1), ("3E", 3 * 10**18), (".5M", 500_000)],
)  # fmt: skip
def test_quantities(text: str, number: Decimal) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "k", "1 k", "1K", "1gi", "0x10", "1e9999", "1e", "9" * 100])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError):
        parse_quantity(text)


def test_metric_specifications() -> None:
    assert parse_metric_spec(" a:b ") == MetricSpec("a:b")
    assert parse_metric_spec("a{}") == MetricSpec("a")
    assert parse_metric_spec('a{k=v, l="w"}') == MetricSpec("a", (("k", "v"), ("l", "w")))
    for text in ("", "{a=b}", "a{b", "a{b}", "a{=b}"):
        with pytest.raises(ValueError):
            parse_metric_spec(text)


def test_near_names_and_shown_values() -> None:
    assert nearest("Queue-Scorer", ["queue-scorer", "x"]) == "queue-scorer"
    assert nearest("zzz", ["queue-scorer"]) is None
    assert nearest("q" * 1_000_000, ["queue-scorer"]) is None
    assert remedy("a", []) == "; allowed: none"
    assert show("x" * 200) == '"' + "x" * 79 + "..."
    assert show({"a": [1, "b\n"]}) == '{"a": [1, "b\\n"]}'
