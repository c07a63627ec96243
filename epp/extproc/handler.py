# SPDX-License-Identifier: Apache-2.0
"""What an application of ext_proc implements, and the values it deals in.

One `Handler` lives as long as one HTTP request. `Exchange` speaks the protocol for it, in whatever body modes Envoy
is configured; the handler sees a request, answers with an `Outcome`, watches the response, and is closed exactly once.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec


class BodyMode(enum.IntEnum):
    """How Envoy sends bodies; the numbers are the protocol's."""

    NONE = 0
    STREAMED = 1
    BUFFERED = 2
    BUFFERED_PARTIAL = 3
    FULL_DUPLEX_STREAMED = 4


class Watch(enum.IntEnum):
    """How much of the response a handler wants to see: it is closed as soon as it has.

    Then the stream ends too, and Envoy sends no more, except where that would lose what it has already sent
    (`HttpRequest.can_end`): with response body mode FULL_DUPLEX_STREAMED the rest passes through us unseen, if HEADERS
    was asked for, or NOTHING and our answer cannot leave in one piece with the stream's end.
    """

    NOTHING = 0
    HEADERS = 1
    BODY = 2


def always(_watch: Watch) -> bool:
    """A stream that can end at any time."""
    return True


class HttpRequest(msgspec.Struct, frozen=True, gc=False):
    """A request as far as Envoy lets us see it before it must be routed.

    * headers: lower-case names, pseudo headers included; the last of several equal names wins
    * body: the whole body; None when the mode shows none of it before routing (NONE, STREAMED) or there is none
    * body_complete: false when Envoy cut the body (BUFFERED_PARTIAL over its limit), or we could not take all of it
    * crowded: it is not complete because the bodies of all streams together take too much
    * metadata: filter metadata by namespace, as plain values
    * headers_fixed: Envoy takes no headers any more (BUFFERED and BUFFERED_PARTIAL, when trailers come where a body was
      expected): of a `Route` only the metadata counts
    * mode, response_mode: how Envoy sends the bodies of this request and of its response
    * can_end: whether the stream can end once so much of the response was watched; where not, the rest passes through
      us whatever is watched
    """

    headers: Mapping[str, str]
    body: bytes | None
    body_complete: bool
    mode: BodyMode
    metadata: Mapping[str, Mapping[str, Any]]
    headers_fixed: bool = False
    response_mode: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
    can_end: Callable[[Watch], bool] = always
    crowded: bool = False


HeaderList = Sequence[tuple[str, bytes]]


class Route(msgspec.Struct, frozen=True, gc=False):
    """Send the request on.

    * set_headers: request headers to set, overwriting; remove_headers: names to remove
    * metadata: dynamic metadata by namespace
    * body: a replacement of the body, None to forward the original bytes; without effect where no body was shown
    * watch: how much of the response the handler wants to see
    * reused: the handler will answer with this very object again, so its serialised form is worth keeping
    * take_metadata: called with the filter metadata (by namespace, plain values) that comes with the response's
      headers, just before `Handler.response_headers`; None spares reading it
    * tells: ask `Handler.response_end` for metadata when the response is complete, or `Handler.response_told`
    """

    set_headers: HeaderList = ()
    remove_headers: Sequence[str] = ()
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    body: bytes | None = None
    watch: Watch = Watch.BODY
    reused: bool = False
    take_metadata: Callable[[Mapping[str, Mapping[str, Any]]], None] | None = None
    tells: bool = False


class Immediate(msgspec.Struct, frozen=True, gc=False):
    """Answer the request ourselves. `details`: the reason in a word, for Envoy's access log alone."""

    status: int
    body: bytes = b""
    headers: HeaderList = ()
    details: str = ""


Outcome = Route | Immediate


class End(enum.Enum):
    """How a stream ended, seen from ext_proc."""

    COMPLETE = "complete"
    """The end of the response (or its trailers) was processed, or we answered the request ourselves, or the stream
    ended after all of the response that its mode shows: its headers (NONE), one message (BUFFERED, BUFFERED_PARTIAL)"""
    UNWATCHED = "unwatched"
    """The request goes on without us: the handler wanted to see no more (`Watch`), or Envoy shows nothing of the
    response."""
    GONE = "gone"
    """The client or Envoy went away first, or Envoy answered before we had routed."""
    FAILED = "failed"
    """The peer broke the protocol, or the handler raised."""


class Handler(Protocol):
    """The application's side of one HTTP request. Only `request` may return an awaitable."""

    def request(self, request: HttpRequest) -> Outcome | Awaitable[Outcome]:
        """Decide what becomes of the request. Called once."""
        ...

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        """The response's headers arrived; returns headers to set on it. `end`: there will be no body."""
        ...

    def response_body(self, chunk: bytes, end: bool) -> bytes | None:
        """A piece of the response's body passes by; `end` marks the last one that is shown, or, with an empty piece,
        that trailers came instead of it. Returns what to send on in its place, None to leave it as it is.

        What is kept back of a piece can be sent with a later one; at the trailers in FULL_DUPLEX_STREAMED alone. Of a
        body over the limit of BUFFERED_PARTIAL only the beginning is shown."""
        ...

    def response_told(self) -> bool:
        """Whether what was given to `response_body` so far is all that `response_end` has to know, though the response
        goes on. Asked after a piece that is not the last, where `Route.tells` was set and `response_end` not called."""
        ...

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        """The last piece of the response, or its trailers, was just given to `response_body`, or the piece at which
        `response_told` was true; returns the dynamic metadata, by namespace, that goes out with the answer to it:
        numbers, strings, booleans. Called at most once, before `closed`, only where `Route.tells` was set, and only of
        a body that is known to be whole: not of one that BUFFERED_PARTIAL shows without its end, unless trailers
        follow."""
        ...

    def closed(self, end: End) -> None:
        """The stream is over; called exactly once, last, on every way out."""
        ...
