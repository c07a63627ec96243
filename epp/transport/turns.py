# SPDX-License-Identifier: Apache-2.0
"""Spreads what one read brought over several turns of the loop, so that no peer holds it.

A read can hold tens of thousands of frames, a DATA frame thousands of messages, and a few bytes of HPACK a thousand
times their size in headers. So a read is given to the engine in slices. A connection handles some of what comes of
them; the rest waits here, and nothing more is read until it is done. Order is kept: of a stream's messages by its own
buffer, of events and bytes by the queues here.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from epp.transport.engine import Event

if TYPE_CHECKING:
    from epp.transport.connection import Connection
    from epp.transport.stream import Stream

SLICE_BYTES = 16_384
DENSE_SLICE_BYTES = 1_024
"""For a connection that once brought more events in a slice than are handled in a turn."""
BUSY_EVENTS = 64
"""A slice with more events is followed by no other within its turn."""
MESSAGES_A_TURN = 256
"""Of those that come many to a frame."""
_EVENTS_A_TURN = 256


class Turns:
    """What one connection has put off. `waiting`: something was, or this turn had enough, and reading is paused."""

    __slots__ = ("_busy", "_bytes", "_connection", "_events", "_slice_bytes", "_streams", "waiting")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._bytes = memoryview(b"")
        self._events: deque[Event] = deque()
        self._streams: deque[Stream] = deque()
        self._slice_bytes = SLICE_BYTES
        self._busy = False
        self.waiting = False

    def read(self, data: bytes) -> None:
        """A long read, or one that came while another was put off."""
        self._bytes = memoryview(bytes(self._bytes) + data) if self._bytes else memoryview(data)
        if not self.waiting and (self._slices() > BUSY_EVENTS or self._bytes):
            self._wait()

    def put_off(self, stream: Stream) -> None:
        """The stream holds messages for the next turn."""
        self._streams.append(stream)
        self._wait()

    def add(self, events: list[Event]) -> None:
        """Handle `events` after those put off before, as many as this turn allows."""
        if len(events) > _EVENTS_A_TURN:
            self._slice_bytes = DENSE_SLICE_BYTES
        self._events.extend(events)
        self._wait()
        self._handle()

    def again(self) -> None:
        """Go on in the next turn."""
        self._connection.loop.call_soon(self._turn)

    def _slices(self) -> int:
        """Give bytes to the engine until this turn had enough; how many events they were."""
        connection = self._connection
        events = 0
        while self._bytes and events <= _EVENTS_A_TURN and not self._busy and not connection.over:
            now, self._bytes = self._bytes[: self._slice_bytes], self._bytes[self._slice_bytes :]
            events += connection.take(now)
        return events

    def _wait(self) -> None:
        self._busy = True
        if not self.waiting:
            self.waiting = True
            connection = self._connection
            if not connection.transport.is_closing():
                connection.transport.pause_reading()
            self.again()

    def _turn(self) -> None:
        connection = self._connection
        if connection.over:
            self._events.clear()
            self._streams.clear()
            self._bytes = memoryview(b"")
            return
        if connection.blocked:
            return  # It goes on when the socket takes more.
        if not self._events and not self._streams and not self._bytes:
            self.waiting = False
            if not connection.transport.is_closing():
                connection.transport.resume_reading()
            return
        connection.idle = False
        connection.room = MESSAGES_A_TURN
        self._busy = False
        streams = self._streams
        for _ in range(len(streams)):
            if connection.room <= 0:
                break
            streams.popleft().resume()
        self._handle()
        if not self._events and not streams:
            self._slices()
        connection.flush()
        self.again()

    def _handle(self) -> None:
        events = self._events
        if events and self._connection.room > 0:
            self._connection.dispatch([events.popleft() for _ in range(min(_EVENTS_A_TURN, len(events)))])
