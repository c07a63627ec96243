# SPDX-License-Identifier: Apache-2.0
"""What a gRPC transport drives, whatever carries the bytes.

A transport knows gRPC paths and message bytes, nothing of what they mean. For every stream it calls the `Service`
registered under the path and gets a `Call`; it feeds the call messages as they arrive and gives it a `Reply` to
answer with. Everything happens on the event loop's thread.

Order: `message`*, then at most one of `half_closed` (the client has said everything), and at last exactly one of
`Reply.finish` by the call or `cancelled` by the transport. After either, the transport calls the call no more and
ignores what the call still sends. Messages already queued are delivered before a `finish`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

OK = 0
CANCELLED = 1
UNKNOWN = 2
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14


class Reply(Protocol):
    """The transport's side of one stream, given to a call. Never blocks, never raises for a peer that went away."""

    def send(self, message: bytes) -> None:
        """Queue one serialised message."""
        ...

    def finish(self, status: int = OK, message: str = "") -> None:
        """End the stream with a gRPC status, after everything queued."""
        ...

    def at_once_bytes(self) -> int:
        """How much may be sent now so that it, and a `finish` right after it, leave together; 0 when nobody knows."""
        ...


class Call(Protocol):
    """What answers one stream."""

    def message(self, data: bytes) -> None:
        """One serialised message from the client."""
        ...

    def half_closed(self) -> None:
        """The client sends no more."""
        ...

    def cancelled(self, reason: str) -> None:
        """The stream is gone before we finished it: reset, deadline, connection lost, transport stopped."""
        ...


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the client said when it opened the stream. `values` has lower-case keys without pseudo headers."""

    path: str
    authority: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


Service = Callable[[Metadata, Reply], Call]
Services = Mapping[str, Service]
"""gRPC path (`/package.Service/Method`) to what answers it; other paths get UNIMPLEMENTED."""

Clock = Callable[[], float]
"""Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a listener. Windows and queues are what a peer can make us hold."""

    message_bytes: int = 64 * 1024 * 1024
    """One message."""
    header_list_bytes: int = 16 * 1024
    """The header fields of one request, 32 bytes for each besides its text (RFC 9113, 6.5.2); gRPC's own default."""
    stream_window_bytes: int = 256 * 1024
    connection_window_bytes: int = 16 * 1024 * 1024
    queued_output_bytes: int = 1024 * 1024
    """Output of one stream above which what it sends is not acknowledged."""
    connection_output_bytes: int = 16 * 1024 * 1024
    """Output of all streams of a connection above which nothing they send is acknowledged."""
    stalled_output_s: float = 60.0
    """A stream, or a socket, that took none of its output for this long is ended."""
    streams: int = 10_000
    """Open streams of one connection; one more is refused."""
    connections: int = 1_000
    """Open connections, handshakes included; one more takes the place of one that asked nothing, or is refused."""
    handshake_s: float = 10.0
    """For TLS, and again for HTTP/2's preface."""
    control_frames: int = 10_000
    """Pings, settings, resets and empty frames one connection may send per second before it is closed."""
    incomplete_bytes: int = 256 * 1024 * 1024
    """Messages that have not arrived whole, all streams of one connection together; the stream over it is refused."""
    all_incomplete_bytes: int = 1024 * 1024 * 1024
    """The same for all connections together."""


DEFAULT_LIMITS = Limits()


class Listener(Protocol):
    """A server that listens."""

    @property
    def port(self) -> int:
        """The port in use; told by the system when 0 was asked for."""
        ...

    async def drain(self) -> None:
        """Tell peers to go elsewhere (GOAWAY) and accept no new connection; open streams go on."""
        ...

    async def close(self, grace_s: float) -> None:
        """Drain, wait up to `grace_s` for open streams, then end what is left."""
        ...


# What both transports offer (one function each):
#   async def listen(services: Services, host: str, port: int, *, tls: TlsSource | None, limits: Limits,
#                    clock: Clock) -> Listener
# raising StartError when the port is taken.
