# SPDX-License-Identifier: Apache-2.0
"""Building the messages we send to Envoy.

Replies that never change are serialised once by `Replies`, which an exchange is given; everything else is built with
upb, which costs about two microseconds a message. Header values go through `raw_value`; headers overwrite. Body
pieces are at most 62,000 bytes, below the 64 KiB that some gateways allow for a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epp.extproc.handler import BodyMode, HeaderList, Immediate, Route
from epp.extproc.wire import RESPONSE_BODY, Heads, encode_body
from epp.protos.ext_proc_pb2 import HeaderMutation, ProcessingResponse

CHUNK_BYTES = 62_000
OVERWRITE_OR_ADD = 2
REUSED_ROUTES = 4096

Struct = Mapping[str, Any]


def set_headers(mutation: HeaderMutation, headers: HeaderList) -> None:
    """Add `headers` to `mutation`, overwriting what is there."""
    add = mutation.set_headers.add
    for key, value in headers:
        option = add()
        option.append_action = OVERWRITE_OR_ADD
        option.header.key = key
        option.header.raw_value = value


def fill_struct(struct: Any, values: Struct) -> None:
    """Write plain values into a protobuf Struct (`Struct.update` is several times slower for short strings)."""
    fields = struct.fields
    for key, value in values.items():
        if isinstance(value, str):
            fields[key].string_value = value
        elif isinstance(value, bool):
            fields[key].bool_value = value
        elif isinstance(value, int | float):
            fields[key].number_value = value
        elif isinstance(value, Mapping):
            fill_struct(fields[key].struct_value, value)
        else:
            struct.update({key: value})


class Replies:
    """The replies that never change, as bytes, and a bounded number of those that come again.

    Shared by all exchanges of a service, so it also remembers what one stream tells about the others: `headers_shown`,
    that with response body mode NONE Envoy sends headers (the modes in the first message speak of bodies alone).
    """

    __slots__ = (
        "_heads",
        "_last_headers",
        "_routes",
        "headers_shown",
        "request_body",
        "request_headers",
        "request_trailers",
        "response_body",
        "response_headers",
        "response_trailers",
    )

    def __init__(self) -> None:
        self._heads = Heads()
        self._routes: dict[int, tuple[Route, bytes]] = {}
        self._last_headers: tuple[HeaderList, bytes] = ((), b"")
        self.headers_shown = False

        def empty(name: str) -> bytes:
            reply = ProcessingResponse()
            member = getattr(reply, name)
            # A present but empty `response` is what Envoy takes for "go on"; trailers have no such member.
            (member if "trailers" in name else member.response).SetInParent()
            return reply.SerializeToString()

        self.request_headers = empty("request_headers")
        self.request_body = empty("request_body")
        self.request_trailers = empty("request_trailers")
        self.response_headers = empty("response_headers")
        self.response_body = empty("response_body")
        self.response_trailers = empty("response_trailers")

    def route(self, route: Route) -> bytes:
        """The answer to the request's headers that carries the decision."""
        if not route.reused:
            return route_headers(route)
        # The object is kept with its bytes, so nobody else can have its identity.
        known = self._routes.get(id(route))
        if known is None:
            if len(self._routes) >= REUSED_ROUTES:
                self._routes.clear()
            known = self._routes[id(route)] = (route, route_headers(route))
        return known[1]

    def pieces(self, kind: int, body: bytes, end: bool) -> list[bytes]:
        """A streamed body (`wire.REQUEST_BODY` or `wire.RESPONSE_BODY`) in pieces; the last one ends it if `end`."""
        reply = self._heads.reply
        if len(body) <= CHUNK_BYTES:
            return [reply(kind, encode_body(body, end))]
        last = (len(body) - 1) // CHUNK_BYTES * CHUNK_BYTES
        return [
            reply(kind, encode_body(body[start : start + CHUNK_BYTES], end and start == last))
            for start in range(0, len(body), CHUNK_BYTES)
        ]

    def piece(self, kind: int, encoded: bytes) -> bytes:
        """A piece handed on in the encoding in which it came."""
        return self._heads.reply(kind, encoded)

    def replaced(self, mode: BodyMode, body: bytes, end: bool) -> list[bytes]:
        """`body` in the place of the piece of a response that `mode` showed. In FULL_DUPLEX_STREAMED, where pieces are
        not answered one by one, nothing is said of an empty one that does not end."""
        if mode is BodyMode.FULL_DUPLEX_STREAMED:
            return self.pieces(RESPONSE_BODY, body, end) if body or end else []
        return [response_piece(body, mode is BodyMode.BUFFERED)]

    def headers(self, headers: HeaderList) -> bytes:
        """The answer to the response's headers that sets `headers`."""
        if not headers:
            return self.response_headers
        if headers is not self._last_headers[0]:
            self._last_headers = (headers, response_headers(headers))
        return self._last_headers[1]


def route_headers(route: Route) -> bytes:
    """The answer to the request's headers that carries the decision."""
    reply = ProcessingResponse()
    _decide(reply, reply.request_headers.response, route)
    return reply.SerializeToString()


def route_body(route: Route) -> bytes:
    """The answer to a buffered request body that carries the decision."""
    reply = ProcessingResponse()
    common = reply.request_body.response
    _decide(reply, common, route)
    if route.body is not None:
        common.body_mutation.body = route.body
        set_headers(common.header_mutation, [("content-length", b"%d" % len(route.body))])
    return reply.SerializeToString()


def route_trailers(route: Route) -> bytes:
    """The answer to request trailers when nothing came before them; only metadata can still be set."""
    reply = ProcessingResponse()
    reply.request_trailers.SetInParent()
    fill_struct(reply.dynamic_metadata, route.metadata)
    return reply.SerializeToString()


def response_headers(headers: HeaderList) -> bytes:
    """The answer to the response's headers that sets `headers`."""
    reply = ProcessingResponse()
    common = reply.response_headers.response
    common.SetInParent()
    set_headers(common.header_mutation, headers)
    return reply.SerializeToString()


def response_piece(body: bytes, whole: bool) -> bytes:
    """The answer to a piece of a response that puts `body` in its place; `whole` when Envoy holds the headers back."""
    reply = ProcessingResponse()
    common = reply.response_body.response
    common.body_mutation.body = body
    if whole:
        set_headers(common.header_mutation, [("content-length", b"%d" % len(body))])
    return reply.SerializeToString()


def dynamic_metadata(metadata: Mapping[str, Struct]) -> bytes:
    """Metadata by namespace, as it is appended to a serialised reply: fields of a message may come in any order."""
    reply = ProcessingResponse()
    fill_struct(reply.dynamic_metadata, metadata)
    return reply.SerializeToString() if metadata else b""


def immediate(answer: Immediate) -> bytes:
    """Answer the request ourselves."""
    reply = ProcessingResponse()
    reply.immediate_response.status.code = answer.status
    reply.immediate_response.body = answer.body
    if answer.headers:
        set_headers(reply.immediate_response.headers, answer.headers)
    if answer.details:
        reply.immediate_response.details = answer.details
    return reply.SerializeToString()


def _decide(reply: ProcessingResponse, common: Any, route: Route) -> None:
    common.clear_route_cache = True
    set_headers(common.header_mutation, route.set_headers)
    if route.remove_headers:
        common.header_mutation.remove_headers.extend(route.remove_headers)
    if route.metadata:
        fill_struct(reply.dynamic_metadata, route.metadata)
