# SPDX-License-Identifier: Apache-2.0
"""Bodies of so many values that taking them apart would cost far more than their bytes.

A JSON value of three bytes becomes an object of sixty, and each is touched once more to build the prompt: a body of
64 MiB could hold the event loop for half a minute and take gigabytes. Such a body is not refused, as it may be honest
(a very long list of token ids); its prompt is the JSON of the prompt's field, which is as good to follow prefixes by,
and its tokens are estimated from that text.

Bound: the objects made of any other body are at most `VALUES_LIMIT`, and token ids `TOKENS_LIMIT`; of a countless one
there is nothing but slices.
"""

from __future__ import annotations

import msgspec

from epp.contract.errors import BadRequest

VALUES_LIMIT = 1 << 19
"""Lists, objects and their members; far above a chat of a million tokens."""
TOKENS_LIMIT = 1 << 22
_DEFAULT = msgspec.Raw()


class Countless(msgspec.Struct):
    """The fields by which such a body is routed, as JSON; empty when absent."""

    model: msgspec.Raw = _DEFAULT
    stream: msgspec.Raw = _DEFAULT
    cache_salt: msgspec.Raw = _DEFAULT
    messages: msgspec.Raw = _DEFAULT
    prompt: msgspec.Raw = _DEFAULT
    input: msgspec.Raw = _DEFAULT
    items: msgspec.Raw = _DEFAULT


decoder = msgspec.json.Decoder(Countless)
_text = msgspec.json.Decoder(str).decode


def is_countless(body: bytes, commas: int = VALUES_LIMIT) -> bool:
    """Whether a body may hold more values than are made of it. Characters of strings count too; most bodies are
    shorter than the limit, and not even looked at."""
    if len(body) <= VALUES_LIMIT:
        return False
    opened = body.count(b"[") + body.count(b"{")
    return opened > VALUES_LIMIT or opened + body.count(b",") > commas


def text_of(raw: msgspec.Raw) -> str | None:
    """The text that `raw` is, or None when it is something else."""
    try:
        return _text(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def model_of(raw: msgspec.Raw) -> object:
    """The model: a text, None when absent, anything else for what is no text."""
    if bytes(raw) in (b"", b"null"):
        return None
    text = text_of(raw)
    return False if text is None else text


def required(raw: msgspec.Raw, says: str) -> bytes:
    """The JSON of the prompt's field. Raises `BadRequest`."""
    given = bytes(raw)
    if given in (b"", b"null", b"[]", b"{}", b'""'):
        raise BadRequest(says)
    return given
