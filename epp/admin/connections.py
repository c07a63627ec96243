# SPDX-License-Identifier: Apache-2.0
"""How many connections of a threaded server may be open, and which one goes when there is no room.

A connection waits for its client (to shake hands, to ask, to take the answer) or is being answered. When all places
are taken, a new connection gets the place of the one that has been open longest of those that wait for their client:
connections that say nothing never keep others out. While all are being answered, a new one waits for a moment.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Connections:
    """At most `most` at a time. Called from any thread; `patience_s` is how long a new one may wait for a place."""

    def __init__(self, most: int, patience_s: float = 1.0) -> None:
        self._most = most
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._answering: dict[socket.socket, bool] = {}

    def __len__(self) -> int:
        return len(self._answering)

    def admit(self, connection: socket.socket) -> bool:
        """Whether there is a place for `connection`, which it has from now on."""
        with self._changed:
            if len(self._answering) >= self._most:
                waiting = (open_ for open_, answering in self._answering.items() if not answering)
                _cut(next(waiting, None))
                if not self._changed.wait_for(lambda: len(self._answering) < self._most, self._patience_s):
                    return False
            self._answering[connection] = False
            return True

    def left(self, connection: socket.socket) -> None:
        """`connection` needs no place any more, if it had one."""
        with self._changed:
            if self._answering.pop(connection, None) is not None:
                self._changed.notify()

    @contextlib.contextmanager
    def answering(self, connection: socket.socket) -> Iterator[None]:
        """Meanwhile `connection` is not the one that goes."""
        self._mark(connection, True)
        try:
            yield
        finally:
            self._mark(connection, False)

    def _mark(self, connection: socket.socket, answering: bool) -> None:
        with self._changed:
            if connection in self._answering:
                self._answering[connection] = answering


def _cut(connection: socket.socket | None) -> None:
    """Wake the thread that waits for this client, with an end of the stream."""
    if connection is not None:
        with contextlib.suppress(OSError):
            # Not the method of a TLS socket: it would let the other thread go on in plaintext.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
