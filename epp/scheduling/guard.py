# SPDX-License-Identifier: Apache-2.0
"""Keeps a plugin's faults from costing requests.

An exception makes the plugin abstain for this request and is counted. After `BENCH_AFTER` failures in a row it is
benched: not called for `BENCH_S` seconds, then tried again. The first failure of a row and each benching are logged.
A `RequestError` is no fault: it is how a plugin refuses a request, and passes through.
"""

from __future__ import annotations

import logging
from typing import Generic, TypeVar

from epp.contract.endpoints import Clock

log = logging.getLogger("epp.scheduling")

BENCH_AFTER = 5
BENCH_S = 30.0

T = TypeVar("T")


class Guarded(Generic[T]):
    """A plugin instance with its name and its record of failures.

    `errors` counts all failures, `failing` those since it last answered: while that is 0, and it nearly always is,
    neither `benched` nor `succeeded` need be asked.
    """

    __slots__ = ("_benched_until_s", "_clock", "errors", "failing", "name", "plugin")

    def __init__(self, name: str, plugin: T, clock: Clock) -> None:
        self.name = name
        self.plugin = plugin
        self.errors = 0
        self._clock = clock
        self.failing = 0
        self._benched_until_s = 0.0

    @property
    def benched(self) -> bool:
        """Whether it is not to be called now."""
        return self.failing >= BENCH_AFTER and self._clock() < self._benched_until_s

    def succeeded(self) -> None:
        """It answered; the row of failures ends."""
        if self.failing:
            if self.failing >= BENCH_AFTER:
                log.warning("plugin '%s' answers again and takes part from now on", self.name)
            self.failing = 0

    def failed(self, error: Exception) -> str:
        """It raised or broke its contract; returns the one-line reason."""
        self.errors += 1
        self.failing += 1
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        if self.failing == 1:
            log.error("plugin '%s' failed and is left out of this decision: %s", self.name, reason, exc_info=error)
        if self.failing >= BENCH_AFTER:
            self._benched_until_s = self._clock() + BENCH_S
            log.error(
                "plugin '%s' failed %d times in a row and is benched for %.0f s; mend it or take it out of the "
                "configuration: %s",
                self.name,
                self.failing,
                BENCH_S,
                reason,
            )
        return reason
