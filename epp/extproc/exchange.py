# SPDX-License-Identifier: Apache-2.0
"""One ext_proc stream as a state machine: message bytes in, reply bytes out; no sockets, no clock, no tasks.

`receive(data)` returns the replies to send. When it needs the handler's decision it calls `handler.request`; if that
returns an awaitable, `awaiting` holds it, later messages wait, and the driver calls `decided(outcome)`. The handler's
`closed` is called exactly once: as soon as the end of the response has been processed, or we ended the stream, or by
`close`. `finished` says that nothing more will be sent and the stream should be ended with status OK.

When each request body mode is decided, and on which message the decision travels:

    mode                   decided at                       carried by
    end of stream in the headers (no body), any mode         the answer to the headers
    NONE, STREAMED         the headers                      the answer to the headers
    BUFFERED(_PARTIAL)     the one body message             the answer to the body; the headers are answered at once
    FULL_DUPLEX_STREAMED   the end of the body or trailers  the answer to the headers, then the body in pieces

A stream that does not say its modes is taken as FULL_DUPLEX_STREAMED.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from google.protobuf.message import DecodeError

from epp.contract.errors import ProtocolError
from epp.extproc import replies, wire
from epp.extproc.handler import BodyMode, End, Handler, HttpRequest, Immediate, Outcome, Watch
from epp.extproc.replies import Replies
from epp.protos.ext_proc_pb2 import ProcessingRequest

parse = ProcessingRequest.FromString
Headers = dict[str, str]
_REQUEST_BODY = bytes([wire.REQUEST_BODY])
_RESPONSE_BODY = bytes([wire.RESPONSE_BODY])
_BODIES = (_RESPONSE_BODY, _REQUEST_BODY)


class Exchange:
    """The protocol of one stream. `body_limit_bytes` bounds what is collected of a request's body: a longer one is
    decided on what fits, with `HttpRequest.body_complete` false."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_closed",
        "_decided",
        "_from_body",
        "_handler",
        "_headers",
        "_limit_bytes",
        "_metadata",
        "_mode",
        "_observed",
        "_replies",
        "_response_duplex",
        "_trailers",
        "_waiting_messages",
        "_watch",
        "awaiting",
        "finished",
    )

    def __init__(self, handler: Handler, replies: Replies, body_limit_bytes: int) -> None:
        self._handler = handler
        self._replies = replies
        self._limit_bytes = body_limit_bytes
        self._mode: BodyMode | None = None
        self._response_duplex = True
        self._headers: Headers = {}
        self._metadata: dict[str, dict[str, Any]] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._from_body = False
        self._observed = False
        self._trailers = False
        self._decided = False
        self._closed = False
        self._waiting_messages: list[bytes] = []
        self._watch = Watch.BODY
        self.awaiting: Awaitable[Outcome] | None = None
        self.finished = False

    def receive(self, data: bytes) -> list[bytes]:
        """Take one message; returns the replies it calls for. Raises `ProtocolError` for what is no message."""
        if self.finished:
            return []
        if self.awaiting is not None:
            self._waiting_messages.append(data)
            return []
        kind_byte = data[:1]
        if kind_byte in _BODIES and not self._observed:
            passing = wire.read_body(data)
            if passing is not None:
                encoded, piece, end = passing
                if kind_byte == _RESPONSE_BODY:
                    return self._response_body(encoded, piece, end)
                return self._request_body(piece, end)
        try:
            message = parse(data)
        except DecodeError:
            raise ProtocolError("ext_proc: the message is no ProcessingRequest; is the peer really Envoy?") from None
        kind = message.WhichOneof("request")
        if message.observability_mode or kind is None:
            self._observed = self._observed or message.observability_mode
            return []
        if kind == "response_body":
            body = message.response_body
            return self._response_body(wire.encode_body(body.body, body.end_of_stream), body.body, body.end_of_stream)
        if not self._decided and message.HasField("metadata_context"):
            self._keep_metadata(message)
        if kind == "request_body":
            return self._request_body(message.request_body.body, message.request_body.end_of_stream)
        if kind == "request_headers":
            return self._request_headers(message)
        if kind == "response_headers":
            return self._response_headers(message.response_headers)
        if kind == "request_trailers":
            return self._request_trailers()
        self.close(End.COMPLETE)
        return [self._replies.response_trailers]

    def decided(self, outcome: Outcome) -> list[bytes]:
        """The awaited decision is here; returns its replies and those of the messages that waited for it."""
        self.awaiting = None
        out = self._answer(outcome)
        waiting, self._waiting_messages = self._waiting_messages, []
        for data in waiting:
            out.extend(self.receive(data))
        return out

    def close(self, end: End) -> None:
        """The stream is over; the handler is told once, whoever calls first."""
        if not self._closed:
            self._closed = True
            self._body.clear()
            self._handler.closed(end)

    def _request_headers(self, message: ProcessingRequest) -> list[bytes]:
        if self._mode is not None:
            raise ProtocolError("ext_proc: a second message with request headers on one stream")
        self._mode = mode = BodyMode.FULL_DUPLEX_STREAMED
        if message.HasField("protocol_config"):
            config = message.protocol_config
            self._response_duplex = config.response_body_mode == BodyMode.FULL_DUPLEX_STREAMED
            try:
                self._mode = mode = BodyMode(config.request_body_mode)
            except ValueError:
                raise ProtocolError(
                    f"ext_proc: request body mode {config.request_body_mode} is unknown; "
                    "set processing_mode.request_body_mode to FULL_DUPLEX_STREAMED or BUFFERED"
                ) from None
        self._headers = _headers(message.request_headers)
        if message.request_headers.end_of_stream or mode in (BodyMode.NONE, BodyMode.STREAMED):
            return self._ask(None, True)
        if mode is BodyMode.FULL_DUPLEX_STREAMED:
            return []
        self._from_body = True
        return [self._replies.request_headers]

    def _request_body(self, piece: bytes, end: bool) -> list[bytes]:
        if self._decided:
            # STREAMED: the choice was made at the headers, the pieces only pass by.
            return [self._replies.request_body]
        if self._mode is None:
            raise ProtocolError("ext_proc: a request body before the request headers")
        self._body.append(piece)
        self._body_bytes += len(piece)
        if self._from_body:
            return self._ask(b"".join(self._body), self._mode is BodyMode.BUFFERED or end)
        if self._body_bytes > self._limit_bytes:
            return self._ask(b"".join(self._body), False)
        if end:
            return self._ask(self._body[0] if len(self._body) == 1 else b"".join(self._body), True)
        return []

    def _request_trailers(self) -> list[bytes]:
        if self._decided:
            return [self._replies.request_trailers]
        if self._mode is None:
            raise ProtocolError("ext_proc: request trailers before the request headers")
        self._trailers = True
        return self._ask(b"".join(self._body) if self._body else None, True)

    def _ask(self, body: bytes | None, complete: bool) -> list[bytes]:
        self._decided = True
        mode = self._mode
        assert mode is not None
        if body is not None:
            self._body = [body]
        outcome = self._handler.request(HttpRequest(self._headers, body, complete, mode, self._metadata))
        if isinstance(outcome, Awaitable):
            self.awaiting = outcome
            return []
        return self._answer(outcome)

    def _answer(self, outcome: Outcome) -> list[bytes]:
        if isinstance(outcome, Immediate):
            self._end(End.COMPLETE)
            return [replies.immediate(outcome)]
        if self._from_body:
            out = [replies.route_trailers(outcome) if self._trailers else replies.route_body(outcome)]
        else:
            out = [self._replies.route(outcome)]
            if self._body:
                body = self._body[0] if outcome.body is None else outcome.body
                out.extend(self._replies.pieces(wire.REQUEST_BODY, body, not self._trailers))
            if self._trailers:
                out.append(self._replies.request_trailers)
        self._body = []
        self._watch = outcome.watch
        if self._watch is Watch.NOTHING:
            self._end(End.UNWATCHED)
        return out

    def _response_headers(self, message: Any) -> list[bytes]:
        end: bool = message.end_of_stream
        headers = self._handler.response_headers(_headers(message), end)
        if end:
            self.close(End.COMPLETE)
        elif self._watch is Watch.HEADERS:
            self._end(End.UNWATCHED)
        return [self._replies.headers(headers)]

    def _response_body(self, encoded: bytes, chunk: bytes, end: bool) -> list[bytes]:
        if not self._closed:
            self._handler.response_body(chunk, end)
            if end:
                self.close(End.COMPLETE)
        if not self._response_duplex:
            return [self._replies.response_body]
        if len(chunk) <= replies.CHUNK_BYTES:
            return [self._replies.piece(wire.RESPONSE_BODY, encoded)]
        return self._replies.pieces(wire.RESPONSE_BODY, chunk, end)

    def _keep_metadata(self, message: ProcessingRequest) -> None:
        for namespace, struct in message.metadata_context.filter_metadata.items():
            self._metadata[namespace] = _plain_struct(struct)

    def _end(self, end: End) -> None:
        self.finished = True
        self.close(end)


def _headers(message: Any) -> Headers:
    try:
        headers = {header.key.lower(): header.raw_value.decode() for header in message.headers.headers}
    except UnicodeDecodeError:
        headers = {h.key.lower(): h.raw_value.decode("utf-8", "surrogateescape") for h in message.headers.headers}
    if "" in headers.values():
        # Envoy fills raw_value; older data planes fill value.
        headers = {h.key.lower(): headers[h.key.lower()] or h.value for h in message.headers.headers}
    return headers


def _plain_struct(struct: Any) -> dict[str, Any]:
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_struct(value.struct_value)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind is None or kind == "null_value":
        return None
    return getattr(value, kind)
