# SPDX-License-Identifier: Apache-2.0
"""What an answer's bytes pass through on their way to the client, where that is not the endpoint's own answer to what
the client asked: another model was asked for, or tokens that the client did not want to be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from epp.contract.requests import InferenceRequest
from epp.director.response import Response
from epp.requests.hideusage import HideUsage
from epp.requests.restore import ModelNames

if TYPE_CHECKING:
    from epp.director.director import Director


class Filter(Protocol):
    """Changes an answer while it passes by."""

    def feed(self, piece: bytes, end: bool) -> bytes:
        """The next piece; returns what to send on in its place. Nothing is held back of the last one."""
        ...


class _Both:
    __slots__ = ("_first", "_second")

    def __init__(self, first: Filter, second: Filter) -> None:
        self._first = first
        self._second = second

    def feed(self, piece: bytes, end: bool) -> bytes:
        return self._second.feed(self._first.feed(piece, end), end)


def filter_of(director: Director, request: InferenceRequest, response: Response, hides: bool) -> Filter | None:
    """What `response`, the answer to `request`, passes through; None for nothing. `hides`: tokens were asked for that
    the client shall not see; only a stream of events has them."""
    renames = request.target_model != request.model
    if response.encoded and renames:
        director.say_once("answers with a content-encoding keep the name of the model that was asked for")
    if response.encoded and hides:
        director.say_once("answers with a content-encoding keep the tokens that were asked for (include_usage)")
    if not response.readable:
        return None
    names = ModelNames(request.target_model, request.model) if renames else None
    hide = HideUsage() if hides and response.streaming else None
    return _Both(names, hide) if names is not None and hide is not None else names or hide
