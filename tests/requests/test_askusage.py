# SPDX-License-Identifier: Apache-2.0
"""Asking for the tokens of a streamed answer: one splice, and no other byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.requests.askusage import ask_usage
from epp.requests.rewrite import with_model

CHAT = "/v1/chat/completions"
ASKED = b'{"include_usage":true}'


@pytest.mark.parametrize(("body", "expected"), [
    (b'{"model":"m","stream":true}', b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'),
    (b'{ "stream" : true , "x": 1}', b'{ "stream" : true,"stream_options":{"include_usage":true} , "x": 1}'),
    (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":' + ASKED + b"}"),
    (b'{"stream_options":{},"stream":true}', b'{"stream_options":' + ASKED + b',"stream":true}'),
    (b'{"stream_options":{ \n},"stream":true}', b'{"stream_options":{"include_usage":true \n},"stream":true}'),
    (b'{"stream":true,"stream_options":{"x":1}}', b'{"stream":true,"stream_options":{"include_usage":true,"x":1}}'),
    (b'{"stream":true,"stream_options":{"include_usage": false, "x":1}}',
     b'{"stream":true,"stream_options":{"include_usage": true, "x":1}}'),
    (b'{"stream":true,"stream_options":{"include_usage":null}}', b'{"stream":true,"stream_options":' + ASKED + b"}"),
    # What some engine takes for a stream, and for no wish.
    *[(b'{"stream":%b}' % value, b'{"stream":%b,"stream_options":{"include_usage":true}}' % value)
      for value in (b'"true"', b'"YES"', b'"on"', b'"tr\\u0075e"', b'"x"', b"1", b"1.0", b"2", b"-1", b"[0]", b'{"a":0}')],
    *[(b'{"stream":true,"stream_options":{"include_usage":%b}}' % value,
       b'{"stream":true,"stream_options":{"include_usage":true}}')
      for value in (b'"no"', b"0", b"0.0", b'"true"', b"1", b"[]", b"{}", b'"x"', b'""')],
    *[(b'{"stream":true,"stream_options":%b}' % value, b'{"stream":true,"stream_options":{"include_usage":true}}')
      for value in (b"[]", b"false", b'""', b"0", b"7", b'"x"', b'[{"include_usage":true}]')],
    (b'{"stream":[%b]}' % (b" " * 99), b'{"stream":[%b],"stream_options":{"include_usage":true}}' % (b" " * 99)),
    (b'{"\\u0073tream":true}', b'{"\\u0073tream":true,"stream_options":{"include_usage":true}}'),
    (b'{"stre\\u0061m":true,"stream_option\\u0073":{"includ\\u0065_usage":false}}',
     b'{"stre\\u0061m":true,"stream_option\\u0073":{"includ\\u0065_usage":true}}'),
    # Of equal members the last counts.
    (b'{"stream":false,"stream":true}', b'{"stream":false,"stream":true,"stream_options":{"include_usage":true}}'),
    (b'{"stream":true,"stream_options":{"include_usage":true},"stream_options":null}',
     b'{"stream":true,"stream_options":{"include_usage":true},"stream_options":' + ASKED + b"}"),
    # What looks like a member, and is none.
    (b'{"x":[{"stream_options":{"include_usage":true},"y":"\\"stream\\":0"}],"stream":true}',
     b'{"x":[{"stream_options":{"include_usage":true},"y":"\\"stream\\":0"}],"stream":true,"stream_options":%b}' % ASKED),
    (b'{"stream":true,"stream_options":{"x":{"include_usage":true}}}',
     b'{"stream":true,"stream_options":{"include_usage":true,"x":{"include_usage":true}}}'),
])  # fmt: skip
def test_bodies_by_hand(body: bytes, expected: bytes) -> None:
    assert ask_usage(body, CHAT) == expected
    assert json.loads(expected)["stream_options"]["include_usage"] is True
    assert ask_usage(expected, CHAT) is None


@pytest.mark.parametrize("body", [
    b'{"model":"m"}', b'{"stream":false}', b'{"stream":null}',
    *[b'{"stream":%b}' % value for value in (b'"false"', b'"No"', b'"off"', b'"0"', b'""', b"0", b"-0.0", b"[]", b"{}")],
    b'{"stream":true,"stream":false}',
    b'{"stream":true,"stream_options":{"include_usage":true}}',
    b'{"stream":true,"stream_options":{"include_usage" : true, "x": null}}',
    b'{"messages":[{"stream":true}]}', b'{"content":"{\\"stream\\":true}"}',
    b"", b"null", b"[]", b'["stream"]', b'{"stream":true', b'{"stream":true}x', b'{"stream":true,"x":NaN}',
    b'\xef\xbb\xbf{"stream":true}', b'{"stream":true,"stream_options":' + b"[" * 100_000,
])  # fmt: skip
def test_nothing_is_changed_where_nothing_is_to_be_asked_or_read(body: bytes) -> None:
    assert ask_usage(body, CHAT) is None


@pytest.mark.parametrize(("path", "asked"), [
    ("/v1/chat/completions", True), ("/v1/completions", True), ("/openai/v1/chat/completions", True),
    ("/a/b/v1/completions", True), ("/v1/chat/completions?x=/v1/models", True), ("/v1/completions/", True),
    ("/v1/responses", False), ("/v1/messages", False), ("/v1/embeddings", False), ("/v1/completions/render", False),
    ("/completions", False), ("/xv1/completions", False), ("/x?y=/v1/completions", False), ("", False),
])  # fmt: skip
def test_only_completions_have_it(path: str, asked: bool) -> None:
    assert (ask_usage(b'{"stream":true}', path) is not None) is asked


WORDS = st.sampled_from(["stream", "stream_options", "include_usage", "x", '"stream":true', "messages"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=10,
)
OPTIONS = st.none() | st.dictionaries(WORDS.filter(lambda w: w != "include_usage"), VALUES, max_size=3)


@st.composite
def documents(draw: Any) -> dict[str, Any]:
    """A streamed request, in any order, with things in it that look like what is asked."""
    members: list[tuple[str, Any]] = [("stream", True), ("model", draw(VALUES))]
    if draw(st.booleans()):
        options = draw(OPTIONS)
        if options is not None and draw(st.booleans()):
            options["include_usage"] = draw(st.sampled_from([False, None, True]))
        members.append(("stream_options", options))
    names = WORDS.filter(lambda word: not word.startswith("stream"))
    members += draw(st.lists(st.tuples(names, VALUES), max_size=3))
    return dict(draw(st.permutations(members)))


@given(documents(), st.sampled_from([None, 2]), st.booleans(), st.sampled_from([(",", ":"), (" , ", " : ")]))
def test_the_meaning_is_the_same_but_for_the_wish(
    document: dict[str, Any], indent: int | None, ascii_only: bool, separators: tuple[str, str]
) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only, separators=separators).encode()
    asked = ask_usage(body, CHAT)
    options = document.get("stream_options") or {}
    if options.get("include_usage") is True:
        assert asked is None
        return
    assert asked is not None
    assert json.loads(asked) == {**document, "stream_options": {**options, "include_usage": True}}
    front, back = common(body, asked)
    gone = body[front : len(body) - back]
    assert gone in b"null" or gone in b"false"
    assert len(asked) - len(body) <= len(b',"stream_options":{"include_usage":true}')
    assert ask_usage(asked, CHAT) is None


def common(a: bytes, b: bytes) -> tuple[int, int]:
    """How many bytes `a` and `b` have in common at their fronts, and at their ends beyond that."""
    short = min(len(a), len(b))
    front = next((at for at in range(short) if a[at] != b[at]), short)
    return front, next((at for at in range(short - front) if a[-1 - at] != b[-1 - at]), short - front)


@given(documents(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8))
def test_both_splices_on_one_body_in_either_order(document: dict[str, Any], model: str) -> None:
    body = json.dumps({**document, "model": "client's"}).encode()
    first = ask_usage(body, CHAT)
    renamed = with_model(body, model)
    assert renamed is not None
    if first is None:
        assert ask_usage(renamed, CHAT) is None
        return
    assert with_model(first, model) == ask_usage(renamed, CHAT)


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    for body in (data, b'{"stream":true,' + data, b'{"stream":true,"stream_options":' + data + b"}"):
        asked = ask_usage(body, CHAT)
        assert asked is None or ask_usage(asked, CHAT) is None
