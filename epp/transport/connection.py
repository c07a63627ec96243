# SPDX-License-Identifier: Apache-2.0
"""One HTTP/2 connection: the asyncio protocol between a socket and the engine.

One read is handled whole: bytes to the engine, all its events to the streams, then one write of everything queued.
What calls say later is written once per turn of the loop; a read that holds very much is spread over several (`turns`).
A socket that takes no more is not read from, so a peer that does not read cannot make us hold more than it was owed;
`credit` and `sweep` bound the rest, `guard` counts the frames of no use.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any, cast

from epp.transport import engine as http2
from epp.transport import headers
from epp.transport.authority import Authorities
from epp.transport.call import INTERNAL, UNAVAILABLE
from epp.transport.credit import Credit
from epp.transport.engine import EngineError, ErrorCode, Event
from epp.transport.farewell import Farewell
from epp.transport.guard import Budget, FloodError
from epp.transport.shared import Shared
from epp.transport.stream import Stream
from epp.transport.sweep import Sweeper
from epp.transport.timers import Timers
from epp.transport.turns import BUSY_EVENTS, MESSAGES_A_TURN, SLICE_BYTES, Turns
from epp.transport.unserved import unserved

log = logging.getLogger("epp.transport")

_CLOSE_S = 5.0  # How long a peer may take to read what is left when we close.
_PARTING_S = 0.25
"""How long a peer that is done gets to close the connection itself; then nothing of it is in flight."""
_SHOWN_BYTES = 200
_WINDOW_UPDATES_PER_CONTROL_FRAME = 10
"""Window updates are normal traffic, one or two for a message; their budget is this much larger."""


class Connection(asyncio.Protocol):
    """One peer.

    `streams` are open; `ending` are those whose end is queued but which the peer has not closed. `idle`: no flush is
    under way or scheduled, and one would do something. `over`: the engine is done, no stream is left. `room`: how many
    of the messages that come many to a frame may still be handled in this turn.
    """

    transport: asyncio.Transport
    engine: http2.Engine
    queued: Callable[..., int]
    send_response: Callable[..., None]
    send_data: Callable[[int, bytes], None]
    send_trailers: Callable[[int, headers.HeaderBlock], None]

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self.loop = asyncio.get_running_loop()
        self.limits = shared.limits
        self.clock = shared.clock
        self.complain = shared.complain
        self._services = shared.services
        self._output_limit_bytes = self.limits.queued_output_bytes
        self.peer: object = None
        self.streams: dict[int, Stream] = {}
        self.ending: dict[int, Stream] = {}
        self.incomplete_bytes = 0
        self.room = MESSAGES_A_TURN
        self.idle = False
        self.blocked = False
        self.over = False
        self._last_stream_id = 0
        self._turns = Turns(self)
        self.put_off = self._turns.put_off
        self._timers = Timers(self.loop)
        self._sweeper = Sweeper(self, self._timers)
        self.farewell = Farewell(self, self._timers)
        most = self.limits.control_frames
        self._control = Budget(most, "control or empty frames", self.clock)
        self._updates = Budget(most * _WINDOW_UPDATES_PER_CONTROL_FRAME, "window updates", self.clock)

    # The loop's side (asyncio.Protocol).

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open, TLS included."""
        self.transport = cast(asyncio.Transport, transport)
        self.peer = transport.get_extra_info("peername")
        shared = self._shared
        if self not in shared.handshakes:  # Another one has its place by now.
            self.over = True
            self.transport.abort()
            return
        shared.handshakes.discard(self)
        shared.connections.add(self)
        shared.newcomers[self] = functools.partial(self.abort, "it has asked nothing, another one takes its place")
        self.transport.set_write_buffer_limits(high=self._output_limit_bytes)
        engine, opening = http2.server_engine(self.limits)
        self.engine, self.queued = engine, engine.queued_body_size
        self.send_response = engine.send_response
        self.send_data = engine.send_data
        self.send_trailers = engine.send_trailers
        self._credit = Credit(engine, self._output_limit_bytes, self.limits.connection_output_bytes)
        self._acknowledge = engine.acknowledge_received_data
        self._receive = Authorities(engine.receive_data)
        self._events = engine.events
        self._output = engine.data_to_send
        self._write = self.transport.write
        silent = f"it said no HTTP/2 within {self.limits.handshake_s:g} s"
        self._timers.start("preface", self.limits.handshake_s, functools.partial(self.abort, silent))
        self._write(opening)
        self.idle = True
        if shared.draining:
            self.farewell.ask()

    def data_received(self, data: bytes) -> None:
        """Handle one read."""
        if self.over:
            return
        self.idle = False
        self.room = MESSAGES_A_TURN
        if len(data) > SLICE_BYTES or self._turns.waiting:
            self._turns.read(data)
        else:
            self.take(data)
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
            if self._turns.waiting:
                self._turns.again()
            else:
                self.transport.resume_reading()
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._shared.connections.discard(self)
        self._shared.newcomers.pop(self, None)
        self._finish()
        self._timers.stop_all()

    def take(self, data: bytes | memoryview) -> int:
        """Give a slice of a read to the engine and handle its events; returns their number."""
        try:
            self._receive(data)
        except EngineError as error:
            self.dispatch(self._events()[:BUSY_EVENTS])
            self._break(error)
            return 0
        events = self._events()
        if len(events) > BUSY_EVENTS:
            self._turns.add(events)
        else:
            self.dispatch(events)
        return len(events)

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

    def hold(self, more_bytes: int) -> bool:
        """Count bytes of incomplete messages; false when there are too many."""
        self.incomplete_bytes += more_bytes
        return self._shared.hold(more_bytes) and self.incomplete_bytes <= self.limits.incomplete_bytes

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
            self._break(error)
            return
        events = self._events()
        if events:
            if self._turns.waiting:
                self._turns.add(events)
            else:
                self.dispatch(events)
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
        self.complain("connection from %s closed: %s", self.peer, reason)
        self._finish()
        self.transport.abort()

    # Events.

    def dispatch(self, events: list[Event]) -> None:
        """Handle events, each on its own."""
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

    def _on_data(self, event: http2.DataReceived) -> None:
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

    def _on_request(self, event: http2.RequestReceived) -> None:
        raw = dict(event.headers)
        if not self._last_stream_id:
            self._shared.newcomers.pop(self, None)
        stream_id = self._last_stream_id = event.stream_id
        if len(self.streams) + len(self.ending) >= self.limits.streams:
            self.engine.reset_stream(stream_id, ErrorCode.REFUSED_STREAM)
            self._control.spend()
            return
        stream = Stream(self, stream_id)
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
        stream.open(*(self._services.get(path) or (path[:_SHOWN_BYTES].decode("latin-1"), unserved)), raw)
        if event.end_stream:
            stream.half_close()

    def _on_trailers(self, event: http2.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.half_close()

    def _on_reset(self, event: http2.StreamReset) -> None:
        stream_id = event.stream_id
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            self.ending[stream_id] = stream
            stream.drop(f"reset by the client (code {event.error_code})")
        else:
            stream = self.ending.get(stream_id)
        if stream is None or not stream.started:
            self._control.spend()  # Nothing was answered: the pattern of a rapid reset attack.

    def _on_closed(self, event: http2.StreamClosed) -> None:
        stream_id = event.stream_id
        if self._credit.withheld:
            self._credit.closed(stream_id)
        if self.ending.pop(stream_id, None) is None:
            stream = self.streams.pop(stream_id, None)
            if stream is not None:
                self._sweeper.count_cut()
                stream.drop(f"stream error (code {event.error_code})")
            self._control.spend()  # The peer made the engine reset it, in a way of its choice.

    def _on_settings(self, event: http2.SettingsReceived) -> None:
        self._timers.stop("preface")
        self._control.spend()

    def _on_control(self, event: Event) -> None:
        self._control.spend()

    def _on_window(self, event: http2.WindowUpdated) -> None:
        self._updates.spend()

    def _on_ping_answer(self, event: http2.PingAcknowledged) -> None:
        self._control.spend()
        self.farewell.answered(event.opaque_data)

    def _on_engine_closed(self, event: http2.ConnectionClosed) -> None:
        self._finish()
        if event.error_code:
            self.complain(
                "connection from %s ended with HTTP/2 error %d", self.peer, event.error_code, level=logging.INFO
            )
            self.close()
        else:
            self._timers.start("parting", _PARTING_S, self.close)

    # Ends.

    def _expel(self, reason: str) -> None:
        self.complain("connection from %s closed: %s", self.peer, reason)
        with contextlib.suppress(EngineError):
            if self.engine.want_read:  # Otherwise it has said its GOAWAY.
                self.engine.terminate_connection(ErrorCode.ENHANCE_YOUR_CALM)
                self._write(self._output())
        self.close()

    def _break(self, error: EngineError) -> None:
        """The engine failed and is of no more use."""
        if not self.over:
            self.complain("connection from %s closed: %s", self.peer, error, level=logging.INFO)
            self._write(http2.last_words(self.engine, error, self._last_stream_id))
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
    http2.DataReceived: Connection._on_data,
    http2.RequestReceived: Connection._on_request,
    http2.StreamReset: Connection._on_reset,
    http2.StreamClosed: Connection._on_closed,
    http2.WindowUpdated: Connection._on_window,
    http2.TrailersReceived: Connection._on_trailers,
    http2.PingReceived: Connection._on_control,
    http2.PingAcknowledged: Connection._on_ping_answer,
    http2.SettingsReceived: Connection._on_settings,
    http2.SettingsAcknowledged: Connection._on_control,
    http2.PriorityUpdateReceived: Connection._on_control,
    http2.GoAwayReceived: Connection._on_control,
    http2.ConnectionClosed: Connection._on_engine_closed,
}
