# SPDX-License-Identifier: Apache-2.0
"""Watch a configuration file and hand on every good new version; a bad one is logged once and the last good kept.

The content's hash decides, not the file's times: a ConfigMap is replaced by swapping the symlink `..data`, and its
files may keep their times. Reading and checking happen in a thread, so the loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from epp.config.load import read_text
from epp.contract.errors import EppError

INTERVAL_S = 1.0

T = TypeVar("T")


class ConfigWatcher(Generic[T]):
    """Polls one file.

    * load: `load(text, source)` checks a new text; raises EppError; called in a thread
    * apply: called on the loop with every good new configuration; an EppError from it counts as a bad one
    * text: what is in use now; None when nothing of the file is, and then its first good version is handed on
    """

    def __init__(
        self,
        path: Path | str,
        load: Callable[[str, str], T],
        apply: Callable[[T], object],
        log: logging.Logger,
        *,
        text: str | None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._path = Path(path)
        self._load = load
        self._apply = apply
        self._log = log
        self._interval_s = interval_s
        self._in_use = None if text is None else _digest(text)
        self._seen = self._in_use
        self._unreadable: str | None = None

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.poll()

    async def poll(self) -> bool:
        """Look once. True when a new configuration was handed on."""
        try:
            text = await asyncio.to_thread(read_text, self._path)
        except EppError as error:
            # In the middle of a swap the file may be missing for a moment; say it once.
            if str(error) != self._unreadable:
                self._log.warning("configuration kept as it is: %s", error)
            self._unreadable = str(error)
            return False
        self._unreadable = None
        digest = _digest(text)
        if digest == self._seen:
            return False
        self._seen = digest
        if digest == self._in_use:
            self._log.info("configuration %s is again the one in use", self._path)
            return False
        try:
            configuration = await asyncio.to_thread(self._load, text, str(self._path))
            self._apply(configuration)
        except EppError as error:
            self._log.error("configuration kept as it is; the changed one is wrong: %s", error)
            return False
        self._in_use = digest
        self._log.info("configuration %s changed and is in use", self._path)
        return True


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
