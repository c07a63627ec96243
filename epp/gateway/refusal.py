# SPDX-License-Identifier: Apache-2.0
"""Answers of our own: errors in the shape of the API that was asked, and the list of models. One line of JSON each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from epp.extproc import HeaderList, Immediate

_JSON: tuple[tuple[str, bytes], ...] = (("content-type", b"application/json"),)
_ANTHROPIC_TYPES = {404: "not_found_error", 413: "request_too_large", 500: "api_error", 503: "overloaded_error"}


class Refused(Exception):
    """A request that is answered with an error. `code` is also the reason it is counted under."""

    def __init__(self, status: int, code: str, message: str, headers: HeaderList = ()) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def error_answer(refused: Refused, anthropic: bool) -> Immediate:
    """The answer to a refused request: OpenAI's shape, or Anthropic's."""
    message = str(refused)
    if anthropic:
        kind = _ANTHROPIC_TYPES.get(refused.status, "invalid_request_error")
        document: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": message}}
    else:
        kind = "invalid_request_error" if refused.status < 500 else "server_error"
        document = {"error": {"message": message, "type": kind, "code": refused.code}}
    return answer(refused.status, document, refused.headers, refused.code)


def model_answer(name: str) -> Immediate:
    """One model, in OpenAI's form."""
    return answer(200, _model(name))


def models_answer(names: Iterable[str]) -> Immediate:
    """The list of models, in OpenAI's form."""
    return answer(200, {"object": "list", "data": [_model(name) for name in names]})


def answer(status: int, document: dict[str, Any], headers: HeaderList = (), details: str = "") -> Immediate:
    """`document` as JSON."""
    return Immediate(status, _encode(document), [*_JSON, *headers], details)


def _encode(document: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        # Half of a surrogate pair, from bytes of a path that are no UTF-8.
        return msgspec.json.encode(_printable(document))


def _printable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _printable(item) for key, item in value.items()}
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _model(name: str) -> dict[str, Any]:
    # `created` is asked for by clients and known to nobody.
    return {"id": name, "object": "model", "created": 0, "owned_by": "epp"}
