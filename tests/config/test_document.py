# SPDX-License-Identifier: Apache-2.0
"""Text to values and lines: the dialect, the limits, and that nothing but mistakes comes out of any text."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config.document import MAX_BYTES, MAX_DEPTH, Node, parse_document
from epp.config.findings import Findings
from epp.config.scalars import resolve


def parse(text: str) -> Any:
    findings = Findings()
    node = parse_document(text, findings)
    assert not findings.mistakes, findings.mistakes
    assert node is not None
    return node.plain()


def mistakes(text: str) -> list[str]:
    findings = Findings()
    parse_document(text, findings)
    return list(map(str, findings.mistakes))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True), ("On", True), ("TRUE", True), ("y", True), ("N", False), ("off", False), ("No", False),
        ("null", None), ("~", None), ("", None), ("Null", None),
        ("7", 7), ("-7", -7), ("+7", 7), ("010", 8), ("0o10", 8), ("0x1F", 31), ("0b101", 5), ("1_000", 1000),
        ("08", 8), ("0", 0), ("2.0", 2), ("1e3", 1000), ("0.5", 0.5), (".5", 0.5), ("-2.5e-1", -0.25),
        ("99999999999999999999", 99999999999999999999.0), ("1.", 1),
        ("12:30", "12:30"), ("1.2.3", "1.2.3"), ("-", "-"), (".", "."), ("+", "+"), ("2001-01-01", "2001-01-01"),
        ("yEs", "yEs"), ("0x", "0x"), ("abc", "abc"), ("1a", "1a"), ("_1", "_1"),
    ],
)  # fmt: skip
def test_unquoted_scalars_mean_what_the_go_library_reads(text: str, value: object) -> None:
    found = resolve(text)
    assert (type(found), found) == (type(value), value)


def test_infinities_and_nan_are_recognised() -> None:
    assert math.isnan(float(str(resolve(".NaN"))))
    assert resolve("-.Inf") == -math.inf


def test_quotes_blocks_and_tags_keep_text() -> None:
    assert parse("a: 'yes'\nb: \"1\"\nc: |\n  on\nd: !!str 5\ne: !!float 5\nf: !!int '7'\n") == {
        "a": "yes", "b": "1", "c": "on\n", "d": "5", "e": 5, "f": 7,
    }  # fmt: skip


def test_every_key_knows_its_line() -> None:
    node = parse_document("a: 1\n\nb:\n  - c: 2\n    d: 3\n", Findings())
    assert node is not None
    assert node.key_lines == {"a": 1, "b": 3}
    assert isinstance(node.value, dict)
    items = node.value["b"].value
    assert isinstance(items, list)
    assert isinstance(items[0], Node)
    assert items[0].key_lines == {"c": 4, "d": 5}


def test_json_is_read_with_tabs_escapes_and_lines() -> None:
    value = {"a": ["\U0001f600 \t\u0085", {"b": 1.5, "c": None}], "d/e": True}
    text = json.dumps(value, indent="\t").replace("/", "\\/")
    assert "\\ud83d\\ude00" in text
    assert parse(text) == value
    node = parse_document(text, Findings())
    assert node is not None
    assert node.key_lines == {"a": 2, "d/e": 9}


def test_merge_keys_and_aliases() -> None:
    assert parse("a: &x {k: 1, l: 2}\nb: {<<: *x, l: 3}\nc: *x\nd: {<<: [*x, {m: 4}]}\n") == {
        "a": {"k": 1, "l": 2}, "b": {"l": 3, "k": 1}, "c": {"k": 1, "l": 2}, "d": {"k": 1, "l": 2, "m": 4},
    }  # fmt: skip
    assert parse('{"<<": {"a": 1}}') == {"<<": {"a": 1}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", 'line 3: key "a" already set in map, on line 1'),
        ('{"a": 1,\n"a": 2}', 'line 2: key "a" already set in map, on line 1'),
        ("a: 1\n---\nb: 2\n", "line 2: a second document starts here; allowed: one document"),
        ("a: [\n", "line 2: not YAML: did not find expected node content"),
        ("a: b: c\n", "line 1: not YAML: mapping values are not allowed in this context"),
        ("a:\n\t- b\n", "line 2: not YAML: found character that cannot start any token"),
        ("a: 1\nb: \x07\n", "line 2: not YAML: control characters are not allowed, #x0007"),
        ("a: &x\n  b: *x\n", "line 2: alias *x contains itself"),
        ("a: *x\n", "line 1: alias *x names no anchor"),
        ("a: !<x:y> x\n", 'line 1: tag "x:y" is not supported; allowed: the types of JSON'),
        ("a: !thing {}\n", 'line 1: tag "!thing" is not supported; allowed: the types of JSON'),
        ("a: !!int x\n", 'line 1: "x" is not an integer, as its tag says'),
        ("a: .nan\n", "line 1: .nan is not a number of JSON; allowed: a finite number"),
        ("? [a]\n: 1\n", "line 1: a key is a list or a mapping; allowed: a string"),
        ("a: {<<: 1}\n", "line 1: '<<' merges something that is not a mapping; allowed: a mapping"),
        ("a: " + "[" * 70, f"line 1: nested too deeply; allowed: {MAX_DEPTH} levels"),
        ("a: '\ud800'", "the text is not Unicode: character 4 is half of a surrogate pair"),
        ('{"a": "\\ud800"}', "the text is not Unicode: it escapes half of a surrogate pair"),
        ("#" * (MAX_BYTES + 1), "the text is longer than 1048576 bytes; allowed: up to 1 MiB"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, expected: str) -> None:
    assert mistakes(text) == [expected]


def test_aliases_cannot_blow_up() -> None:
    levels = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 10))
    assert mistakes(f"l0: &l0 [1]\n{levels}")[-1].endswith("too many values; allowed: 100000, aliases expanded")
    deep = "".join(f"d{i}: &d{i} [[[[[[[[[[*d{i - 1}]]]]]]]]]]\n" for i in range(1, 10))
    assert mistakes(f"d0: &d0 [1]\n{deep}")[-1].endswith("nested too deeply; allowed: 64 levels, aliases expanded")


def test_deep_json_is_refused_without_recursion() -> None:
    assert mistakes('{"a":' + "[" * 50_000 + "]" * 50_000 + "}")[0].startswith("line 1: nested too deeply")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=20), json_values, max_size=5), st.sampled_from([None, "\t", 2]))
def test_any_json_object_reads_as_itself(value: dict[str, Any], indent: str | int | None) -> None:
    assert parse(json.dumps(value, indent=indent)) == value


@given(st.text())
def test_any_text_gives_a_node_or_mistakes(text: str) -> None:
    findings = Findings()
    assert parse_document(text, findings) is not None or findings.mistakes
