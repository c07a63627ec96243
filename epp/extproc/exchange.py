# SPDX-License-Identifier: Apache-2.0
"""One ext_proc stream as a state machine: message bytes in, reply bytes out; no sockets, no clock, no tasks.

`receive(data)` returns the replies to send. When it needs the handler's decision it calls `handler.request`; if that
returns an awaitable, `awaiting` holds it, later messages wait, and the driver calls `decided(outcome)`. The handler's
`closed` is called exactly once: as soon as it has seen what it wanted, or we ended the stream, or by `close`.
`finished` says that nothing more will be sent and the stream should be ended with status OK.

When each request body mode is decided, and on which message the decision travels:

    mode                   decided at                       carried by
    no body to wait for, any mode (see `has_no_body`)       the answer to the headers
    NONE, STREAMED         the headers                      the answer to the headers
    BUFFERED(_PARTIAL)     the one body message             the answer to the body; the headers are answered at once
    FULL_DUPLEX_STREAMED   the end of the body or trailers  the answer to the headers, then the body in pieces

A stream that does not say its modes is taken as FULL_DUPLEX_STREAMED. There, what Envoy has sent us it has no copy of:
a stream that ended early would lose it. So an unwatched response (`Watch`) still passes through us in that mode, while
the handler is closed; in the others the stream ends, and Envoy goes on with its own copy.

A response that arrives before we have routed is Envoy's own (a limit, a timeout, another filter): it passes by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from epp.contract.errors import ProtocolError
from epp.extproc import replies, wire
from epp.extproc.gathering import Body, Gathering
from epp.extproc.handler import BodyMode, End, Handler, HttpRequest, Immediate, Outcome, Watch
from epp.extproc.modes import BODY, BUFFERING, DUPLEX, ENDED, HEADERS, NOTHING, TRAILERS, end_shown, has_no_body
from epp.extproc.reading import body_mode, read_headers, read_metadata
from epp.extproc.replies import Replies
from epp.protos.ext_proc_pb2 import ProcessingRequest

parse = ProcessingRequest.FromString

_REQUEST_BODY = bytes([wire.REQUEST_BODY])
_RESPONSE_BODY = bytes([wire.RESPONSE_BODY])
_BODIES = (_RESPONSE_BODY, _REQUEST_BODY)
_RESPONSES = (b"\x1a", _RESPONSE_BODY, b"\x3a")
"""First bytes of the messages about a response: headers, body, trailers."""
_ROUTE_BYTES = 8 * 1024
"""What the answer to the headers is taken to have at most, before there is one."""
_FRAMES_BYTES = 1024
"""What the transport puts around our messages."""
MOST_PARSED_BYTES = 4 * 1024 * 1024
"""What a message may hold beside a body: parsed, two bytes may take sixty."""
_MESSAGE_BYTES = 64
"""What a waiting message counts beyond its own bytes."""


def _any() -> int:
    return 1 << 62


class Exchange:
    """The protocol of one stream. `body_limit_bytes` bounds what is collected of a request's body: a longer one is
    decided on what fits, with `HttpRequest.body_complete` false, and the rest passes by; so is one that comes while all
    together are over the limit of `gathering`. `at_once_bytes` is the outlet's."""

    __slots__ = (
        "_asked", "_at_once_bytes", "_body", "_closed", "_from_body", "_gathering", "_handler", "_headers",
        "_limit_bytes", "_metadata", "_mode", "_replies", "_request_at", "_response_at", "_response_mode", "_started",
        "_take_metadata", "_tells", "_waiting_bytes", "_waiting_messages", "_watch", "awaiting", "finished", "observed",
    )  # fmt: skip

    def __init__(
        self, handler: Handler, replies: Replies, body_limit_bytes: int, at_once_bytes: Callable[[], int] = _any,
        gathering: Gathering | None = None,
    ) -> None:  # fmt: skip
        self._at_once_bytes = at_once_bytes
        self._handler = handler
        self._replies = replies
        self._limit_bytes = body_limit_bytes
        self._gathering = gathering or Gathering()
        self._started = False
        self._mode = self._response_mode = DUPLEX
        self._request_at = self._response_at = NOTHING
        self._headers: Mapping[str, str] = {}
        self._metadata: dict[str, dict[str, Any]] = {}
        self._body: Body | None = None
        self._from_body = False
        self._asked = False
        self._closed = False
        self._waiting_messages: list[bytes] = []
        self._waiting_bytes = 0
        self._watch: Watch | None = None
        self._take_metadata: Callable[[Mapping[str, Mapping[str, Any]]], None] | None = None
        self._tells = False
        self.awaiting: Awaitable[Outcome] | None = None
        self.finished = False
        self.observed = False
        """Envoy only shows us the request (`observability_mode`): nothing can be decided, so nobody is asked."""

    def receive(self, data: bytes) -> list[bytes]:
        """Take one message; returns the replies it calls for. Raises `ProtocolError` for what is no message, and for
        messages in an order that has no meaning."""
        if self.finished:
            return []
        if self.awaiting is not None and data[:1] not in _RESPONSES:
            return self._wait(data)
        kind_byte = data[:1]
        if kind_byte in _BODIES and self._started:
            passing = wire.read_body(data)
            if passing is not None:
                encoded, piece, end = passing
                if kind_byte == _RESPONSE_BODY:
                    return self._response_body(encoded, piece, end)
                return self._request_body(encoded, piece, end)
        if len(data) > MOST_PARSED_BYTES and len(data) - wire.body_bytes(data) > MOST_PARSED_BYTES:
            raise ProtocolError(
                f"ext_proc: a message of {len(data)} bytes that is no body; headers have limits in Envoy"
            )
        try:
            message = parse(data)
        except DecodeError:
            raise ProtocolError("ext_proc: the message is no ProcessingRequest; is the peer really Envoy?") from None
        if message.observability_mode:
            self.observed = True
            self._end(End.UNWATCHED)
            return []
        return self._take(message, data)

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
            self._drop_body()
            self._handler.closed(self._end_shown() if end is End.GONE else end)

    def _take(self, message: ProcessingRequest, data: bytes) -> list[bytes]:
        kind = message.WhichOneof("request")
        if kind is None:
            return []
        if not self._started:
            self._start(message)
        if not self._asked and message.HasField("metadata_context"):
            self._metadata.update(read_metadata(message))
        if kind == "request_headers":
            return self._request_headers(message.request_headers, data)
        if kind == "response_headers":
            if self._take_metadata is not None and not self._closed:
                self._take_metadata(read_metadata(message))
            return self._response_headers(message.response_headers, data)
        if kind == "request_trailers":
            return self._request_trailers()
        if kind == "response_trailers":
            return self._response_trailers()
        body = getattr(message, kind)
        encoded = wire.encode_body(body.body, body.end_of_stream)
        take = self._request_body if kind == "request_body" else self._response_body
        return take(encoded, body.body, body.end_of_stream)

    def _start(self, message: ProcessingRequest) -> None:
        self._started = True
        if message.HasField("protocol_config"):
            config = message.protocol_config
            self._mode = body_mode("request", config.request_body_mode)
            self._response_mode = body_mode("response", config.response_body_mode)

    def _wait(self, data: bytes) -> list[bytes]:
        self._waiting_bytes += len(data) + _MESSAGE_BYTES
        if self._waiting_bytes > self._limit_bytes + (1 << 20):
            raise ProtocolError("ext_proc: too much was sent while a decision was awaited")
        self._waiting_messages.append(data)
        return []

    def _request_headers(self, message: Any, data: bytes) -> list[bytes]:
        if self._request_at is not NOTHING:
            raise ProtocolError("ext_proc: a second message with request headers on one stream")
        if self._closed:
            return []
        end: bool = message.end_of_stream
        self._request_at = ENDED if end else HEADERS
        self._headers = read_headers(message, data)
        if end or self._mode in (BodyMode.NONE, BodyMode.STREAMED) or has_no_body(self._headers, self._mode):
            return self._ask(None, True)
        if self._mode is DUPLEX:
            return []
        self._from_body = True
        return [self._replies.request_headers]

    def _request_body(self, encoded: bytes, piece: bytes, end: bool) -> list[bytes]:
        if self._request_at is NOTHING:
            raise ProtocolError(
                "ext_proc: a request body before the request headers; set processing_mode.request_header_mode to SEND"
            )
        if self._request_at >= ENDED:
            raise ProtocolError("ext_proc: a piece of a request body after its end")
        self._request_at = ENDED if end else BODY
        if self._asked:
            if self._mode is DUPLEX:
                return self._stream(wire.REQUEST_BODY, encoded, piece, end)
            # The choice was made at the headers, the pieces only pass by.
            return [self._replies.request_body]
        if self._closed:
            return []
        body = self._body
        if body is None:
            body = self._body = Body(self._gathering, piece)
        else:
            body.add(piece)
        if self._from_body:
            self._request_at = ENDED
            return self._ask(body.whole(), self._mode is BodyMode.BUFFERED or end)
        if end:
            return self._ask(body.whole(), body.size <= self._limit_bytes)
        if body.size > self._limit_bytes or self._gathering.crowded:
            return self._ask(body.whole(), False)
        return []

    def _request_trailers(self) -> list[bytes]:
        if self._request_at in (NOTHING, TRAILERS):
            raise ProtocolError("ext_proc: request trailers before the request headers, or for the second time")
        self._request_at = TRAILERS
        if self._asked:
            return [self._replies.request_trailers]
        if self._closed:
            return []
        return self._ask(None if self._body is None else self._body.whole(), True)

    def _ask(self, body: bytes | None, complete: bool) -> list[bytes]:
        self._asked = True
        fixed = self._from_body and self._request_at is TRAILERS
        crowded = not complete and self._gathering.crowded
        request = HttpRequest(
            self._headers,
            body,
            complete,
            self._mode,
            self._metadata,
            fixed,
            self._response_mode,
            self._can_end,
            crowded,
        )
        outcome = self._handler.request(request)
        if isinstance(outcome, Awaitable):
            self.awaiting = outcome
            return []
        return self._answer(outcome)

    def _answer(self, outcome: Outcome) -> list[bytes]:
        if isinstance(outcome, Immediate):
            self._end(End.COMPLETE)
            return [replies.immediate(outcome)]
        trailers = self._request_at is TRAILERS
        if self._from_body:
            out = [replies.route_trailers(outcome) if trailers else replies.route_body(outcome)]
        else:
            out = [self._replies.route(outcome)]
            if self._body is not None:
                body = self._body.whole() if outcome.body is None else outcome.body
                out.extend(self._replies.pieces(wire.REQUEST_BODY, body, self._request_at is ENDED))
            if trailers:
                out.append(self._replies.request_trailers)
        self._drop_body()
        self._watch, self._take_metadata, self._tells = outcome.watch, outcome.take_metadata, outcome.tells
        if self._watch is Watch.NOTHING:
            # A response may begin before all of this has reached the endpoint; it must find the stream still there.
            self._unwatch(len(out) - trailers <= 2 and sum(map(len, out)) + _FRAMES_BYTES <= self._at_once_bytes())
        return out

    def _response_headers(self, message: Any, data: bytes) -> list[bytes]:
        if self._response_at is not NOTHING:
            raise ProtocolError("ext_proc: response headers for the second time, or after the response's body")
        end: bool = message.end_of_stream
        self._response_at = ENDED if end else HEADERS
        if self._response_mode is BodyMode.NONE:
            self._replies.headers_shown = True
        if self._watch is None:
            self._abandon()
        if self._closed:
            if self._watch is not None:
                self._unwatch()
            return [self._replies.response_headers]
        headers = self._handler.response_headers(read_headers(message, data), end)
        if end:
            self.close(End.COMPLETE)
        elif self._watch is Watch.HEADERS:
            self._unwatch()
        return [self._replies.headers(headers)]

    def _response_body(self, encoded: bytes, chunk: bytes, end: bool) -> list[bytes]:
        if self._response_at >= ENDED:
            raise ProtocolError("ext_proc: a piece of a response body after its end")
        self._response_at = ENDED if end else BODY
        if not self._closed:
            if self._watch is Watch.BODY:
                last = end or self._response_mode in BUFFERING
                replaced = self._handler.response_body(chunk, last)
                # Clients may leave at what ends a stream of events, before the response ends.
                if last or (self._tells and replaced != b"" and self._handler.response_told()):
                    return self._last_piece(encoded, chunk, end, replaced)
                if replaced is not None:
                    return self._replies.replaced(self._response_mode, replaced, end)
            elif self._watch is None:
                self._abandon()
            else:
                # There was no message with the headers.
                self._unwatch()
        if self._response_mode is DUPLEX:
            return self._stream(wire.RESPONSE_BODY, encoded, chunk, end)
        return [self._replies.response_body]

    def _last_piece(self, encoded: bytes, chunk: bytes, end: bool, replaced: bytes | None) -> list[bytes]:
        mode = self._response_mode
        # BUFFERED_PARTIAL shows a body without its end that has trailers, or is longer than its limit.
        told = self._told() if self._tells and (end or mode is not BodyMode.BUFFERED_PARTIAL) else b""
        if end:
            self.close(End.COMPLETE)
        if replaced is not None:
            out = self._replies.replaced(mode, replaced, end)
        else:
            out = (
                self._stream(wire.RESPONSE_BODY, encoded, chunk, end)
                if mode is DUPLEX
                else [self._replies.response_body]
            )
        out[-1] += told
        return out

    def _told(self) -> bytes:
        """What the handler tells of a response that is complete, as it is appended to a reply."""
        self._tells = False
        return replies.dynamic_metadata(self._handler.response_end())

    def _response_trailers(self) -> list[bytes]:
        if self._response_at is TRAILERS:
            raise ProtocolError("ext_proc: response trailers for the second time")
        rest, told = None, b""
        if self._watch is None:
            self._abandon()
        elif self._response_at is BODY and not self._closed:
            if self._response_mode not in BUFFERING:
                rest = self._handler.response_body(b"", True)
            told = self._told() if self._tells else b""
        self._response_at = TRAILERS
        self.close(End.COMPLETE)
        kept = self._replies.replaced(DUPLEX, rest, False) if rest and self._response_mode is DUPLEX else []
        return [*kept, self._replies.response_trailers + told]

    def _stream(self, kind: int, encoded: bytes, piece: bytes, end: bool) -> list[bytes]:
        if len(piece) <= replies.CHUNK_BYTES:
            return [self._replies.piece(kind, encoded)]
        return self._replies.pieces(kind, piece, end)

    def _abandon(self) -> None:
        """Envoy answers by itself what we have not routed yet."""
        self.awaiting = None
        self._waiting_messages = []
        self.close(End.GONE)

    def _can_end(self, watch: Watch) -> bool:
        if self._response_mode is not DUPLEX:
            return True
        # Behind the headers, pieces of the body may be on their way already.
        if watch is not Watch.NOTHING or NOTHING < self._request_at < ENDED:
            return False
        shown_bytes = 0 if self._from_body or self._body is None else self._body.size
        room_bytes = self._at_once_bytes() - _ROUTE_BYTES - _FRAMES_BYTES
        return shown_bytes <= replies.CHUNK_BYTES and shown_bytes <= room_bytes

    def _unwatch(self, nothing_on_the_way: bool = False) -> None:
        """The handler wants to see no more; end the stream where nothing that is on its way to us can be lost."""
        self.close(End.UNWATCHED)
        request_passing = self._mode is DUPLEX and NOTHING < self._request_at < ENDED
        self.finished = not request_passing and (nothing_on_the_way or self._response_mode is not DUPLEX)

    def _end_shown(self) -> End:
        if self._watch is None:
            return End.GONE
        routed = self._request_at >= ENDED or self._mode is BodyMode.NONE
        return end_shown(self._response_mode, self._response_at, routed, self._replies.headers_shown)

    def _drop_body(self) -> None:
        if self._body is not None:
            self._body.drop()
            self._body = None

    def _end(self, end: End) -> None:
        self.finished = True
        self.close(end)
