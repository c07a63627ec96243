# SPDX-License-Identifier: Apache-2.0
"""What the body modes show of a request and of its response, and what can be told from that."""

from __future__ import annotations

from collections.abc import Mapping

from epp.extproc.handler import BodyMode, End

DUPLEX = BodyMode.FULL_DUPLEX_STREAMED
BUFFERING = (BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL)

# How far a request or a response has come.
NOTHING, HEADERS, BODY, ENDED, TRAILERS = range(5)

_BODILESS = frozenset(("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"))


def has_no_body(headers: Mapping[str, str], mode: BodyMode) -> bool:
    """Nothing is worth waiting for, though Envoy does not know the end of the request yet.

    A body that has neither a length nor a method that means one is, in practice, empty and followed by trailers.
    In the buffering modes the headers can only be set before those. And a connection that changes its protocol
    has no body that ends.
    """
    method = headers.get(":method")
    if method == "POST":
        return False
    if "upgrade" in headers or method == "CONNECT":
        return True
    return mode in BUFFERING and method in _BODILESS and "content-length" not in headers


def end_shown(mode: BodyMode, response_at: int, routed: bool, headers_shown: bool) -> End:
    """What it means that the other side ended a stream whose request was decided: did we see all of the response that
    `mode` shows?

    * response_at: how far the response has come; routed: whether the request was sent on, as far as its mode shows
    * headers_shown: whether Envoy sends the headers of responses in mode NONE
    """
    if mode is BodyMode.NONE and response_at is NOTHING:
        # Where Envoy shows no response headers either, it ends the stream as soon as we have routed.
        return End.UNWATCHED if routed and not headers_shown else End.GONE
    # BUFFERED and BUFFERED_PARTIAL send one body message; trailers follow it, or what was over the limit.
    last = HEADERS if mode is BodyMode.NONE else BODY
    whole = (mode is BodyMode.NONE or mode in BUFFERING) and response_at is last
    return End.COMPLETE if whole else End.GONE
