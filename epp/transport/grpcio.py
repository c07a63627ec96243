# SPDX-License-Identifier: Apache-2.0
"""The gRPC server on grpcio's asyncio server: the second transport, and the reference for the first.

The same `Call` and `Reply` at the cost of a task and several thread hand-offs per stream.

Held here as on libnghttp2: `message_bytes`, `streams`, `header_list_bytes`, `handshake_s`, `stream_window_bytes` (where
grpcio starts; it may grow it), `queued_output_bytes`; `connections` without making room for newcomers.

What grpcio cannot do, so that it does not hold here: `stalled_output_s`, `control_frames` (its own guards on pings and
resets are in place), `connection_window_bytes`, `connection_output_bytes`, `incomplete_bytes`. TLS is 1.2 and 1.3 with
its own cipher suites. `Metadata.authority` is empty. Draining is coarser: grpcio cancels the few calls that arrive
while it begins to stop, and under a flood of resets also calls of other connections. Use it with peers you trust.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from epp.contract.errors import StartError
from epp.transport.call import (
    DEFAULT_LIMITS,
    INTERNAL,
    OK,
    UNAVAILABLE,
    Call,
    Clock,
    Limits,
    Listener,
    Metadata,
    Service,
    Services,
)
from epp.transport.sockets import listening_socket, shown
from epp.transport.unserved import unserved

if TYPE_CHECKING:
    from epp.transport.tls import TlsSource

log = logging.getLogger("epp.transport")

_FOREVER_S = 86_400.0
_PING_INTERVAL_MS = 1_000
_PING_STRIKES = 10
_UNHELD = (
    "stalled_output_s", "control_frames", "connection_window_bytes", "connection_output_bytes", "incomplete_bytes",
    "all_incomplete_bytes",
)  # fmt: skip
_SETTLE_S = 0.005
"""grpcio shows a cancelled RPC as the end of its messages first; wait for the cancellation before believing it."""
_PARTING_S = 0.25
"""How long the last statuses may take to reach the peers."""


class _Stream:
    """One RPC: pumps messages to its call, and what the call replies back out."""

    def __init__(self, path: str, context: Any, queued_output_bytes: int) -> None:
        self._path = path
        self._context = context
        self._queued_output_bytes = queued_output_bytes
        self._call: Call | None = None
        self._outbox: deque[bytes] = deque()
        self._queued_bytes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._live = True
        self._status = OK
        self._message = ""

    # What the call says (Reply).

    def send(self, message: bytes) -> None:
        """Queue one message."""
        if self._live:
            self._outbox.append(message)
            self._queued_bytes += len(message)
            if self._queued_bytes > self._queued_output_bytes:
                self._room.clear()
            self._news.set()

    def finish(self, status: int = OK, message: str = "") -> None:
        """End the stream after everything queued."""
        if self._live:
            self._live = False
            self._call = None
            self._status = status
            self._message = message
            self._news.set()

    def at_once_bytes(self) -> int:
        """Nothing: grpcio sends the status by itself, later than the messages."""
        return 0

    # What the server tells.

    async def run(self, service: Service, values: dict[str, str]) -> None:
        """Serve the RPC to its end."""
        try:
            call = service(Metadata(self._path, values=values), self)
        except Exception:
            self._fail()
        else:
            self._call = call if self._live else None
        reader = asyncio.ensure_future(self._read())
        try:
            await self._write()
        except asyncio.CancelledError:
            left_s = self._context.time_remaining()
            self.cancel("deadline" if left_s is not None and left_s <= 0 else "cancelled by the client")
            raise
        except Exception as error:
            self.cancel(f"connection lost ({error})")  # grpcio says so with several kinds of exceptions.
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def abort(self, status: int, message: str, reason: str) -> None:
        """End the stream ourselves: `status` and `message` for the peer, `reason` for the call."""
        call = self._call
        self.finish(status, message)
        _cancel(call, self._path, reason)

    def cancel(self, reason: str) -> None:
        """The RPC is gone."""
        call, self._call = self._call, None
        if self._live:
            self._live = False
            _cancel(call, self._path, reason)

    async def _read(self) -> None:
        end = _eof()
        while self._live:
            await self._room.wait()
            data = await self._context.read()
            if data is end:
                await asyncio.sleep(_SETTLE_S)
            call = self._call
            if call is None:
                return
            try:
                if data is end:
                    call.half_closed()
                    return
                call.message(data)
            except Exception:
                self._fail()

    async def _write(self) -> None:
        context = self._context
        while self._outbox or self._live:
            if not self._outbox:
                self._news.clear()
                await self._news.wait()
                continue
            message = self._outbox.popleft()
            await context.write(message)
            self._queued_bytes -= len(message)
            if self._queued_bytes <= self._queued_output_bytes:
                self._room.set()
        context.set_code(_status_code(self._status))
        context.set_details(self._message)

    def _fail(self) -> None:
        log.exception("a call of %s failed, its stream ends with INTERNAL", self._path)
        self.abort(INTERNAL, "internal error", "the call failed")


class _Router:
    """Finds the service of a path (a grpc.GenericRpcHandler by shape) and knows the open streams."""

    def __init__(self, services: Services, limits: Limits) -> None:
        self._services = dict(services)
        self._limits = limits
        self.streams: set[_Stream] = set()

    def service(self, details: Any) -> Any:
        """The handler of one RPC."""
        import grpc

        path: str = details.method
        service = self._services.get(path, unserved)
        values = dict(_texts(details.invocation_metadata))

        async def behavior(_: object, context: Any) -> None:
            stream = _Stream(path, context, self._limits.queued_output_bytes)
            self.streams.add(stream)
            try:
                await stream.run(service, values)
            finally:
                self.streams.discard(stream)

        return grpc.stream_stream_rpc_method_handler(behavior)


class GrpcioListener:
    """A `Listener` on grpcio."""

    def __init__(self, server: Any, port: int, router: _Router) -> None:
        self._server = server
        self._port = port
        self._router = router
        self._draining: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port in use."""
        return self._port

    async def drain(self) -> None:
        """Send GOAWAY and accept no new connection; open streams go on."""
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._server.stop(_FOREVER_S))
            await asyncio.sleep(0)

    async def close(self, grace_s: float) -> None:
        """Drain, wait up to `grace_s` for open calls, end what is left with UNAVAILABLE."""
        if self._server is None:
            return
        await self.drain()
        assert self._draining is not None
        await asyncio.wait([self._draining], timeout=grace_s)
        for stream in list(self._router.streams):
            stream.abort(UNAVAILABLE, "the server is stopping", "server stopping")
        await self._server.stop(_PARTING_S)
        await self._draining
        # Its destructor wants the loop once more; give it the loop while there is one.
        self._server = None
        await asyncio.sleep(0)


