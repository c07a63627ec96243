# SPDX-License-Identifier: Apache-2.0
"""One gRPC stream: feeds a `Call` from HTTP/2 DATA and is its `Reply`.

`live` is true until the stream has its end: finished by the call, ended by us, or given up by the peer. Only the first
of them counts, so a call hears exactly one `cancelled` or none. Whatever a call raises ends here: its stream gets
INTERNAL, the others do not notice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from epp.transport import headers
from epp.transport.authority import spelt
from epp.transport.call import DEADLINE_EXCEEDED, INTERNAL, OK, RESOURCE_EXHAUSTED, Call, Limits, Metadata, Service
from epp.transport.engine import Engine, EngineError
from epp.transport.frames import PREFIX_BYTES, Deframer, FrameError, pack_prefix, unpack_prefix

log = logging.getLogger("epp.transport")

_COPY_BYTES = 16_384
"""Up to here a message is joined with its prefix; a larger one is queued as it is."""


class Carrier(Protocol):
    """What a stream needs of its connection. The first four are the engine's own methods."""

    send_response: Callable[..., None]
    send_data: Callable[[int, bytes], None]
    send_trailers: Callable[[int, headers.HeaderBlock], None]
    queued: Callable[[], int]
    engine: Engine
    transport: asyncio.Transport
    blocked: bool
    limits: Limits
    idle: bool
    room: int
    """How many more messages that came many to a frame are handled in this turn of the loop."""

    def hold(self, more_bytes: int) -> bool:
        """So many more bytes (fewer, when negative) are in messages not complete; false when that is too many."""
        ...

    def put_off(self, stream: Stream) -> None:
        """Have `resume` called in the next turn."""
        ...

    def schedule_flush(self) -> None:
        """Send what is queued before the loop's next turn."""
        ...

    def finished(self, stream: Stream) -> None:
        """The stream's end is queued."""
        ...


