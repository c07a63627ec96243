# SPDX-License-Identifier: Apache-2.0
"""Who comes in: accepts sockets, takes them through TLS, and keeps their number bounded.

A socket counts from the moment it is accepted. When there are as many as allowed, a new one takes the place of the
oldest newcomer, a connection that has asked nothing yet: a crowd of peers that connect and say nothing cannot lock out
one that means it. Only when every connection has asked something the new one is refused.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import socket
import ssl

from epp.transport.connection import Connection
from epp.transport.shared import Shared

log = logging.getLogger("epp.transport")

_BACKLOG = 1_024
_TLS_SHUTDOWN_S = 2.0
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_EXHAUSTED_PAUSE_S = 0.1


class Acceptor:
    """Takes connections from a bound socket until it is closed."""

    def __init__(self, sock: socket.socket, shared: Shared, context: ssl.SSLContext | None) -> None:
        """Start listening. Raises OSError."""
        sock.listen(_BACKLOG)
        self._sock = sock
        self._shared = shared
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._greetings: set[asyncio.Task[None]] = set()
        self._accepting = self._loop.create_task(self._accept())

    async def close(self) -> None:
        """Accept no more. Connections live on."""
        self._accepting.cancel()
        # Waited for, not awaited: a cancellation of ours must not be taken for its own.
        await asyncio.wait((self._accepting,))
        self._sock.close()

    async def give_up(self) -> None:
        """End the handshakes that are under way."""
        for greeting in self._greetings:
            greeting.cancel()
        await asyncio.gather(*self._greetings, return_exceptions=True)

    async def _accept(self) -> None:
        shared = self._shared
        while True:
            # A crowd at the door must not keep the loop from those inside.
            await asyncio.sleep(0)
            try:
                sock, _ = await self._loop.sock_accept(self._sock)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    shared.complain("no connection can be accepted for now: %s", error.strerror, lines_per_s=1)
                    await asyncio.sleep(_EXHAUSTED_PAUSE_S)
                continue  # The peer went away before it was taken.
            if shared.crowded and not shared.make_room():
                most = shared.limits.connections
                shared.complain("connections are refused: %d are open, as many as allowed", most, lines_per_s=1)
                sock.close()
                continue
            connection = Connection(shared)
            greeting = self._loop.create_task(self._greet(connection, sock))
            shared.handshakes.add(connection)
            shared.newcomers[connection] = greeting.cancel
            self._greetings.add(greeting)
            greeting.add_done_callback(self._greetings.discard)
            greeting.add_done_callback(functools.partial(self._greeted, connection, sock))

    async def _greet(self, connection: Connection, sock: socket.socket) -> None:
        context = self._context
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=context,
                ssl_handshake_timeout=None if context is None else self._shared.limits.handshake_s,
                ssl_shutdown_timeout=None if context is None else _TLS_SHUTDOWN_S,
            )
        except OSError as error:  # Everything TLS and sockets can say.
            log.debug("a connection came to nothing: %s", error)

    def _greeted(self, connection: Connection, sock: socket.socket, _: object) -> None:
        shared = self._shared
        if connection not in shared.connections:
            shared.handshakes.discard(connection)
            shared.newcomers.pop(connection, None)
            sock.close()
