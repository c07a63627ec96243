# SPDX-License-Identifier: Apache-2.0
"""How a connection is given up without losing a call (RFC 9113, 6.8).

First a shutdown notice (a GOAWAY that excludes no stream) and a ping. What the peer sent before it answers the ping is
served; then a second GOAWAY names the last stream we serve, and what comes after it was never begun for the peer.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from epp.transport.engine import EngineError
from epp.transport.timers import Timers

if TYPE_CHECKING:
    from epp.transport.connection import Connection

_PING = b"farewell"
_PATIENCE_S = 5.0
"""How long the peer has to answer the ping."""


class Farewell:
    """One connection's parting. `done`: no new stream can come any more."""

    __slots__ = ("_asked", "_connection", "_timers", "done")

    def __init__(self, connection: Connection, timers: Timers) -> None:
        self._connection = connection
        self._timers = timers
        self._asked = False
        self.done = False

    def ask(self) -> None:
        """Ask the peer to open its streams elsewhere."""
        connection = self._connection
        if self._asked or connection.over:
            return
        self._asked = True
        self._timers.start("farewell", _PATIENCE_S, self.refuse)
        with contextlib.suppress(EngineError):
            connection.engine.send_shutdown_notice()
            connection.engine.ping(_PING)
        connection.flush()

    def answered(self, ping: bytes) -> None:
        """The peer answered a ping."""
        if ping == _PING and self._asked:
            self.refuse()

    def refuse(self) -> None:
        """Send the GOAWAY that names the last stream we serve."""
        if self.done:
            return
        self.done = True
        self._timers.stop("farewell")
        connection = self._connection
        if not connection.over:
            with contextlib.suppress(EngineError):
                connection.engine.send_goaway()
            connection.flush()
