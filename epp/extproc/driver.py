# SPDX-License-Identifier: Apache-2.0
"""Ties an `Exchange` to one stream of a transport.

A request costs a task only when the handler's decision must be waited for. An exception of the handler, or a peer
that breaks the protocol, ends this stream alone: with gRPC status INTERNAL, on which Envoy answers 500 or, if it is
configured to fail open, goes on without us.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from epp.contract.errors import ProtocolError
from epp.extproc.exchange import Exchange
from epp.extproc.gathering import ALL_BODIES_BYTES, Gathering
from epp.extproc.handler import End, Handler, Outcome
from epp.extproc.replies import Replies

log = logging.getLogger("epp.extproc")

NAME = "envoy.service.ext_proc.v3.ExternalProcessor"
"""What a health probe asks for."""
PATH = f"/{NAME}/Process"
"""The gRPC path of the service."""
MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""What a message may have around the largest body."""

OK = 0
INTERNAL = 13


class Outlet(Protocol):
    """Where replies go. The transports of `epp.transport` offer this for every stream."""

    def send(self, message: bytes) -> None:
        """Queue one serialised message."""
        ...

    def finish(self, status: int = OK, message: str = "") -> None:
        """End the stream with a gRPC status after everything queued."""
        ...

    def at_once_bytes(self) -> int:
        """How much may be sent now so that it, and a `finish` right after it, leave together; 0 when nobody knows."""
        ...


_LINES_PER_S = 10


class Notices:
    """What is said once, or seldom, however many streams it is true of. `clock` gives monotonic seconds."""

    __slots__ = ("_clock", "_lines", "_observed", "_since_s")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._observed = False
        self._clock = clock
        self._since_s = clock()
        self._lines = 0

    def observed(self) -> None:
        """A stream in observability mode."""
        if not self._observed:
            self._observed = True
            log.warning(
                "ext_proc: the filter has observability_mode, in which Envoy takes no answers: requests are neither "
                "routed nor counted; remove observability_mode from the filter's configuration"
            )

    def refused(self, error: ProtocolError) -> None:
        """A peer broke the protocol: a line, unless there were `_LINES_PER_S` this second."""
        now_s = self._clock()
        if now_s - self._since_s >= 1.0:
            self._since_s, self._lines = now_s, 0
        self._lines += 1
        if self._lines <= _LINES_PER_S:
            log.warning("%s", error)


class Driver:
    """One stream: gets its messages, half-close and cancellation from the transport."""

    __slots__ = ("_exchange", "_notices", "_outlet", "_task")

    def __init__(self, exchange: Exchange, outlet: Outlet, notices: Notices) -> None:
        self._exchange = exchange
        self._outlet = outlet
        self._notices = notices
        self._task: asyncio.Task[None] | None = None

    def message(self, data: bytes) -> None:
        """One message from Envoy."""
        exchange = self._exchange
        try:
            for reply in exchange.receive(data):
                self._outlet.send(reply)
        except Exception as error:
            self._fail(error)
            return
        if exchange.awaiting is not None:
            if self._task is None:
                self._task = asyncio.ensure_future(self._wait(exchange.awaiting))
        elif self._task is not None:
            # Decided, or Envoy did not wait for it.
            self._task.cancel()
        if exchange.finished:
            if exchange.observed:
                self._notices.observed()
            self._outlet.finish()

    def half_closed(self) -> None:
        """Envoy will send no more: its request is over, whether or not the response was seen to its end."""
        self._stop(End.GONE)
        self._outlet.finish()

    def cancelled(self, _reason: str) -> None:
        """The stream was reset or lost."""
        self._stop(End.GONE)

    async def _wait(self, outcome: Awaitable[Outcome]) -> None:
        try:
            replies = self._exchange.decided(await outcome)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail(error)
            return
        for reply in replies:
            self._outlet.send(reply)
        if self._exchange.finished:
            self._outlet.finish()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ProtocolError):
            self._notices.refused(error)
        else:
            log.error("the handler raised: %r", error, exc_info=error)
        self._exchange.finished = True
        self._stop(End.FAILED)
        self._outlet.finish(INTERNAL, str(error) if isinstance(error, ProtocolError) else "internal error")

    def _stop(self, end: End) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._exchange.close(end)


Open = Callable[[Any, Outlet], Driver]


class Services:
    """What to register under `PATH`, more than once if need be: all streams have the bounds of one service.

    All bodies together may take `ALL_BODIES_BYTES` while they arrive, or four times the limit of one if that is more.
    """

    def __init__(self, body_limit_bytes: int = 64 * 1024 * 1024) -> None:
        self._limit_bytes = body_limit_bytes
        self._replies, self._notices = Replies(), Notices()
        self._gathering = Gathering(max(ALL_BODIES_BYTES, 4 * body_limit_bytes))

    def plain(self, open_handler: Callable[[], Handler]) -> Open:
        """Makes a handler and a driver for every stream."""
        replies, notices, gathering, limit_bytes = self._replies, self._notices, self._gathering, self._limit_bytes

        def open_stream(_metadata: Any, outlet: Outlet) -> Driver:
            exchange = Exchange(open_handler(), replies, limit_bytes, outlet.at_once_bytes, gathering)
            return Driver(exchange, outlet, notices)

        return open_stream

    def choosing(self, handler_for: Callable[[Any], Handler]) -> Open:
        """The same, where the handler depends on what the transport knows of the stream."""
        replies, notices, gathering, limit_bytes = self._replies, self._notices, self._gathering, self._limit_bytes

        def open_stream(metadata: Any, outlet: Outlet) -> Driver:
            exchange = Exchange(handler_for(metadata), replies, limit_bytes, outlet.at_once_bytes, gathering)
            return Driver(exchange, outlet, notices)

        return open_stream


def service(open_handler: Callable[[], Handler], body_limit_bytes: int = 64 * 1024 * 1024) -> Open:
    """What to register under `PATH`: makes a handler and a driver for every stream. See `Services`."""
    return Services(body_limit_bytes).plain(open_handler)
