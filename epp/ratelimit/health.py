# SPDX-License-Identifier: Apache-2.0
"""What gRPC health says of the process: ready when there are rules and it is not draining.

The storage is not asked: calls are answered without it as configured, and a restart would not bring it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from epp.ratelimit.service import NAME
from epp.transport.call import Service
from epp.transport.health import NOT_SERVING, SERVING, HealthService

LIVENESS = "liveness"
READINESS = "readiness"
_NAMES = ("", NAME, READINESS, LIVENESS)


class Health:
    """`loaded` says whether there are rules."""

    def __init__(self, loaded: Callable[[], bool]) -> None:
        self._loaded = loaded
        self._draining = False
        self._service = HealthService(self)

    def drain(self) -> None:
        """From now on we are going away."""
        self._draining = True
        self._service.changed()

    def missing(self) -> str | None:
        """Why we are not ready."""
        if self._draining:
            return "stopping"
        return None if self._loaded() else "there are no rules yet"

    def status(self, name: str) -> int | None:
        """The status of `name`, None when nobody knows it."""
        if name not in _NAMES:
            return None
        return SERVING if name == LIVENESS or self.missing() is None else NOT_SERVING

    def names(self) -> Iterator[str]:
        """Every name there is."""
        return iter(_NAMES)

    def known(self) -> str:
        """The names for a person."""
        return ", ".join(filter(None, _NAMES))

    def services(self) -> Mapping[str, Service]:
        """What to register with a transport."""
        return self._service.services()
