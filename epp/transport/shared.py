# SPDX-License-Identifier: Apache-2.0
"""What the connections of one listener have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from epp.transport.call import Clock, Limits, Service

if TYPE_CHECKING:
    from epp.transport.connection import Connection


class Shared:
    """`services` is by path as it is on the wire, with the path as text."""

    __slots__ = ("_complained_s", "clock", "connections", "draining", "limits", "services")

    def __init__(self, services: Mapping[bytes, tuple[str, Service]], limits: Limits, clock: Clock) -> None:
        self.services = services
        self.limits = limits
        self.clock = clock
        self.connections: set[Connection] = set()
        self.draining = False
        self._complained_s: float | None = None

    def complain(self) -> bool:
        """Whether to log a refused connection: at most one a second."""
        now_s = self.clock()
        if self._complained_s is not None and now_s - self._complained_s < 1.0:
            return False
        self._complained_s = now_s
        return True
