# SPDX-License-Identifier: Apache-2.0
"""Which limit a descriptor has. The tables of rules and answers are those of the Go service's own tests."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.protos import rls_pb2
from epp.ratelimit.errors import BadCall
from epp.ratelimit.matching import counter_key, find
from epp.ratelimit.rules import rules_from_yaml
from tests.ratelimit.support import Entries, descriptor

BASIC = rules_from_yaml(
    """\
domain: test-domain
descriptors:
  - key: key1
    value: value1
    descriptors:
      - {key: subkey1, rate_limit: {unit: second, requests_per_unit: 5}}
      - {key: subkey1, value: subvalue1, rate_limit: {unit: second, requests_per_unit: 10}}
  - {key: key2, rate_limit: {unit: minute, requests_per_unit: 20}}
  - {key: key2, value: value2, rate_limit: {unit: minute, requests_per_unit: 30}}
  - {key: key2, value: value3}
  - {key: key3, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: key4, rate_limit: {unit: day, requests_per_unit: 1}}
  - key: key5
    value: value5
    rate_limit: {unit: day, requests_per_unit: 15}
    descriptors:
      - {key: subkey5, value: subvalue5, rate_limit: {unit: day, requests_per_unit: 25}}
  - {key: key6, rate_limit: {unlimited: true}}
  - {key: key7, rate_limit: {unit: minute, requests_per_unit: 70}, detailed_metric: true}
  - {key: wild, value: foo*, rate_limit: {unit: minute, requests_per_unit: 20}}
  - {key: noWild, value: foo, rate_limit: {unit: minute, requests_per_unit: 20}}
  - {key: midWild, value: bar*b, rate_limit: {unit: minute, requests_per_unit: 20}}
""",
    "basic.yaml",
)


@pytest.mark.parametrize(
    ("entries", "rule", "requests"),
    [
        ([("key1", "something")], None, 0),
        ([("key1", "value1")], None, 0),
        ([("key2", "value2"), ("subkey", "subvalue")], None, 0),
        ([("key5", "value5"), ("subkey5", "subvalue")], None, 0),
        ([("key5", "value5")], "test-domain.key5_value5", 15),
        ([("key5", "value5"), ("subkey5", "subvalue5")], "test-domain.key5_value5.subkey5_subvalue5", 25),
        ([("key1", "value1"), ("subkey1", "something")], "test-domain.key1_value1.subkey1", 5),
        ([("key1", "value1"), ("subkey1", "subvalue1")], "test-domain.key1_value1.subkey1_subvalue1", 10),
        ([("key2", "something")], "test-domain.key2", 20),
        ([("key2", "value2")], "test-domain.key2_value2", 30),
        ([("key2", "value3")], None, 0),
        ([("key3", "foo")], "test-domain.key3", 1),
        ([("key4", "foo")], "test-domain.key4", 1),
        ([("key6", "foo")], "test-domain.key6", 0),
        ([("key7", "unspecified_value")], "test-domain.key7_unspecified_value", 70),
        ([("key7", "another_value")], "test-domain.key7_another_value", 70),
        ([("wild", "foo")], "test-domain.wild_foo*", 20),
        ([("wild", "foo1")], "test-domain.wild_foo*", 20),
        ([("wild", "bar")], None, 0),
        ([("noWild", "foo")], "test-domain.noWild_foo", 20),
        ([("noWild", "foo1")], None, 0),
        ([("midWild", "barab")], None, 0),
        ([("midWild", "bar*b")], "test-domain.midWild_bar*b", 20),
        ([], None, 0),
    ],
)
def test_as_in_go(entries: Entries, rule: str | None, requests: int) -> None:
    match = find(BASIC, "test-domain", descriptor(*entries))
    assert (match.rule if match else None) == rule
    if match:
        assert match.limit.requests == requests
    assert find(BASIC, "foo_domain", descriptor(*entries)) is None


def test_exact_before_wildcard_before_default_and_the_first_wildcard_of_the_file() -> None:
    book = rules_from_yaml(
        """\
