# SPDX-License-Identifier: Apache-2.0
"""What the connections of one listener have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from epp.transport.call import Clock, Limits, Service
from epp.transport.guard import Rate

if TYPE_CHECKING:
    from epp.transport.connection import Connection

log = logging.getLogger("epp.transport")

_LINES_PER_S = 10
"""What peers do fills no log: of one text, more lines than this are left out."""


class Shared:
    """State of a listener.

    * services: by path as it is on the wire, with the path as text
    * handshakes: accepted, TLS not done; connections: the others
    * newcomers: of both, those that have asked nothing yet, oldest first, with what ends each
    * incomplete_bytes: messages that have not arrived whole, over all connections
    """

    __slots__ = (
        "_complained", "clock", "connections", "draining", "handshakes", "incomplete_bytes", "limits", "newcomers",
        "services",
    )  # fmt: skip

    def __init__(self, services: Mapping[bytes, tuple[str, Service]], limits: Limits, clock: Clock) -> None:
        self.services = services
        self.limits = limits
        self.clock = clock
        self.connections: set[Connection] = set()
        self.handshakes: set[Connection] = set()
        self.newcomers: dict[Connection, Callable[[], object]] = {}
        self.draining = False
        self.incomplete_bytes = 0
        self._complained: dict[str, Rate] = {}

    @property
    def crowded(self) -> bool:
        """Whether as many connections are there as allowed."""
        return len(self.connections) + len(self.handshakes) >= self.limits.connections

    def complain(
        self, text: str, *values: object, level: int = logging.WARNING, lines_per_s: int = _LINES_PER_S
    ) -> None:
        """Log something a peer did, unless `text` was logged too often this second."""
        rate = self._complained.get(text)
        if rate is None:
            rate = self._complained[text] = Rate(lines_per_s, self.clock)
        if rate.allowed():
            log.log(level, text, *values)

    def hold(self, more_bytes: int) -> bool:
        """Count bytes of incomplete messages; false when there are too many."""
        self.incomplete_bytes += more_bytes
        return self.incomplete_bytes <= self.limits.all_incomplete_bytes

    def make_room(self) -> bool:
        """End the oldest connection that has asked nothing; false when there is none."""
        for connection, end in self.newcomers.items():
            del self.newcomers[connection]
            self.connections.discard(connection)
            self.handshakes.discard(connection)
            self.complain(
                "%d connections, as many as allowed; the oldest that asked nothing is closed", self.limits.connections
            )
            end()
            return True
        return False
