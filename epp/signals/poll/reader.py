# SPDX-License-Identifier: Apache-2.0
"""Reads one endpoint's metrics page again and again over one keep-alive connection.

`PageReader.fetch` starts one read; its `PageSink` is told exactly once, with the page or with why there is none, and
never after `close`. The page is lent: its buffer is used by other readers as soon as `on_page` returns. Everything
happens in callbacks of the event loop; a task exists only while a connection is being made.

A connection that the endpoint closed while it was idle is opened anew without counting as a failure. Any failure
ends the connection, so that bytes of one answer are never taken for the next.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass
from typing import Protocol, cast

from epp.contract.endpoints import format_address
from epp.signals.poll.buffers import MIB, BufferPool
from epp.signals.poll.http1 import MAX_HEAD_BYTES, PageError, ResponseParser, too_large
from epp.signals.poll.tls import PageTls


class PageSink(Protocol):
    """Who wants the page."""

    def on_page(self, buffer: bytearray, start: int, end: int) -> None:
        """The page is `buffer[start:end]`, until this returns."""
        ...

    def on_page_error(self, error: PageError) -> None:
        """There is no page this time."""
        ...

    def on_idle_close(self) -> None:
        """The endpoint ended the connection while no page was asked for."""
        ...

    def on_reconnect(self) -> None:
        """The endpoint ended the connection as the page was asked for; it is being asked over a new one."""
        ...


class Meter(Protocol):
    """Who wants to know what reading costs (`Turns`)."""

    def seconds(self) -> float:
        """A clock."""
        ...

    def spent(self, seconds: float, /) -> None:
        """So much of it was spent."""
        ...


@dataclass(frozen=True, slots=True)
class PageSource:
    """Where a page is. `tls` None means plain HTTP."""

    host: str
    port: int
    path: str = "/metrics"
    tls: PageTls | None = None

    @property
    def url(self) -> str:
        """For messages."""
        return f"{'https' if self.tls else 'http'}://{format_address(self.host, self.port)}{self.path}"

    def request(self, path: str) -> bytes:
        """The request for `path` there, complete."""
        return (
            f"GET {path} HTTP/1.1\r\nHost: {format_address(self.host, self.port)}\r\nUser-Agent: epp\r\n"
            "Accept: text/plain;version=0.0.4\r\nAccept-Encoding: identity\r\n\r\n"
        ).encode("latin-1")


class PageReader:
    """One endpoint's page. Must be created and used on `loop`'s thread.

    * timeout_s: for one read, connecting included
    * max_bytes: of a page
    * meter: told what receiving costs, the sink's part included
    """

    def __init__(
        self,
        source: PageSource,
        sink: PageSink,
        *,
        loop: asyncio.AbstractEventLoop,
        buffers: BufferPool,
        timeout_s: float = 1.0,
        max_bytes: int = 8 * MIB,
        meter: Meter | None = None,
    ) -> None:
        self.source = source
        self.max_bytes = max_bytes
        self.buffers = buffers
        self.meter = meter
        self.tls_version = ""
        """The version of TLS spoken on the last connection, "" for none."""
        self._path = source.path
        self._request = source.request(source.path)
        self._sink = sink
        self._loop = loop
        self._timeout_s = timeout_s
        self._timer: asyncio.TimerHandle | None = None
        self._connection: _Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reused = False

    def use(self, path: str) -> None:
        """Ask for `path` from now on."""
        if path != self._path:
            self._path = path
            self._request = self.source.request(path)

    def fetch(self) -> None:
        """Start a read. Only one at a time."""
        if self._timer is not None:
            raise RuntimeError(f"{self.source.url} is being read already")
        self._timer = self._loop.call_later(self._timeout_s, self._timed_out)
        if self._connection is not None:
            self._reused = True
            self._connection.ask(self._request)
        else:
            self._connect()

    def close(self) -> None:
        """End the connection and whatever is under way; the sink is not told."""
        self._stop()
        self._drop_connection()

    def answered(self, connection: _Connection, buffer: bytearray, start: int, end: int) -> None:
        """`connection` has the page."""
        if not connection.keep_alive:
            self._drop_connection()
        self._stop()
        self._sink.on_page(buffer, start, end)

    def broke(self, connection: _Connection, error: PageError, *, untouched: bool = False) -> None:
        """`connection` is of no more use; `untouched` when it ended before any byte of an answer."""
        if connection is not self._connection:
            return
        self._drop_connection()
        if self._timer is None:
            self._sink.on_idle_close()
            return
        if untouched and self._reused:
            self._sink.on_reconnect()
            self._connect()
        else:
            self._fail(error)

    def _connect(self) -> None:
        self._reused = False
        self._connecting = self._loop.create_task(self._open())

    async def _open(self) -> None:
        source, tls = self.source, self.source.tls
        try:
            if tls is not None:
                await tls.ready()
            _, connection = await self._loop.create_connection(
                lambda: _Connection(self), source.host, source.port, ssl=tls.context if tls is not None else None
            )
        except ssl.SSLError as error:
            if tls is not None and isinstance(error, ssl.SSLCertVerificationError):
                tls.doubt()
            self._fail(PageError("tls", f"the TLS handshake failed: {_one_line(error)}"))
        except OSError as error:
            self._fail(PageError("connect", f"cannot connect: {_one_line(error)}"))
        else:
            self._connecting = None
            self._connection = connection
            self.tls_version = connection.tls_version
            connection.ask(self._request)

    def _timed_out(self) -> None:
        what = "the endpoint did not accept a connection" if self._connecting else "no complete answer came"
        self._fail(PageError("timeout", f"{what} within {self._timeout_s:g} s"))

    def _fail(self, error: PageError) -> None:
        self.close()
        self._sink.on_page_error(PageError(error.reason, f"{self.source.url}: {error}"))

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connecting is not None:
            # The task itself may be what calls this, at its end.
            if self._connecting is not asyncio.current_task(self._loop):
                self._connecting.cancel()
            self._connecting = None

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


class _Connection(asyncio.BufferedProtocol):
    """One TCP or TLS connection; receives straight into a borrowed buffer."""

    def __init__(self, reader: PageReader) -> None:
        self._reader = reader
        self._transport: asyncio.Transport | None = None
        self._parser: ResponseParser | None = None
        self._buffer: bytearray | None = None
        self._view = memoryview(b"")
        self._filled = 0
        self._usual_bytes = 0
        self._began_s = 0.0
        self.keep_alive = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @property
    def tls_version(self) -> str:
        """As `PageReader.tls_version`."""
        spoken = self._transport.get_extra_info("ssl_object") if self._transport is not None else None
        return "" if spoken is None else str(spoken.version())

    def ask(self, request: bytes) -> None:
        """Send `request`; the answer goes to the reader."""
        self._parser = ResponseParser(self._reader.max_bytes)
        if self._transport is None or self._transport.is_closing():
            self._reader.broke(self, PageError("closed", "the endpoint closed the connection"), untouched=True)
        else:
            self._transport.write(request)

    def abort(self) -> None:
        """Close at once; nothing is reported after this."""
        self._parser = None
        self._return_buffer()
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        meter = self._reader.meter
        if meter is not None:
            # What the system takes to fill the buffer counts too.
            self._began_s = meter.seconds()
        buffer = self._buffer
        if buffer is None:
            # One byte beyond the usual size shows at once whether there is more.
            buffer = self._buffer = self._reader.buffers.take(self._usual_bytes + 1)
            self._view = memoryview(buffer)
        elif self._filled == len(buffer):
            needed = max(2 * len(buffer), self._parser.size_hint if self._parser else 0)
            larger = self._reader.buffers.take(needed)
            larger[: self._filled] = buffer
            self._return_buffer(keep_filled=True)
            self._buffer = larger
            self._view = memoryview(larger)
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._received(nbytes)
        meter = self._reader.meter
        if meter is not None:
            meter.spent(meter.seconds() - self._began_s)

    def _received(self, nbytes: int) -> None:
        self._filled += nbytes
        parser, buffer = self._parser, self._buffer
        if buffer is None:
            return
        if parser is None:
            self._reader.broke(self, PageError("protocol", "the endpoint sent something unasked"))
            self.abort()
            return
        try:
            if not parser.advance(buffer, self._filled):
                if self._filled > self._reader.max_bytes + MAX_HEAD_BYTES:
                    raise too_large(self._reader.max_bytes)
                return
        except PageError as error:
            self._reader.broke(self, error)
            return
        self._complete(parser, buffer)

    def eof_received(self) -> bool:
        parser, buffer = self._parser, self._buffer
        if parser is not None and buffer is not None and parser.finish(self._filled):
            self._complete(parser, buffer)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        cause = f": {_one_line(exc)}" if exc else ""
        when = "in the middle of its answer" if self._filled else "without an answer"
        error = PageError("closed", f"the endpoint closed the connection {when}{cause}")
        self._reader.broke(self, error, untouched=not self._filled)
        self._parser = None
        self._return_buffer()

    def _complete(self, parser: ResponseParser, buffer: bytearray) -> None:
        # Bytes after the answer belong to nothing we asked for.
        self.keep_alive = parser.keep_alive and parser.end == self._filled
        self._usual_bytes = self._filled
        self._parser = self._buffer = None
        self._view = memoryview(b"")
        self._filled = 0
        try:
            self._reader.answered(self, buffer, parser.body_start, parser.body_end)
        finally:
            self._reader.buffers.give_back(buffer)

    def _return_buffer(self, keep_filled: bool = False) -> None:
        if self._buffer is not None:
            self._reader.buffers.give_back(self._buffer)
            self._buffer = None
            self._view = memoryview(b"")
        if not keep_filled:
            self._filled = 0


def _one_line(error: BaseException) -> str:
    # The event loop puts words of its own in place of the system's for errors of connecting.
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        text = os.strerror(error.errno)
    return " ".join(text.split()) or type(error).__name__
