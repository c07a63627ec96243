# SPDX-License-Identifier: Apache-2.0
"""The model's name out of a request's body. JSON is walked through once, and nothing of it but the name is built."""

from __future__ import annotations

import re

import msgspec

from epp.gateway.names import header_fault
from epp.gateway.refusal import Refused

_BOUNDARY = re.compile(r'(?:^|[;"\s])boundary\s*=\s*(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
_FIELD = re.compile(rb'^content-disposition:[^\r\n]*;\s*name\s*=\s*"?model"?\s*(?:;|$)', re.IGNORECASE | re.MULTILINE)
_MOST_PARTS = 1000
"""Of a form, as many as servers take; a client must not keep the loop busy with a million of them."""
_PART_HEAD_BYTES = 2048
"""The longest head of a form's part."""
_ODD = re.compile(rb"[;\s]name\s*\*|\n[ \t]|[;\s]name\s*=.*[;\s]name\s*=", re.IGNORECASE | re.DOTALL)
"""A name in another form than `name="..."`, or a second one, or a header in several lines."""
_ODD_PART = (
    "a part of the form cannot be read: after the boundary a line ends, then come its headers, each in one line, at "
    f'most {_PART_HEAD_BYTES} bytes, with one name="..."'
)
_NAME_BYTES = 4096


class _Named(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Named).decode
_text = msgspec.json.Decoder(str).decode


def model_in_json(body: bytes) -> str:
    """The member `model` of a JSON object; of several the last, as engines read it. Raises `Refused`."""
    try:
        raw = bytes(_decode(body).model)
    except msgspec.ValidationError:
        raise Refused(400, "invalid_json", "the body is no JSON object; send one with a field `model`") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, "invalid_json", f"the body is no JSON: {error}; send one JSON object") from None
    except RecursionError:
        raise Refused(400, "invalid_json", "the body's JSON is nested too deeply") from None
    if raw in (b"", b"null"):
        raise Refused(400, "model_missing", "the body names no model; add the field `model`")
    try:
        return _checked(_text(raw))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(400, "model_invalid", "the field `model` is no text; set it to the model's name") from None


def model_in_form(body: bytes, content_type: str) -> str:
    """The field `model` of a form (multipart/form-data); of several the last. Raises `Refused`.

    What servers may read in another way is refused, or a request would be routed by one name and served by another.
    """
    found = _BOUNDARY.findall(content_type)
    if not content_type.lower().lstrip().startswith("multipart/form-data") or len(found) != 1:
        raise Refused(400, "invalid_form", "the body must be multipart/form-data with one boundary and a field `model`")
    quoted, plain = found[0]
    delimiter = b"\r\n--" + (quoted or plain).encode("utf-8", "surrogateescape")
    value: bytes | None = None
    parts = 0
    # The first delimiter has no line before it.
    at = 0 if body.startswith(delimiter[2:]) else body.find(delimiter)
    while at >= 0:
        start = at + len(delimiter) - (2 if at == 0 else 0)
        at = body.find(delimiter, start)
        if body.startswith(b"--", start) or at < 0:
            # The end; what follows is no part of the form, and a part without an end is none.
            break
        parts += 1
        if parts > _MOST_PARTS:
            raise Refused(400, "invalid_form", f"the form has more than {_MOST_PARTS} parts")
        head_end = body.find(b"\r\n\r\n", start, start + _PART_HEAD_BYTES)
        if not body.startswith(b"\r\n", start) or not 0 <= head_end <= at - 4 or _ODD.search(body, start, head_end):
            raise Refused(400, "invalid_form", _ODD_PART)
        if _FIELD.search(body, start, head_end):
            value = body[head_end + 4 : min(at, head_end + 4 + _NAME_BYTES)]
    if value is None:
        raise Refused(400, "model_missing", "the form has no field `model`; add it")
    try:
        return _checked(value.decode())
    except UnicodeDecodeError:
        raise Refused(400, "model_invalid", "the form's field `model` is not UTF-8") from None


def _checked(name: str) -> str:
    fault = header_fault(name)
    if fault is None:
        return name
    code = "model_missing" if not name else "model_invalid"
    raise Refused(400, code, f"the model's name {fault}; set `model` to the name of a model")