async def listen(
    services: Services,
    host: str,
    port: int,
    *,
    tls: TlsSource | None = None,
    limits: Limits = DEFAULT_LIMITS,
    clock: Clock = time.monotonic,
) -> Listener:
    """Serve `services` on `host:port` (0: any free port), with TLS when `tls` is given. Raises StartError.

    `clock` is unused here: grpcio has its own.
    """
    import grpc

    credentials = None if tls is None else _credentials(tls)
    # grpcio says little about a port it cannot have; a socket of our own finds out why.
    (await listening_socket(host, port)).close()
    router = _Router(services, limits)
    server: Any = grpc.aio.server(options=_options(limits))
    _warn(limits)
    server.add_generic_rpc_handlers((router,))
    address = shown(host or "::", port)
    try:
        bound = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise StartError(f"cannot listen on {shown(host, port)}: {error}; choose another port") from error
    await server.start()
    return GrpcioListener(server, bound, router)


def _options(limits: Limits) -> list[tuple[str, int]]:
    """grpcio's channel arguments for what it can bound."""
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_s * 1_000)),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_metadata_size", limits.header_list_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_list_bytes),
        ("grpc.http2.lookahead_bytes", limits.stream_window_bytes),
        # Envoy may be told to ping every few seconds, also while no request is open; more often is an attack.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _PING_INTERVAL_MS),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
    ]


def _warn(limits: Limits) -> None:
    """Say which bounds somebody set that do not hold here."""
    unheld = [name for name in _UNHELD if getattr(limits, name) != getattr(DEFAULT_LIMITS, name)]
    if unheld:
        log.warning("the grpcio transport does not hold %s; the one on libnghttp2 does", ", ".join(unheld))


def _credentials(tls: TlsSource) -> Any:
    import grpc

    if not tls.plain:
        raise StartError(
            "the grpcio transport serves TLS 1.2 and 1.3 with its own cipher suites; "
            "leave out the TLS minimum version and cipher suites, or use the transport on libnghttp2"
        )
    used = tls.pem()

    def configuration() -> Any:
        certificate, key = used
        return grpc.ssl_server_certificate_configuration([(key, certificate)])

    def newest() -> Any:
        nonlocal used
        if tls.pem() == used:
            return None
        used = tls.pem()
        return configuration()

    return grpc.dynamic_ssl_server_credentials(configuration(), newest, require_client_authentication=False)


def _texts(metadata: Iterable[tuple[str, str | bytes]]) -> Iterable[tuple[str, str]]:
    """Binary values as they are on the wire: base64 without padding."""
    for key, value in metadata:
        yield key, value if isinstance(value, str) else base64.b64encode(value).decode().rstrip("=")


def _eof() -> object:
    import grpc

    aio: Any = grpc.aio
    return aio.EOF


def _status_code(number: int) -> Any:
    import grpc

    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code
    return grpc.StatusCode.UNKNOWN


def _cancel(call: Call | None, path: str, reason: str) -> None:
    if call is not None:
        try:
            call.cancelled(reason)
        except Exception:
            log.exception("a call of %s failed when cancelled", path)
