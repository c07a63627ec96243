# SPDX-License-Identifier: Apache-2.0
"""Another model in a request's body: the one JSON string that says it is exchanged, every other byte stays.

Of several members `model` at the top the last counts, here and for the engines (Python's and Rust's JSON readers keep
the last), so that one is exchanged. Nothing is parsed by hand: the decoder gives the value as a view into the body,
and where a view begins is where the value stands.
"""

from __future__ import annotations

import msgspec
import numpy as np


class _Named(msgspec.Struct):
    model: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Named).decode


def with_model(body: bytes, model: str) -> bytes | None:
    """`body`, a JSON object, with `model` as its model; None when it has no model that is a string."""
    found = model_span(body)
    if found is None:
        return None
    start, stop = found
    return b"".join((body[:start], msgspec.json.encode(model), body[stop:]))


def model_span(body: bytes) -> tuple[int, int] | None:
    """Where the string stands that is the model of `body`, quotes included; None when there is none."""
    try:
        found = span(body, _decode(body).model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if found is not None and body[found[0]] == ord('"') else None


def span(document: bytes, value: msgspec.Raw) -> tuple[int, int] | None:
    """Where `value` stands, that was decoded from `document`; None when it is no part of it."""
    view = memoryview(value)
    start = _address(view) - _address(document)
    stop = start + len(view)
    if not 0 < start < stop <= len(document) or document[start:stop] != view:
        return None
    return start, stop


def _address(data: bytes | memoryview) -> int:
    address: int = np.frombuffer(data, dtype=np.uint8).__array_interface__["data"][0] if data else 0
    return address
