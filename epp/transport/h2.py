# SPDX-License-Identifier: Apache-2.0
"""The gRPC server on libnghttp2, in the event loop (asyncio's or uvloop).

What a stream costs is what counts here: no task, no thread, no queue, one read and one write for many streams.
`accept` lets peers in, `connection` holds one, `stream` one call, `frames` and `headers` gRPC's bytes, `engine` all of
libnghttp2.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from epp.transport.accept import Acceptor
from epp.transport.call import DEFAULT_LIMITS, Clock, Limits, Listener, Services
from epp.transport.shared import Shared
from epp.transport.sockets import cannot_listen, listening_socket

if TYPE_CHECKING:
    from epp.transport.tls import TlsSource

_POLL_S = 0.01
_PARTING_S = 0.25
"""How long peers without streams get to close the connection themselves; then none of their bytes are in flight."""
_CLOSE_S = 1.0
_DRAIN_S = 6.0


class H2Listener:
    """A `Listener` on libnghttp2."""

    def __init__(self, acceptor: Acceptor, port: int, shared: Shared) -> None:
        self._acceptor = acceptor
        self._port = port
        self._shared = shared

    @property
    def port(self) -> int:
        """The port in use."""
        return self._port

    async def drain(self) -> None:
        """Accept no connection, and have no peer open a stream any more; open ones go on.

        Returns when every peer has confirmed, at the latest after about five seconds. What peers sent before they
        confirmed is served: no call is lost.
        """
        await self._drain(_DRAIN_S)

    async def close(self, grace_s: float) -> None:
        """Drain, wait up to `grace_s` for open calls, end what is left with UNAVAILABLE, close the sockets."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + grace_s
        await self._drain(min(grace_s, _DRAIN_S))
        await self._acceptor.give_up()
        connections = self._shared.connections
        await _until(lambda: not any(connection.busy for connection in connections), deadline_s - loop.time())
        for connection in list(connections):
            connection.farewell.refuse()
            connection.stop()
        await _until(lambda: not connections, _PARTING_S)
        for connection in list(connections):
            connection.close(_CLOSE_S)
        await _until(lambda: not connections, _CLOSE_S + _PARTING_S)
        for connection in list(connections):
            connection.transport.abort()

    async def _drain(self, wait_s: float) -> None:
        await self._acceptor.close()
        shared = self._shared
        shared.draining = True
        connections = list(shared.connections)
        for connection in connections:
            connection.farewell.ask()
        await _until(lambda: all(connection.farewell.done for connection in connections), wait_s)


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

    `clock` times the bounds; deadlines and timers run on the loop.
    """
    by_path = {path.encode("ascii"): (path, service) for path, service in services.items()}
    shared = Shared(by_path, limits, clock)
    sock = await listening_socket(host, port)
    try:
        acceptor = Acceptor(sock, shared, None if tls is None else tls.context())
    except OSError as error:
        sock.close()
        raise cannot_listen(host, port, error) from error
    return H2Listener(acceptor, sock.getsockname()[1] if port == 0 else port, shared)


async def _until(condition: Callable[[], bool], wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + wait_s
    while not condition():
        if loop.time() >= deadline_s:
            return
        await asyncio.sleep(_POLL_S)
