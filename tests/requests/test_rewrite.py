# SPDX-License-Identifier: Apache-2.0
"""Exchanging the model of a body: that one string, and no other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.requests.parser import Parser
from epp.requests.rewrite import model_span, with_model

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.just("model"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT | st.just("model"), inner, max_size=4),
    max_leaves=12,
)
BLANKS = st.sampled_from([b"", b" ", b"\n\t", b" \r\n  "])


def quoted(text: str, escapes: bool) -> bytes:
    """`text` as JSON, every character as an escape if so wanted."""
    if not escapes:
        return json.dumps(text, ensure_ascii=False).encode()
    units = text.encode("utf-16-be").hex()
    return b'"' + b"".join(b"\\u%s" % units[i : i + 4].encode() for i in range(0, len(units), 4)) + b'"'


@st.composite
def bodies(draw: Any) -> tuple[bytes, bytes, dict[str, Any]]:
    """A body cut in front of and behind its model, and what else is in it."""
    others = draw(st.lists(st.tuples(TEXT.filter(lambda key: key != "model"), VALUES), max_size=5))
    at = draw(st.integers(0, len(others)))
    blank = lambda: draw(BLANKS)  # noqa: E731
    escapes = draw(st.booleans())

    def member(key: str, value: bytes) -> bytes:
        return blank() + quoted(key, escapes) + blank() + b":" + blank() + value

    members = [member(key, json.dumps(value, ensure_ascii=draw(st.booleans())).encode()) for key, value in others]
    if draw(st.booleans()):
        members.insert(draw(st.integers(0, at)), member("model", draw(st.sampled_from([b'"earlier"', b"7", b"null"]))))
        at += 1
    head = b",".join(members[:at])
    before = blank() + b"{" + head + (b"," if head else b"") + member("model", b"")
    tail = b",".join(members[at:])
    after = blank() + (b"," if tail else b"") + tail + b"}" + blank()
    return before, after, {"model": "", **dict(others)}


@given(bodies(), TEXT, TEXT, st.booleans())
def test_only_the_model_is_exchanged(
    body: tuple[bytes, bytes, dict[str, Any]], old: str, new: str, escapes: bool
) -> None:
    before, after, _ = body
    given_body = before + quoted(old, escapes) + after
    made = with_model(given_body, new)
    assert made is not None
    assert made.startswith(before)
    assert made.endswith(after)
    assert json.loads(made[len(before) : len(made) - len(after)]) == new
    assert json.loads(made) == {**json.loads(given_body), "model": new}


@pytest.mark.parametrize(
    ("body", "made"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b'{"x": {"model": "in"}, "model": "a", "y": [{"model": "in"}]}',
         b'{"x": {"model": "in"}, "model": "new", "y": [{"model": "in"}]}'),
        # Engines keep the last of equal names.
        (b'{"model":"a","model":"b"}', b'{"model":"a","model":"new"}'),
        (b'{"mod\\u0065l":"a"}', b'{"mod\\u0065l":"new"}'),
        (b'{"s":"\\"model\\": \\"a\\"","model":"\\"a\\\\"}', b'{"s":"\\"model\\": \\"a\\"","model":"new"}'),
        (b' \n{ "model"\t:\r\n "a" }\n', b' \n{ "model"\t:\r\n "new" }\n'),
        (b'{"model":""}', b'{"model":"new"}'),
        (b'{"model":7}', None),
        (b'{"model":null}', None),
        (b'{"model":"a","model":7}', None),
        (b'{"x":"model"}', None),
        (b"[]", None),
        (b"", None),
        (b'{"model":"a"', None),
    ],
)  # fmt: skip
def test_bodies_by_hand(body: bytes, made: bytes | None) -> None:
    assert with_model(body, "new") == made


def test_the_value_that_is_exchanged_is_the_one_that_was_read() -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"hi"}],"model":"b"}'
    span = model_span(body)
    assert span is not None
    parsed = Parser().parse("/v1/chat/completions", body)
    assert json.loads(body[span[0] : span[1]]) == parsed.model == "b"


def test_names_are_written_as_json() -> None:
    assert with_model(b'{"model":"a"}', 'é"\\\n/😀') == '{"model":"é\\"\\\\\\n/😀"}'.encode()


def test_a_long_body_is_kept_whole() -> None:
    content = b'{"messages":[{"content":"' + b"model " * 500_000 + b'"}],"model":"a","n":1}'
    made = with_model(content, "longer-name")
    assert made == content.replace(b'"model":"a"', b'"model":"longer-name"')