class Stream:
    """The transport's side of one stream."""

    __slots__ = (
        "_call",
        "_carrier",
        "_encoding",
        "_frames",
        "_half_closed",
        "_incomplete_bytes",
        "_path",
        "_sent_bytes",
        "_since_s",
        "_taken_bytes",
        "deadline",
        "id",
        "live",
        "started",
    )

    def __init__(self, carrier: Carrier, stream_id: int) -> None:
        self.id = stream_id
        self.live = True
        self.started = False
        self.deadline: asyncio.TimerHandle | None = None
        self._carrier = carrier
        self._path = ""
        self._encoding = b""
        self._call: Call | None = None
        self._frames: Deframer | None = None
        self._incomplete_bytes = 0
        self._half_closed = False
        self._sent_bytes = 0
        self._taken_bytes = -1
        self._since_s = 0.0

    # What the connection tells.

    def open(self, path: str, service: Service, raw: Mapping[bytes, bytes]) -> None:
        """Make the call. Of `raw`, the request's headers, nothing is kept but what is needed: they can be large."""
        self._path = path
        self._encoding = raw.get(b"grpc-encoding", b"")
        metadata = Metadata(path, spelt(raw.get(b":authority", b"")), headers.HeaderValues(raw))
        try:
            call = service(metadata, self)
        except Exception:
            self._fail()
            return
        if self.live:
            self._call = call

    def refuse(self, block: headers.HeaderBlock) -> None:
        """End the stream with one header block, without a call."""
        self.live = False
        self._end(block, trailers_only=True)

    def receive(self, data: bytes) -> None:
        """Bytes from the peer, in DATA frames however cut."""
        call = self._call
        if call is None:
            return
        if not self._incomplete_bytes and len(data) >= PREFIX_BYTES:
            flag, length = unpack_prefix(data)
            if length == len(data) - PREFIX_BYTES and not flag and length <= self._carrier.limits.message_bytes:
                try:
                    call.message(data[PREFIX_BYTES:])
                except Exception:
                    self._fail()
                return
        self._receive_cut(call, data)

    def half_close(self) -> None:
        """The peer sends no more."""
        call = self._call
        if call is None:
            return
        if self._incomplete_bytes:
            if self._frames is not None and self._frames.unread:
                self._half_closed = True
                return
            self.abort(INTERNAL, "the stream ended within a gRPC message", "the client ended within a message")
            return
        try:
            call.half_closed()
        except Exception:
            self._fail()

    def resume(self) -> None:
        """Go on with the messages put off."""
        call = self._call
        if call is not None:
            self._receive_cut(call, b"")
            if self._half_closed and self._frames is not None and not self._frames.unread:
                self.half_close()

    def drop(self, reason: str) -> None:
        """The stream is gone for the peer; nothing can be sent."""
        if self.live:
            self.live = False
            self._cancel(reason)

    def abort(self, status: int, message: str, reason: str) -> None:
        """End the stream ourselves: `status` and `message` for the peer, `reason` for the call."""
        if self.live:
            self.live = False
            self._end_with(status, message)
            self._cancel(reason)

    def expire(self) -> None:
        """The deadline the client set has passed."""
        self.abort(DEADLINE_EXCEEDED, "deadline exceeded", "deadline")

    def stalled_s(self, queued_bytes: int, now_s: float) -> float:
        """For how long the peer has taken nothing of the output, when this is asked regularly while some is queued."""
        taken = self._sent_bytes - queued_bytes
        if taken != self._taken_bytes:
            self._taken_bytes = taken
            self._since_s = now_s
        return now_s - self._since_s

    # What the call says (Reply).

    def send(self, message: bytes) -> None:
        """Queue one message; the response headers go before the first."""
        if not self.live:
            return
        carrier = self._carrier
        size = len(message)
        try:
            if not self.started:
                carrier.send_response(self.id, headers.RESPONSE)
                self.started = True
            if size <= _COPY_BYTES:
                carrier.send_data(self.id, pack_prefix(0, size) + message)
            else:
                carrier.send_data(self.id, pack_prefix(0, size))
                carrier.send_data(self.id, message)
        except EngineError:
            return  # The peer has closed the stream already; the event that says so follows.
        self._sent_bytes += size + PREFIX_BYTES
        if carrier.idle:
            carrier.schedule_flush()

    def finish(self, status: int = OK, message: str = "") -> None:
        """End the stream after everything queued."""
        if self.live:
            self.live = False
            self._call = None
            self._end_with(status, message)

    def at_once_bytes(self) -> int:
        """What the peer's windows take now, if nothing waits before it."""
        carrier = self._carrier
        if carrier.blocked or not self.live or carrier.transport.get_write_buffer_size():
            return 0
        engine = carrier.engine
        return min(engine.remote_window_size - carrier.queued(), engine.stream_remote_window_size(self.id))

    def _receive_cut(self, call: Call, data: bytes) -> None:
        """A message over several frames, or several in one."""
        frames = self._frames
        carrier = self._carrier
        if frames is None:
            frames = self._frames = Deframer(carrier.limits.message_bytes, self._encoding.decode("latin-1"))
        if carrier.room <= 0:
            if not frames.unread:
                carrier.put_off(self)
            frames.hold(data)
        else:
            try:
                self._read(call, frames, data)
            except FrameError as error:
                self.abort(error.status, str(error), str(error))
            if not self.live:
                return
        held = frames.held_bytes
        more_bytes = held - self._incomplete_bytes
        self._incomplete_bytes = held
        if not carrier.hold(more_bytes):
            self.abort(RESOURCE_EXHAUSTED, "too many incomplete messages on this connection", "too much incomplete")

    def _read(self, call: Call, frames: Deframer, data: bytes) -> None:
        carrier = self._carrier
        whole = frames.feed(data)
        for message in whole:
            try:
                call.message(message)
            except Exception:
                self._fail()
            if not self.live:
                return
            carrier.room -= 1
            if carrier.room <= 0:
                whole.close()
                if frames.unread:
                    carrier.put_off(self)

    def _fail(self) -> None:
        log.exception("a call of %s failed, its stream ends with INTERNAL", self._path)
        self.abort(INTERNAL, "internal error", "the call failed")

    def _end_with(self, status: int, message: str) -> None:
        if self.started:
            self._end(headers.trailers(status, message), trailers_only=False)
        else:
            self._end(headers.trailers_only(status, message), trailers_only=True)

    def _end(self, block: headers.HeaderBlock, *, trailers_only: bool) -> None:
        carrier = self._carrier
        try:
            if trailers_only:
                carrier.send_response(self.id, block, end_stream=True)
                self.started = True
            else:
                carrier.send_trailers(self.id, block)
        except EngineError:
            pass
        carrier.finished(self)
        if carrier.idle:
            carrier.schedule_flush()
        if self.deadline is not None or self._incomplete_bytes:
            self._release()

    def _cancel(self, reason: str) -> None:
        self._release()
        call, self._call = self._call, None
        if call is None:
            return
        try:
            call.cancelled(reason)
        except Exception:
            log.exception("a call of %s failed when cancelled", self._path)

    def _release(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()
        if self._incomplete_bytes:
            self._carrier.hold(-self._incomplete_bytes)
            self._incomplete_bytes = 0
        self._frames = None
