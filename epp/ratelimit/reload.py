# SPDX-License-Identifier: Apache-2.0
"""Changed configuration files: a good new version is used from then on, a bad one is said once and the last good kept.

The content decides, not the files' times: a ConfigMap is replaced by swapping the symlink `..data`, and its files may
keep their times. Reading and checking happen in a thread. Counters have nothing to do with it: they stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from epp.contract.errors import EppError
from epp.ratelimit.sources import Loaded, Sources

log = logging.getLogger("epp.ratelimit")

INTERVAL_S = 1.0


@dataclass(slots=True)
class ReloadCounts:
    """Since the start. `failing`: the files as they are now cannot be used."""

    good: int = 0
    bad: int = 0
    failing: bool = False


class Reloader:
    """Polls the files of `sources`. `apply` is called on the loop with what they say now.

    * digest: of the files as they are in use
    """

    def __init__(
        self, sources: Sources, apply: Callable[[Loaded], None], digest: bytes, *, interval_s: float = INTERVAL_S
    ) -> None:
        self.counts = ReloadCounts()
        self._sources = sources
        self._apply = apply
        self._interval_s = interval_s
        self._in_use = digest
        self._seen = digest
        self._unreadable = ""

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.poll()
            except Exception as error:
                # A fault of ours; the files may be better the next time.
                self.counts.failing = True
                log.error("rules kept as they are; looking at the configuration failed: %r", error, exc_info=error)

    async def poll(self) -> bool:
        """Look once; true when other rules are in use now."""
        try:
            digest = await asyncio.to_thread(self._sources.digest)
        except (EppError, OSError) as error:
            # In the middle of a swap a file may be missing for a moment.
            if str(error) != self._unreadable:
                self._unreadable = str(error)
                log.warning("rules kept as they are: %s", error)
            self.counts.failing = True
            return False
        self._unreadable = ""
        if digest == self._seen:
            self.counts.failing = digest != self._in_use
            return False
        self._seen = digest
        if digest == self._in_use:
            self.counts.failing = False
            log.info("the configuration is again the one in use")
            return False
        try:
            loaded = await asyncio.to_thread(self._sources.load)
        except (EppError, OSError) as error:
            self.counts.bad += 1
            self.counts.failing = True
            for mistake in error.log_lines if isinstance(error, EppError) else (error,):
                log.error("rules kept as they are; the changed configuration is wrong: %s", mistake)
            return False
        self._in_use = digest
        self.counts.good += 1
        self.counts.failing = False
        self._apply(loaded)
        return True