domain: d
descriptors:
- {key: u, rate_limit: {unit: day, requests_per_unit: 1}}
- {key: u, value: ab*, rate_limit: {unit: day, requests_per_unit: 2}}
- {key: u, value: a*, rate_limit: {unit: day, requests_per_unit: 3}}
- {key: u, value: abc, rate_limit: {unit: day, requests_per_unit: 4}}
- {key: any*, rate_limit: {unit: day, requests_per_unit: 5}}
""",
        "x",
    )
    found = {}
    for entry in (("u", "z"), ("u", "abd"), ("u", "ax"), ("u", "abc"), ("u", ""), ("anything", "x")):
        match = find(book, "d", descriptor(entry))
        found[entry] = match.limit.requests if match else None
    assert list(found.values()) == [1, 2, 3, 4, 1, 5]


def test_a_wildcard_below_another_level() -> None:
    book = rules_from_yaml(
        "domain: d\ndescriptors:\n- {key: a, value: x*, descriptors: [{key: b, value: y*, rate_limit: {unit: day}}]}",
        "x",
    )
    match = find(book, "d", descriptor(("a", "x1"), ("b", "y1")))
    assert match
    assert match.rule == "d.a_x*.b_y*"
    assert find(book, "d", descriptor(("a", "y1"), ("b", "y1"))) is None


def test_each_value_has_a_counter_unless_the_threshold_is_shared() -> None:
    text = "domain: d\ndescriptors:\n- {{key: f, value: x*, {} rate_limit: {{unit: day}}, detailed_metric: {}}}"
    for shared, detailed, keys, rules in (
        ("", "false", {"day:d:f=x1", "day:d:f=x2"}, {"d.f_x*"}),
        ("", "true", {"day:d:f=x1", "day:d:f=x2"}, {"d.f_x1", "d.f_x2"}),
        ("share_threshold: true,", "false", {"day:d:f=x%2A"}, {"d.f_x*"}),
        ("share_threshold: true,", "true", {"day:d:f=x%2A"}, {"d.f_x*"}),
    ):
        book = rules_from_yaml(text.format(shared, detailed), "x")
        matches = [find(book, "d", descriptor(("f", value))) for value in ("x1", "x2")]
        assert {match.key for match in matches if match} == keys
        assert {match.rule for match in matches if match} == rules


def test_value_to_metric_names_the_values_of_its_level_alone() -> None:
    book = rules_from_yaml(
        "domain: d\ndescriptors:\n"
        "- {key: route, descriptors: [{key: method, value_to_metric: true, descriptors: [{key: id, rate_limit: {unit: day}}]}]}",
        "x",
    )
    match = find(book, "d", descriptor(("route", "r"), ("method", "GET"), ("id", "7")))
    assert match
    assert match.rule == "d.route.method_GET.id"


def test_an_override_takes_the_place_of_the_rules_of_a_known_domain() -> None:
    override = descriptor(("key1", "value1"), ("subkey1", "something"))
    override.limit.requests_per_unit, override.limit.unit = 42, rls_pb2.WEEK
    match = find(BASIC, "test-domain", override)
    assert match
    assert (match.rule, match.limit.requests, match.period_s) == (
        "test-domain.key1_value1.subkey1_something",
        42,
        604800,
    )
    assert match.limit.current.unit == rls_pb2.WEEK
    assert find(BASIC, "foo_domain", override) is None
    override.limit.unit = rls_pb2.UNKNOWN
    with pytest.raises(BadCall, match="unit 0"):
        find(BASIC, "test-domain", override)


_TEXTS = st.text(max_size=60) | st.text(":;=/#%_ *{}\n", max_size=6)
_PAIRS = st.lists(st.tuples(_TEXTS, _TEXTS), max_size=4)


@given(_TEXTS, _PAIRS)
def test_keys_are_short_and_plain(domain: str, entries: Entries) -> None:
    key = counter_key("HOUR", domain, entries)
    assert len(key) <= 200
    assert re.fullmatch(r"[!-~]*", key)
    assert not set(key) & set("{}[]*?\\ '\"")


@given(_TEXTS, _PAIRS, _TEXTS, _PAIRS)
def test_keys_are_as_different_as_descriptors(domain: str, entries: Entries, other: str, others: Entries) -> None:
    same = (domain, list(entries)) == (other, list(others))
    assert (counter_key("HOUR", domain, entries) == counter_key("HOUR", other, others)) == same


def test_a_long_value_is_hashed() -> None:
    keys = {counter_key("DAY", "d", [("user", "x" * length)]) for length in range(180, 400)}
    assert len(keys) == 220
    assert max(map(len, keys)) <= 200
    assert counter_key("DAY", "d", [("user", "a b/é")]) == "day:d:user=a%20b/%C3%A9"


def test_a_value_that_is_no_utf8_has_a_counter_of_its_own() -> None:
    values = ["caf\udce9", "caf\udce8", "café", "caf\ufffd", "caf%E9"]
    matches = [find(BASIC, "test-domain", descriptor(("key7", value))) for value in values]
    found = [match for match in matches if match is not None]
    assert len({match.key for match in found}) == len(values)
    assert found[0].key == "minute:test-domain:key7=caf%E9"
    assert all(match.key.isascii() and match.rule.encode() for match in found)
    assert found[0].rule == "test-domain.key7_caf\ufffd"


def test_any_bytes_of_a_header_can_be_read() -> None:
    call = rls_pb2.RateLimitRequest(domain="test-domain")
    call.descriptors.add().entries.add(key="key2", value=b"\xff\xfe" * 200)
    [read] = rls_pb2.RateLimitRequest.FromString(call.SerializeToString()).descriptors
    match = find(BASIC, "test-domain", read)
    assert match is not None
    assert match.limit.requests == 20
