# SPDX-License-Identifier: Apache-2.0
"""The model's name out of a body: JSON and forms."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.gateway.names import MOST_BYTES, header_fault
from epp.gateway.naming import model_in_form, model_in_json
from epp.gateway.refusal import Refused


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"qwen"}', "qwen"),
        (b'{"model" :\n"Qwen/Qwen2.5-0.5B-Instruct", "messages": [{"role": "user"}]}', "Qwen/Qwen2.5-0.5B-Instruct"),
        (b'{"x": {"model": "inner"}, "model": "outer"}', "outer"),
        (b'{"messages": [{"content": "\\"model\\": \\"no\\""}], "model": "yes"}', "yes"),
        # Engines read the last of several.
        (b'{"model": "first", "model": "last"}', "last"),
        ('{"model": "modèle"}'.encode(), "modèle"),
        (b'{"model": "mod\\u00e8le"}', "modèle"),
        # A number that no float holds is nobody's matter here.
        (b'{"temperature": 1e999, "model": "qwen"}', "qwen"),
    ],
)
def test_json(body: bytes, model: str) -> None:
    assert model_in_json(body) == model


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b'"model"', "invalid_json"),
        (b'{"model": "a"} {}', "invalid_json"),
        (b'{"a":' * 100_000, "invalid_json"),
        (b"{}", "model_missing"),
        (b'{"model": null}', "model_missing"),
        (b'{"model": ""}', "model_missing"),
        (b'{"model": 5}', "model_invalid"),
        (b'{"model": ["a"]}', "model_invalid"),
        (b'{"model": "a\\r\\nx-evil: 1"}', "model_invalid"),
        (b'{"model": "a\\u0000"}', "model_invalid"),
        (b'{"model": " a"}', "model_invalid"),
        (json.dumps({"model": "a" * (MOST_BYTES + 1)}).encode(), "model_invalid"),
    ],
)
def test_json_that_names_no_model(body: bytes, code: str) -> None:
    with pytest.raises(Refused) as raised:
        model_in_json(body)
    assert (raised.value.status, raised.value.code) == (400, code)
    assert "\n" not in str(raised.value)


@given(st.text())
def test_every_name_that_a_header_can_have_is_read_as_it_is(name: str) -> None:
    if header_fault(name) is None:
        assert model_in_json(json.dumps({"model": name}).encode()) == name
    else:
        with pytest.raises(Refused):
            model_in_json(json.dumps({"model": name}).encode())


def form(*parts: tuple[str, bytes], boundary: str = "b-1") -> bytes:
    pieces = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + value + b"\r\n"
        for head, value in parts
    ]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


TYPE = "multipart/form-data; boundary=b-1"
FILE = ('name="file"; filename="model"', b"\x00\xff\r\n\r\nname=model")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(('name="model"', b"whisper-1"), FILE), TYPE),
        (form(FILE, ('name="model"', b"whisper-1")), TYPE),
        (form(("name=model", b"whisper-1")), TYPE),
        (form(('name="model"', b"x"), ('name="model"', b"whisper-1")), TYPE),
        (b"preamble\r\n" + form(('name="model"', b"whisper-1")), TYPE),
        (form(('name="model"', b"whisper-1"), boundary="a b"), 'multipart/form-data; charset=x; boundary="a b"'),
        (form(('name="model"\r\nContent-Type: text/plain', b"whisper-1")), TYPE),
        # What follows the end is no part of the form.
        (form(('name="model"', b"whisper-1")) + form(('name="model"', b"x")), TYPE),
        (form(("name=\"file\"; filename*=UTF-8''model", b"x"), ('name="model"', b"whisper-1")), TYPE),
    ],
)
def test_form(body: bytes, content_type: str) -> None:
    assert model_in_form(body, content_type) == "whisper-1"


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"{}", "application/json", "invalid_form"),
        (b"{}", "multipart/form-data", "invalid_form"),
        (b"", TYPE, "model_missing"),
        (form(FILE), TYPE, "model_missing"),
        (form(('name="models"', b"x")), TYPE, "model_missing"),
        (form(('name="model"', b"")), TYPE, "model_missing"),
        (form(('name="model"', b"\xff")), TYPE, "model_invalid"),
        (form(('name="model"', b"a" * 100_000)), TYPE, "model_invalid"),
        # Servers would read another name, or another form.
        (form(('name="model"', b"a"), ("name*=utf-8''model", b"b")), TYPE, "invalid_form"),
        (form(('name="model"', b"a"), ('name="model"; name="x"', b"b")), TYPE, "invalid_form"),
        (form(('name="model"', b"a"), ('x="y";\r\n name="model"', b"b")), TYPE, "invalid_form"),
        (form(('name="model"', b"a"), (f'x="{"y" * 3000}"; name="model"', b"b")), TYPE, "invalid_form"),
        (form(('name="model"', b"a")).replace(b"--b-1\r\n", b"--b-1x\r\n"), TYPE, "invalid_form"),
        (form(('name="model"', b"a")), TYPE + "; boundary=other", "invalid_form"),
        (form(('name="model"', b"a")), 'multipart/form-data; x="; boundary=b-1"; boundary=other', "invalid_form"),
        (form(*[('name="model"', b"a")] * 1001), TYPE, "invalid_form"),
        # The part never ends.
        (b'--b-1\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper', TYPE, "model_missing"),
    ],
)
def test_forms_that_name_no_model(body: bytes, content_type: str, code: str) -> None:
    with pytest.raises(Refused) as raised:
        model_in_form(body, content_type)
    assert (raised.value.status, raised.value.code) == (400, code)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_form_or_refused(junk: bytes) -> None:
    try:
        model_in_form(b"--b-1\r\n" + junk + b"\r\n--b-1--", TYPE)
    except Refused as refused:
        assert refused.status == 400
