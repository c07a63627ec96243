# SPDX-License-Identifier: Apache-2.0
"""Taking out of a streamed answer what the client did not ask for, wherever the answer is cut."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.requests import hideusage
from epp.requests.hideusage import HideUsage
from epp.requests.restore import ModelNames
from epp.requests.usage import UsageReader

DONE = b"data: [DONE]\n\n"
WORD = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
FINAL = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
NULL = WORD.replace(b"]}\n", b'],"usage":null}\n')
SO_FAR = WORD.replace(b"]}\n", b'],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n')
FILTERS = b'data: {"choices":[],"prompt_filter_results":[{"x":1}],"usage":null}\n\n'
PING = b": ping\n\n"
SAYS = b'data: {"choices":[{"delta":{"content":"\\"usage\\":null, \\"choices\\":[]"},"usage":7}]}\n\n'
KEPT = SAYS + b'data: {"choices":[{"text":"usage"}],"x":"usage"}\n\n' + PING + b"event: e\nid: 1\ndata: usage\n\n"


def in_one(data: bytes) -> bytes:
    return HideUsage().feed(data, True)


def in_pieces(pieces: list[bytes]) -> bytes:
    hide = HideUsage()
    return b"".join([hide.feed(piece, False) for piece in pieces]) + hide.feed(b"", True)


@pytest.mark.parametrize(("data", "expected"), [
    (WORD * 3 + FINAL + DONE, WORD * 3 + DONE),
    (NULL * 3 + FINAL + DONE, WORD * 3 + DONE),
    (SO_FAR * 3 + FINAL + DONE, WORD * 3 + DONE),
    (FILTERS + NULL + FINAL + DONE, b'data: {"choices":[],"prompt_filter_results":[{"x":1}]}\n\n' + WORD + DONE),
    (KEPT + FINAL + DONE, KEPT + DONE),
    (FINAL.replace(b"[]", b"[ ]").replace(b"data: ", b"data:") + DONE, DONE),
    ((NULL + FINAL + DONE).replace(b"\n", b"\r\n"), (WORD + DONE).replace(b"\n", b"\r\n")),
    (NULL.replace(b",", b", ").replace(b":", b": "), WORD.replace(b",", b", ").replace(b":", b": ")),
    (b'data: {"usage" : null , "id":"c","choices":[1]}\n\n', b'data: {"id":"c","choices":[1]}\n\n'),
    (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
    (b'data: {"usage":null,"choices":[{"usage":null}],"x":2}\n\n', b'data: {"choices":[{"usage":null}],"x":2}\n\n'),
    # A stream that ends without its last empty line.
    (WORD + FINAL.rstrip(), WORD),
    (WORD + FINAL.rstrip() + b"\n", WORD),
    (WORD + NULL.rstrip(), WORD + WORD.rstrip()),
    # What is no chunk of a completion, or not readable, stays.
    (b'data: {"usage":nul}\n\n', b'data: {"usage":nul}\n\n'),
    (b'data: ["usage"]\n\n', b'data: ["usage"]\n\n'),
    (b'data: {"choices":[],\ndata: "usage":{}}\n\n', b'data: {"choices":[],\ndata: "usage":{}}\n\n'),
    (b'data: {"error":{"message":"no \\"usage\\""}}\n\n', b'data: {"error":{"message":"no \\"usage\\""}}\n\n'),
    (b'{"choices":[],"usage":{}}', b'{"choices":[],"usage":{}}'),
    (b'data: {"\\u0075sage":null,"x":"usage"}\n\n', b'data: {"\\u0075sage":null,"x":"usage"}\n\n'),
    (b"", b""), (b"\n\n\n", b"\n\n\n"), (DONE, DONE), (b"data", b"data"),
])  # fmt: skip
def test_answers_by_hand_in_every_cut(data: bytes, expected: bytes) -> None:
    assert in_one(data) == expected
    assert in_pieces([bytes([byte]) for byte in data]) == expected
    for cut in range(len(data)):
        assert in_pieces([data[:cut], data[cut:]]) == expected


PARTS = st.sampled_from(
    [WORD, NULL, SO_FAR, FINAL, FILTERS, DONE, PING, SAYS, b"\n", b"\r\n", b"\r", b"data: ", b'"usage"', b'"usage":null',
     b'{"choices":[]', b",", b"}", b'"choices":[],"usage":{}', b"x" * 60, b"\xff"]
)  # fmt: skip


@given(st.lists(PARTS, max_size=12), st.data(), st.sampled_from([40, 100, 1000]))
def test_where_it_is_cut_makes_no_difference(parts: list[bytes], data: st.DataObject, limit: int) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hideusage, "LIMIT_BYTES", limit)
        assert in_pieces(pieces) == in_one(whole) == in_pieces(parts)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["usage", '"usage":null', "\n\n"]
)
CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(st.fixed_dictionaries({"text": TEXTS, "usage": st.none() | TEXTS}), max_size=2)},
    optional={"id": TEXTS, "usage": st.none() | st.dictionaries(TEXTS, st.integers(0, 9), max_size=2), "x": TEXTS},
)


SEPARATORS = st.sampled_from([(",", ":"), (", ", ": ")])


@given(st.lists(CHUNKS, max_size=6), SEPARATORS, st.sampled_from(["\n", "\r\n"]), st.integers(1, 50))
def test_the_meaning_of_any_stream(
    chunks: list[dict[str, Any]], separators: tuple[str, str], line: str, size: int
) -> None:
    def written(value: object) -> bytes:
        return f"data: {json.dumps(value, separators=separators)}{line}{line}".encode()

    data = b"".join(map(written, chunks)) + DONE
    expected = b"".join(
        written({name: value for name, value in chunk.items() if name != "usage"})
        for chunk in chunks
        if chunk["choices"] or not isinstance(chunk.get("usage"), dict)
    )
    assert in_pieces([data[at : at + size] for at in range(0, len(data), size)]) == expected + DONE


def test_an_event_goes_out_as_soon_as_it_has_ended() -> None:
    hide = HideUsage()
    assert hide.feed(WORD, False) == WORD
    assert hide.feed(WORD + NULL[:20], False) == WORD
    assert hide.feed(NULL[20:-1], False) == b""
    assert hide.feed(NULL[-1:] + b"dat", False) == WORD
    assert hide.feed(b"a: [DONE]\n\n", False) == DONE


def test_an_event_that_is_too_long_passes_by_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hideusage, "LIMIT_BYTES", 1000)
    long = b'data: {"choices":[],"usage":{},"x":"' + b"x" * 2000 + b'"}\n\n'
    hide = HideUsage()
    out = hide.feed(long[:900], False)
    assert out == b""
    out += hide.feed(long[900:1500], False)
    assert len(out) >= 1498
    out += hide.feed(long[1500:] + FINAL + DONE, False)
    assert out == long + DONE
    assert hide.feed(b"", True) == b""


@pytest.mark.parametrize("names_first", [True, False])
@pytest.mark.parametrize("size", [1, 7, 50, 10_000])
def test_together_with_the_models_name(names_first: bool, size: int) -> None:
    data = (NULL * 2 + FINAL + DONE).replace(b'"id":"c"', b'"id":"c","model":"target"')
    names, hide = ModelNames("target", "client"), HideUsage()
    filters = (names, hide) if names_first else (hide, names)
    out = b""
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    for number, piece in enumerate(pieces):
        for one in filters:
            piece = one.feed(piece, number == len(pieces) - 1)
        out += piece
    assert out == (WORD * 2 + DONE).replace(b'"id":"c"', b'"id":"c","model":"client"')


def test_the_tokens_can_still_be_read_before_it() -> None:
    reader = UsageReader()
    reader.feed(NULL + FINAL)
    usage = reader.result()
    assert usage is not None
    assert usage.total_tokens == 5
