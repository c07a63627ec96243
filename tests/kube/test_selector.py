# SPDX-License-Identifier: Apache-2.0
"""The label selector grammar and its meaning, as apimachinery has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.kube.selector import Selector, SelectorError, match_labels, parse_selector
from epp.service.flags import values


@pytest.mark.parametrize(
    ("text", "labels", "selected"),
    [
        ("", {}, True),
        ("  ", {"a": "b"}, True),
        ("a=b", {"a": "b"}, True),
        ("a=b", {"a": "c"}, False),
        ("a=b", {}, False),
        ("a==b", {"a": "b"}, True),
        ("a = b", {"a": "b"}, True),
        ("a=", {"a": ""}, True),
        ("a=", {"a": "b"}, False),
        ("a=", {}, False),
        ("a!=b", {"a": "c"}, True),
        ("a!=b", {"a": "b"}, False),
        ("a!=b", {}, True),
        ("a!=", {"a": ""}, False),
        ("a in (x,y)", {"a": "y"}, True),
        ("a in (x, y )", {"a": "y"}, True),
        ("a in(x)", {"a": "x"}, True),
        ("a in (x,y)", {"a": "z"}, False),
        ("a in (x,y)", {}, False),
        ("a in ()", {"a": ""}, True),
        ("a in (,x)", {"a": ""}, True),
        ("a in ()", {"a": "x"}, False),
        ("a notin (x)", {"a": "y"}, True),
        ("a notin (x)", {"a": "x"}, False),
        ("a notin (x)", {}, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("! a", {"a": ""}, False),
        ("a>5", {"a": "6"}, True),
        ("a > 5", {"a": "5"}, False),
        ("a<5", {"a": "-6"}, True),
        ("a<5", {"a": "few"}, False),
        ("a<5", {}, False),
        ("a=b,c in (d),!e,f!=g", {"a": "b", "c": "d"}, True),
        ("a=b,c in (d),!e,f!=g", {"a": "b", "c": "d", "f": "g"}, False),
        ("in=notin", {"in": "notin"}, True),
        ("in in (in)", {"in": "in"}, True),
        ("app.kubernetes.io/name=llm", {"app.kubernetes.io/name": "llm"}, True),
    ],
)
def test_what_is_selected(text: str, labels: dict[str, str], selected: bool) -> None:
    selector = parse_selector(text)
    assert selector.matches(labels) is selected
    assert parse_selector(str(selector)).matches(labels) is selected


@pytest.mark.parametrize(
    "text",
    ["a=b,", ",a", "a b", "a in x", "a in (x", "a=(b)", "=b", "a=b=c", "!a=b", "-a", "a/b/c", "a>b", "a=b;c", "A B"],
)
def test_what_is_no_selector(text: str) -> None:
    with pytest.raises(SelectorError, match="cannot be read from") as caught:
        parse_selector(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("a==b", "a=b"), ("a in (y,x)", "a in (x,y)"), ("a notin (x)", "a!=x"), (" ! a , b ", "!a,b"), ("a > 5", "a>5")],
)
def test_the_text_of_a_query(text: str, canonical: str) -> None:
    assert str(parse_selector(text)) == canonical


def test_match_labels() -> None:
    selector = match_labels({"b": "2", "a": "1"})
    assert str(selector) == "a=1,b=2"
    assert selector.matches({"a": "1", "b": "2", "c": "3"})
    assert not selector.matches({"a": "1"})
    assert match_labels({}) == Selector()


@pytest.mark.parametrize("labels", [{"a": "b c"}, {"a b": "c"}, {"": "c"}, {"a": "x" * 64}])
def test_labels_that_cannot_be(labels: dict[str, str]) -> None:
    with pytest.raises(SelectorError, match="no valid label"):
        match_labels(labels)


_PIECE = st.sampled_from(
    ["a", "in", "notin", "b.c/d", "!", "=", "==", "!=", "<", ">", "5", "-5", "(", ")", ",", " ", "-", "x_y"]
)


@given(st.lists(_PIECE, max_size=10).map("".join))
def test_accepts_what_the_flag_accepts(text: str) -> None:
    try:
        values.parse_selector(text)
    except ValueError:
        with pytest.raises(SelectorError):
            parse_selector(text)
    else:
        parse_selector(text)


_KEYS = st.sampled_from(["a", "b", "c"])
_VALUES = st.sampled_from(["", "1", "2", "x"])


@given(
    st.dictionaries(_KEYS, _VALUES),
    _KEYS,
    st.lists(_VALUES, min_size=1),
)
def test_in_and_notin_are_opposites(labels: dict[str, str], key: str, among: list[str]) -> None:
    inside, outside = (parse_selector(f"{key} {word} ({','.join(among)})") for word in ("in", "notin"))
    assert inside.matches(labels) is not outside.matches(labels)
    assert inside.matches(labels) is (labels.get(key) in among)
