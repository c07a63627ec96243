# SPDX-License-Identifier: Apache-2.0
"""The client's name of a model in an answer, wherever the answer is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.requests.restore import ModelNames

EVENT = b'data: {"id":"c","model":"target","choices":[{"delta":{"content":"a \\"model\\":\\"target\\" b"}}]}\n\n'
PIECES = st.sampled_from(
    [b'"model"', b'"model":"target"', b'"model" : "tar', b'get"', b'"', b":", b" ", b"\\", b"m", b'"mod', b"el", b"x",
     b'{"model": "\\u0074arget"}', b'"model":"target-2"', b",", b"target", b" " * 17, b'"model":"' + b"t" * 70]
)  # fmt: skip


def in_one(data: bytes) -> bytes:
    return ModelNames("target", "client").feed(data, True)


def in_pieces(pieces: list[bytes], asked: str = "target") -> bytes:
    names = ModelNames(asked, "client")
    return b"".join([names.feed(piece, False) for piece in pieces]) + names.feed(b"", True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"model":"target"}', b'{"model":"client"}'),
        (b'{"model": "target", "x": 1}', b'{"model": "client", "x": 1}'),
        (b'{\n  "model"\t:\r\n"target"}', b'{\n  "model"\t:\r\n"client"}'),
        (b'{"model":"targe\\u0074"}', b'{"model":"client"}'),
        (b'{"model":"other"}', b'{"model":"other"}'),
        (b'{"model":"target-2"}', b'{"model":"target-2"}'),
        (b'{"model":null,"x":"target"}', b'{"model":null,"x":"target"}'),
        (b'{"my_model":"target"}', b'{"my_model":"target"}'),
        (b'{"x":"\\"model\\":\\"target\\""}', b'{"x":"\\"model\\":\\"target\\""}'),
        (b'{"type":"message_start","message":{"model":"target"}}', b'{"type":"message_start","message":{"model":"client"}}'),
        (EVENT * 3, EVENT.replace(b'"model":"target"', b'"model":"client"') * 3),
        (b"", b""),
        (b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
    ],
)  # fmt: skip
def test_answers_by_hand_in_every_cut(data: bytes, expected: bytes) -> None:
    assert in_one(data) == expected
    assert in_pieces([bytes([byte]) for byte in data]) == expected
    for cut in range(len(data)):
        assert in_pieces([data[:cut], data[cut:]]) == expected


@given(st.lists(PIECES, max_size=12), st.data())
def test_where_it_is_cut_makes_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert in_pieces(pieces) == in_one(whole) == in_pieces(parts)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
JSON_VALUES = st.recursive(
    st.none() | NAMES | st.just("target") | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("model"), inner, max_size=3),
)


def restored(value: object) -> object:
    """What the answer means, its names exchanged."""
    if isinstance(value, dict):
        return {k: "client" if (k, v) == ("model", "target") else restored(v) for k, v in value.items()}
    return [restored(item) for item in value] if isinstance(value, list) else value


@given(st.dictionaries(NAMES | st.just("model"), JSON_VALUES), st.integers(1, 40), st.sampled_from([None, 2]))
def test_the_meaning_of_any_document(document: dict[str, object], size: int, indent: int | None) -> None:
    data = json.dumps(document, indent=indent).encode()
    out = in_pieces([data[at : at + size] for at in range(0, len(data), size)])
    # An indent of over sixteen blanks is no blank beside a colon, so depth does not matter.
    assert json.loads(out) == restored(document)


def test_only_a_value_is_held_back() -> None:
    names = ModelNames("target", "client")
    assert names.feed(b'{"id":1,"model"', False) == b'{"id":1,"model"'
    assert names.feed(b": ", False) == b": "
    assert names.feed(b'"targ', False) == b""
    assert names.feed(b'et","x":1}', False) == b'"client","x":1}'
    # No longer than a name may be when all of it is escapes.
    assert len(names.feed(b',"model":"' + b"t" * 100, False)) == 110


def test_a_complete_document_leaves_nothing_behind() -> None:
    names = ModelNames("target", "client")
    assert names.feed(b'{"model":"target"}', False) + names.feed(b"", True) == b'{"model":"client"}'
    broken = ModelNames("target", "client")
    assert broken.feed(b'{"model":"targ', False) + broken.feed(b"", True) == b'{"model":"targ'


def test_names_of_every_script() -> None:
    asked = 'modèle/"x"\\😀'
    for encoded in (json.dumps(asked), json.dumps(asked, ensure_ascii=False)):
        data = b'{"model": ' + encoded.encode() + b"}"
        for cut in range(len(data)):
            assert in_pieces([data[:cut], data[cut:]], asked) == b'{"model": "client"}'
