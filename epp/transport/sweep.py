# SPDX-License-Identifier: Apache-2.0
"""What ends connections and streams that take nothing: the one recurring timer of a connection.

It runs only while output is queued, the socket is blocked, or finished streams are open:

* A socket that took nothing for `stalled_output_s` is closed.
* A stream that took nothing of its output for that long is reset. An idle stream has no output and is never touched.
* A finished stream the client leaves open is reset with NO_ERROR about a second later (RFC 9113, 8.1). Clients mostly
  close it themselves, Envoy always.

Times are up to one sweep longer than they say.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from epp.transport.engine import FRAME_BYTES, EngineError, ErrorCode
from epp.transport.timers import Timers

if TYPE_CHECKING:
    from epp.transport.connection import Connection

_SWEEP_S = 1.0


class Sweeper:
    """Sweeps one connection."""

    __slots__ = (
        "_connection",
        "_cut_streams",
        "_every_s",
        "_left_bytes",
        "_since_s",
        "_stalled_s",
        "_timers",
        "started",
    )

    def __init__(self, connection: Connection, timers: Timers) -> None:
        self._connection = connection
        self._timers = timers
        self._stalled_s = connection.limits.stalled_output_s
        self._every_s = min(_SWEEP_S, self._stalled_s / 4)
        self._left_bytes = -1
        self._since_s = 0.0
        self._cut_streams = 0
        self.started = False

    def start(self) -> None:
        """There may be something to sweep."""
        if not self.started:
            self.started = True
            self._timers.start("sweep", self._every_s, self._sweep)

    def count_cut(self) -> None:
        """A stream was reset from our side.

        The engine loses count of a DATA frame that was arriving for it just then, so each may cost one frame of the
        connection's window for good. Before that can matter, the peer is asked for a new connection.
        """
        self._cut_streams += 1
        connection = self._connection
        if self._cut_streams * FRAME_BYTES >= connection.limits.connection_window_bytes // 2:
            connection.loop.call_soon(connection.farewell.ask)  # Not from within the handling of a read.

    def _sweep(self) -> None:
        connection = self._connection
        self.started = False
        if connection.over:
            return
        now_s = connection.clock()
        if connection.blocked:
            self._sweep_socket(now_s)
        else:
            self._left_bytes = -1
            self._sweep_finished(now_s)
            self._sweep_open(now_s)
            connection.flush()
        if not connection.over and (connection.blocked or connection.ending or connection.queued()):
            self.start()

    def _sweep_socket(self, now_s: float) -> None:
        connection = self._connection
        left = connection.transport.get_write_buffer_size()
        if left != self._left_bytes:
            self._left_bytes = left
            self._since_s = now_s
        elif now_s - self._since_s >= self._stalled_s:
            connection.abort(f"it took no output for {self._stalled_s:g} s")

    def _sweep_finished(self, now_s: float) -> None:
        connection = self._connection
        engine = connection.engine
        for stream_id, stream in list(connection.ending.items()):
            with contextlib.suppress(EngineError):
                queued = connection.queued(stream_id)
                waited_s = stream.stalled_s(queued, now_s)
                # With room in both windows nothing held the trailers back. RST_STREAM overtakes queued DATA.
                told = not queued and engine.remote_window_size > 0 and engine.stream_remote_window_size(stream_id) > 0
                if waited_s >= self._stalled_s or (told and waited_s > 0):
                    self._reset(stream_id, ErrorCode.NO_ERROR if told else ErrorCode.CANCEL)

    def _sweep_open(self, now_s: float) -> None:
        connection = self._connection
        if not connection.queued():
            return
        for stream_id, stream in list(connection.streams.items()):
            queued = connection.queued(stream_id)
            if queued and stream.stalled_s(queued, now_s) >= self._stalled_s:
                connection.complain(
                    "a stream of %s was reset: it took no output for %g s", connection.peer, self._stalled_s
                )
                connection.ending[stream_id] = connection.streams.pop(stream_id)
                self._reset(stream_id, ErrorCode.CANCEL)
                stream.drop("the client takes no output")

    def _reset(self, stream_id: int, error: ErrorCode) -> None:
        self.count_cut()
        self._connection.engine.reset_stream(stream_id, error)
