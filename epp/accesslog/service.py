# SPDX-License-Identifier: Apache-2.0
"""The gRPC service `StreamAccessLogs`: one stream per Envoy worker, open as long as both sides live.

A malformed message ends its own stream and nothing else; Envoy opens another one with its next entries. The stream is
never answered before it ends. All calls are on the event loop's thread.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from epp.accesslog.entry import Ended, ends
from epp.contract.errors import ProtocolError

log = logging.getLogger("epp.accesslog")

PATH = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
"""The gRPC path of the service."""

OK = 0
INVALID_ARGUMENT = 3
UNAVAILABLE = 14


class Outlet(Protocol):
    """The transport's side of one stream."""

    def send(self, message: bytes) -> None:
        """Queue one serialised message."""
        ...

    def finish(self, status: int = OK, message: str = "") -> None:
        """End the stream with a gRPC status after everything queued."""
        ...


class Sink(Protocol):
    """Who wants to know."""

    def ended(self, end: Ended) -> bool:
        """A request ended; whether it was one of ours."""
        ...

    def log_streams(self, count: int) -> None:
        """So many logs are connected now."""
        ...


@dataclass(slots=True)
class LogCounts:
    """Since the start: streams that are open, and entries by what became of them.

    * matched: told the end of a request of ours; unknown: of another replica, of another route, or told before
    * skipped: no end of a request; malformed: messages that could not be read
    """

    streams: int = 0
    matched: int = 0
    unknown: int = 0
    skipped: int = 0
    malformed: int = 0


class AccessLogs:
    """All streams of this process."""

    def __init__(self, sink: Sink) -> None:
        self.counts = LogCounts()
        self._sink = sink
        self._open: set[_Stream] = set()
        self._stopped = False

    def open(self, _metadata: Any, outlet: Outlet) -> _Stream:
        """What to register under `PATH`."""
        stream = _Stream(self, outlet)
        if self._stopped:
            outlet.finish(UNAVAILABLE, "the endpoint picker is stopping")
        else:
            self._open.add(stream)
            self._changed()
        return stream

    def stop(self) -> None:
        """End every stream and take no more: they would stay open for ever, and a stop waits for open streams."""
        self._stopped = True
        for stream in list(self._open):
            stream.half_closed()

    def take(self, data: bytes) -> None:
        """One message. Raises `ProtocolError` for what is none."""
        counts, tell = self.counts, self._sink.ended
        for end in ends(data):
            if end is None:
                counts.skipped += 1
            elif tell(end):
                counts.matched += 1
            else:
                counts.unknown += 1

    def gone(self, stream: _Stream) -> None:
        """`stream` is over."""
        if stream in self._open:
            self._open.remove(stream)
            self._changed()

    def _changed(self) -> None:
        self.counts.streams = len(self._open)
        self._sink.log_streams(len(self._open))


class _Stream:
    """One stream: what the transport tells it of."""

    __slots__ = ("_logs", "_outlet")

    def __init__(self, logs: AccessLogs, outlet: Outlet) -> None:
        self._logs = logs
        self._outlet = outlet

    def message(self, data: bytes) -> None:
        """One message from Envoy."""
        try:
            self._logs.take(data)
        except ProtocolError as error:
            self._logs.counts.malformed += 1
            log.warning("%s", error)
            self._logs.gone(self)
            self._outlet.finish(INVALID_ARGUMENT, str(error))

    def half_closed(self) -> None:
        """Envoy says no more, or we want to hear no more."""
        self._logs.gone(self)
        # The method's one answer is an empty message.
        self._outlet.send(b"")
        self._outlet.finish()

    def cancelled(self, _reason: str) -> None:
        """The stream was reset or lost."""
        self._logs.gone(self)
