# SPDX-License-Identifier: Apache-2.0
"""One HTTP/2 connection: the asyncio protocol between a socket and the engine.

One read is handled whole: bytes to the engine, all its events to the streams, then one write of everything queued.
What calls say later is written once per turn of the loop. A socket that takes no more is not read from either, so a
peer that does not read cannot make us hold more than it was owed; `credit` and `sweep` bound the rest, `guard` counts
the frames of no use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from epp.transport import headers
from epp.transport.call import INTERNAL, UNAVAILABLE
from epp.transport.credit import Credit
from epp.transport.engine import (
    ConnectionClosed,
    DataReceived,
    Engine,
    EngineError,
    ErrorCode,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    PriorityUpdateReceived,
    RequestReceived,
    SettingsAcknowledged,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
    goaway_frame,
    server_engine,
)
from epp.transport.farewell import Farewell
from epp.transport.guard import Budget, FloodError
from epp.transport.shared import Shared
from epp.transport.stream import Stream
from epp.transport.sweep import Sweeper
from epp.transport.timers import Timers
from epp.transport.unserved import unserved

log = logging.getLogger("epp.transport")

_CLOSE_S = 5.0
"""How long a peer may take to read what is left when we close."""
_PARTING_S = 0.25
"""How long a peer that is done gets to close the connection itself; then nothing of it is in flight."""
_WINDOW_UPDATES_PER_CONTROL_FRAME = 10
"""Window updates are normal traffic, one or two for a message; their budget is this much larger."""


class Connection(asyncio.Protocol):
    """One peer.

    `streams` are the open ones; `ending` are those whose end is queued but which the peer has not closed. `idle`: no
    flush is under way or scheduled, and one would do something. `over`: the engine is done, no stream is left.
    """

    transport: asyncio.Transport
    engine: Engine
    queued: Callable[..., int]
    send_response: Callable[..., None]
    send_data: Callable[[int, bytes], None]
    send_trailers: Callable[[int, headers.HeaderBlock], None]

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.loop = asyncio.get_running_loop()
        self.limits = shared.limits
        self.clock = shared.clock
        self._services = shared.services
        self._output_limit_bytes = self.limits.queued_output_bytes
        self.peer: object = None
        self.streams: dict[int, Stream] = {}
        self.ending: dict[int, Stream] = {}
        self.incomplete_bytes = 0
        self.idle = False
        self.blocked = False
        self.over = False
        self._last_stream_id = 0
        self._timers = Timers(self.loop)
        self._sweeper = Sweeper(self, self._timers)
        self.farewell = Farewell(self, self._timers)
        control_frames = self.limits.control_frames
        self._control = Budget(control_frames, "control or empty frames", self.clock)
        self._updates = Budget(control_frames * _WINDOW_UPDATES_PER_CONTROL_FRAME, "window updates", self.clock)

    # The loop's side (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open, TLS included."""
        self.transport = cast(asyncio.Transport, transport)
        self.peer = transport.get_extra_info("peername")
        shared = self._shared
        if len(shared.connections) >= self.limits.connections:
            self._refuse()
            return
        shared.connections.add(self)
        self.transport.set_write_buffer_limits(high=self._output_limit_bytes)
        engine = self.engine = server_engine(self.limits)
        self.queued = engine.queued_body_size
        self.send_response = engine.send_response
        self.send_data = engine.send_data
        self.send_trailers = engine.send_trailers
        self._credit = Credit(engine, self._output_limit_bytes)
        self._acknowledge = engine.acknowledge_received_data
        self._receive = engine.receive_data
        self._events = engine.events
        self._output = engine.data_to_send
        self._write = self.transport.write
        self._timers.start("preface", self.limits.handshake_s, self._silent)
        self.flush()
        if shared.draining:
            self.farewell.ask()

    def data_received(self, data: bytes) -> None:
        """Handle one read."""
        if self.over:
            return
        self.idle = False
        try:
            self._receive(data)
        except EngineError as error:
            self._dispatch(self._events())
            self._break(str(error))
            return
        self._dispatch(self._events())
        self.flush()

    def pause_writing(self) -> None:
        """The socket takes no more for now."""
        self.blocked = True
        self.idle = False
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self._sweeper.start()

    def resume_writing(self) -> None:
        """The socket takes more."""
        self.blocked = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._shared.connections.discard(self)
        self._finish()
        self._timers.stop_all()

    # The streams' side (Carrier).

    def schedule_flush(self) -> None:
        """Write what is queued before the loop's next turn."""
        self.idle = False
        self.loop.call_soon(self.flush)

    def finished(self, stream: Stream) -> None:
        """The stream's end is queued."""
        self.streams.pop(stream.id, None)
        self.ending[stream.id] = stream
        if not self._sweeper.started:
            self._sweeper.start()

    def flush(self) -> None:
        """Write everything the peer's windows allow, and see which streams that ended."""
        if self.blocked or self.over:
            return
        self.idle = True
        try:
            output = self._output()
            if output:
                self._write(output)
            while self._credit.withheld and not self.blocked and self._credit.drained():
                self._write(self._output())
        except EngineError as error:
            self._break(str(error))
            return
        events = self._events()
        if events:
            self._dispatch(events)
        if not self._sweeper.started and self.queued():
            self._sweeper.start()

    # The listener's side.

    @property
    def busy(self) -> bool:
        """Whether a call is open, or output is not written yet."""
        if self.over:
            return False
        return bool(self.streams or self.queued() or self.transport.get_write_buffer_size())

    def stop(self) -> None:
        """End every open stream with UNAVAILABLE."""
        for stream in list(self.streams.values()):
            stream.abort(UNAVAILABLE, "the server is stopping", "server stopping")
        self.flush()

    def close(self, wait_s: float = _CLOSE_S) -> None:
        """Close the socket once it took what is written, at the latest in `wait_s`."""
        self._finish()
        self.transport.close()
        self._timers.start("close", wait_s, self.transport.abort)

    def abort(self, reason: str) -> None:
        """Close the socket at once."""
        log.warning("connection from %s closed: %s", self.peer, reason)
        self._finish()
        self.transport.abort()

    # Events.

    def _dispatch(self, events: list[Event]) -> None:
        handlers = _HANDLERS
        for event in events:
            try:
                handlers.get(type(event), _ignore)(self, event)
            except FloodError as error:
                self._expel(str(error))
                return
            except EngineError:
                continue  # The stream or the engine was closed further on in the same batch.
            except Exception:
                log.exception("an HTTP/2 event of %s could not be handled", self.peer)
                stream = self.streams.get(getattr(event, "stream_id", 0))
                if stream is not None:
                    stream.abort(INTERNAL, "internal error", "the transport failed")

    def _on_data(self, event: DataReceived) -> None:
        stream_id = event.stream_id
        data = event.data
        end = event.end_stream
        stream = self.streams.get(stream_id)
        if data:
            try:
                if stream is not None:
                    stream.receive(data)
            finally:
                if self.queued() > self._output_limit_bytes:
                    self._credit.handled(len(data), stream_id)
                else:
                    self._acknowledge(len(data), stream_id)
        elif not end:
            self._control.spend()
        if end and stream is not None:
            stream.half_close()

    def _on_request(self, event: RequestReceived) -> None:
        raw = dict(event.headers)
        stream_id = self._last_stream_id = event.stream_id
        stream = Stream(self, stream_id, raw)
        timeout = raw.get(b"grpc-timeout")
        if timeout is not None or raw.get(b"content-type") != b"application/grpc" or raw.get(b":method") != b"POST":
            block = headers.refusal(raw)
            if block is not None:
                stream.refuse(block)
                return
        if timeout is not None:
            stream.deadline = self.loop.call_later(headers.timeout_s(timeout) or 0.0, stream.expire)
        self.streams[stream_id] = stream
        path = raw.get(b":path", b"")
        stream.open(*(self._services.get(path) or (path.decode("latin-1"), unserved)))
        if event.end_stream:
            stream.half_close()

    def _on_trailers(self, event: TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.half_close()

    def _on_reset(self, event: StreamReset) -> None:
        stream = self.streams.pop(event.stream_id, None)
        if stream is not None:
            stream.drop(f"reset by the client (code {event.error_code})")
        else:
            stream = self.ending.get(event.stream_id)
        if stream is None or not stream.started:
            self._control.spend()  # Nothing was answered: the pattern of a rapid reset attack.

    def _on_closed(self, event: StreamClosed) -> None:
        stream_id = event.stream_id
        if self._credit.withheld:
            self._credit.closed(stream_id)
        if self.ending.pop(stream_id, None) is None:
            stream = self.streams.pop(stream_id, None)
            if stream is not None:
                self._sweeper.count_cut()
                stream.drop(f"stream error (code {event.error_code})")

    def _on_settings(self, event: SettingsReceived) -> None:
        self._timers.stop("preface")
        self._control.spend()

    def _on_control(self, event: Event) -> None:
        self._control.spend()

    def _on_window(self, event: WindowUpdated) -> None:
        self._updates.spend()

    def _on_ping_answer(self, event: PingAcknowledged) -> None:
        self._control.spend()
        self.farewell.answered(event.opaque_data)

    def _on_engine_closed(self, event: ConnectionClosed) -> None:
        self._finish()
        if event.error_code:
            log.info("connection from %s ended with HTTP/2 error %d", self.peer, event.error_code)
            self.close()
        else:
            self._timers.start("parting", _PARTING_S, self.close)

    # Ends.

    def _refuse(self) -> None:
        self.over = True
        if self._shared.complain():
            log.warning("connections are refused: %d are open, as many as allowed", self.limits.connections)
        self.transport.abort()

    def _silent(self) -> None:
        self.abort(f"it said no HTTP/2 within {self.limits.handshake_s:g} s")

    def _expel(self, reason: str) -> None:
        log.warning("connection from %s closed: %s", self.peer, reason)
        try:
            self.engine.terminate_connection(ErrorCode.ENHANCE_YOUR_CALM)
            self._write(self._output())
        except EngineError:
            self._write(goaway_frame(self._last_stream_id, ErrorCode.ENHANCE_YOUR_CALM))
        self.close()

    def _break(self, reason: str) -> None:
        """The engine failed and is of no more use."""
        if not self.over:
            log.info("connection from %s closed: %s", self.peer, reason)
            self._write(goaway_frame(self._last_stream_id, ErrorCode.PROTOCOL_ERROR))
            self.close()

    def _finish(self) -> None:
        """No stream lives on; whatever comes is ignored."""
        if self.over:
            return
        self.over = True
        self.idle = False
        self.farewell.done = True
        for stream in list(self.streams.values()):
            stream.drop("connection lost")
        self.streams.clear()
        self.ending.clear()


def _ignore(connection: Connection, event: Event) -> None:
    """An event that asks for nothing."""


_HANDLERS: dict[type[Event], Callable[[Connection, Any], None]] = {
    DataReceived: Connection._on_data,
    RequestReceived: Connection._on_request,
    StreamReset: Connection._on_reset,
    StreamClosed: Connection._on_closed,
    WindowUpdated: Connection._on_window,
    TrailersReceived: Connection._on_trailers,
    PingReceived: Connection._on_control,
    PingAcknowledged: Connection._on_ping_answer,
    SettingsReceived: Connection._on_settings,
    SettingsAcknowledged: Connection._on_control,
    PriorityUpdateReceived: Connection._on_control,
    GoAwayReceived: Connection._on_control,
    ConnectionClosed: Connection._on_engine_closed,
}
