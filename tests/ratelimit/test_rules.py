# SPDX-License-Identifier: Apache-2.0
"""Rules: what is read, and what is refused, with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.manifests.limits import Unit
from epp.ratelimit.errors import RulesError
from epp.ratelimit.limits import near_limit
from epp.ratelimit.rules import RuleBook, load_rules, rules_from_yaml

BASIC = """\
domain: d
descriptors:
  - key: user
    value: 0123
    rate_limit: {unit: Hour, requests_per_unit: 1000, name: n, replaces: [{name: other}]}
    shadow_mode: true
  - key: user
    rate_limit: {unlimited: true}
  - key: plain
"""


def only(book: RuleBook) -> list[str]:
    return [limit.rule for limit in book.limits()]


def test_what_is_read() -> None:
    book = rules_from_yaml(BASIC, "x.yaml")
    limited, unlimited = book.limits()
    assert (limited.rule, limited.requests, limited.unit) == ("d.user_0123", 1000, Unit.HOUR)
    assert (limited.name, limited.replaces, limited.shadow, limited.unlimited) == ("n", ("other",), True, False)
    assert (unlimited.rule, unlimited.unlimited, unlimited.unit) == ("d.user", True, None)
    assert set(book.domains["d"].children) == {"user_0123", "user", "plain"}


@pytest.mark.parametrize("unit", Unit)
def test_every_unit(unit: Unit) -> None:
    text = f"domain: d\ndescriptors: [{{key: k, rate_limit: {{unit: {unit.name.lower()}, requests_per_unit: 1}}}}]"
    [limit] = rules_from_yaml(text, "x").limits()
    assert limit.unit is unit


def test_lengths_of_units_are_those_of_go() -> None:
    assert [unit.value for unit in Unit] == [1, 60, 3600, 86400, 604800, 2592000, 31536000]


@pytest.mark.parametrize(("requests", "near"), [(10, 8), (15, 12), (20, 16), (5, 4), (1, 0), (0, 0), (14, 11)])
def test_near_limit(requests: int, near: int) -> None:
    assert near_limit(requests) == near


def test_near_limit_is_single_precision_as_in_go() -> None:
    # In double precision this would be 3435973836.
    assert near_limit(4294967295) == 3435973888


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("descriptors: []", "line 1: the domain is empty or missing"),
        ("", "line 1: the document is nothing"),
        ("- a", "line 1: the document is a list"),
        ("domain: d\ndescriptors:\n- {value: v}", "line 3: a descriptor's key is empty or missing"),
        ("domain: d\ndescriptors:\n- key: a\n- key: a", "line 4: duplicate descriptor composite key 'd.a'"),
        (
            "domain: d\ndescriptors:\n- {key: a, value: b}\n- key: a_b",
            "line 4: duplicate descriptor composite key 'd.a_b'",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  ratelimit: {}",
            "line 4: unknown key 'ratelimit' in a descriptor; did you mean 'rate_limit'?",
        ),
        ("domain: d\ndescriptors:\n- key: a\n  unit: hour", "line 4: known key 'unit' in a descriptor;"),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit: {requests_per_unit: 1}",
            "line 4: the unit of 'd.a' is missing; give one of second, minute",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit:\n    unit: hours",
            "line 5: invalid rate limit unit 'hours' of 'd.a'; did you mean 'hour'?",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: hour, unlimited: true}",
            "line 4: 'd.a' has a unit and is unlimited",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: hour, requests_per_unit: -1}",
            "requests_per_unit is -1; allowed: 0 to 4294967295",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: hour, requests_per_unit: 4294967296}",
            "requests_per_unit is 4294967296;",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: hour, requests_per_unit: many}",
            "requests_per_unit is many;",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: hour, name: n, replaces: [{}]}",
            "line 4: an entry of replaces has no name",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: hour, name: n, replaces: [{name: n}]}",
            "line 4: 'n' replaces itself",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  value: b\n  share_threshold: true",
            "line 5: share_threshold is for wildcard values",
        ),
        (
            "domain: d\ndescriptors:\n- key: a\n  shadow_mode: maybe",
            "line 4: shadow_mode is maybe; write true or false",
        ),
        ("domain: d\ndescriptors: {key: a}", "line 2: descriptors is a mapping; write a list"),
        ("domain: d\ndescriptors: [a]", "line 2: a descriptor is a string; write a mapping"),
        ("domain: d\ndomain: e", "line 2: key 'domain' is given twice"),
        ("domain: d\n1: e", "line 2: a key is not a string: 1; quote it"),
        ("domain: 1.5", "line 1: '1.5' is of type float"),
        ("domain: [a\nb: c", "line 2: not YAML"),
        ("domain: a\n---\ndomain: b", "line 2: not YAML"),
        ("domain: d\ndescriptors:\n- key: [a]", "line 3: key is a list; write a string"),
        ("domain: d\ndescriptors:\n- key: a\n  rate_limit: 5", "line 4: rate_limit is an integer; write a mapping"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(RulesError) as caught:
        rules_from_yaml(text, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_domain_in_two_documents() -> None:
    one = {"domain": "d", "descriptors": [{"key": "a"}]}
    two = "domain: d\ndescriptors: [{key: b}]"
    with pytest.raises(RulesError, match=r"^two.yaml: line 1: duplicate domain 'd'"):
        load_rules([("one", one), ("two.yaml", two)])


def test_a_mapping_and_its_yaml_are_alike() -> None:
    mapping = {
        "domain": "d",
        "descriptors": [
            {"key": "k", "value": 7, "rate_limit": {"unit": "DAY", "requests_per_unit": 3}, "shadow_mode": True},
            {"key": "k", "rate_limit": None, "descriptors": None},
        ],
    }
    text = "domain: d\ndescriptors:\n- {key: k, value: 7, rate_limit: {unit: DAY, requests_per_unit: 3}, shadow_mode: yes}\n- {key: k}"
    assert load_rules([("m", mapping)]) == rules_from_yaml(text, "m")


def test_depth_is_bounded() -> None:
    text = "domain: d\ndescriptors: " + "[{key: a, descriptors: " * 80 + "[]" + "}]" * 80
    with pytest.raises(RulesError, match="more than 64 levels"):
        rules_from_yaml(text, "x")
    deep: dict[str, object] = {"key": "a"}
    for _ in range(80):
        deep = {"key": "a", "descriptors": [deep]}
    with pytest.raises(RulesError, match="more than 64 levels"):
        load_rules([("x", {"domain": "d", "descriptors": [deep]})])


def test_aliases_do_not_multiply() -> None:
    text = "domain: d\na: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip("abcdefg", "bcdefgh", strict=True):
        text += f"{name}: &{name} [" + ",".join([f"*{before}"] * 10) + "]\n"
    with pytest.raises(RulesError, match="more than 500000 items"):
        rules_from_yaml(text, "x")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rules_from_yaml(text, "x")
    except RulesError as error:
        assert "\n" not in str(error)


def test_limits_in_order() -> None:
    text = "domain: d\ndescriptors:\n- {key: b, rate_limit: {unit: day}, descriptors: [{key: c, rate_limit: {unit: day}}]}\n- {key: a, rate_limit: {unit: day}}"
    assert only(rules_from_yaml(text, "x")) == ["d.b", "d.b.c", "d.a"]
