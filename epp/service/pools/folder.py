# SPDX-License-Identifier: Apache-2.0
"""The YAML and JSON files of one directory by their stems, followed while they change.

The directory is looked at once every `poll_s` seconds; a file is read again when its inode, size or time changed, and
so is every file when a kubelet swaps the symlink `..data` of a mounted ConfigMap. A change is taken when two readings
`settle_s` apart agree, so that the middle of a swap or of a copy is not taken for fewer files; a directory that never
rests is taken as it is after `_RESTLESS_POLLS` readings. What cannot be read is told as an error in the place of its
text. Reading happens in a thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from epp.contract.errors import EppError, StartError

log = logging.getLogger("epp.service")

SUFFIXES = (".yaml", ".yml", ".json")
"""Of two files with one stem, the one whose suffix stands first counts."""
POLL_S = 1.0
SETTLE_S = 0.2
_RESTLESS_POLLS = 5

_Stamp = tuple[int, int, int, int]
Sleep = Callable[[float], Awaitable[None]]


class File(NamedTuple):
    """One file: its text, or why it cannot be read."""

    path: Path
    text: str = ""
    error: str = ""


Files = Mapping[str, File]
"""By stem: the name without its suffix."""


class Folder:
    """The files of the directory at `path`, whose text `read` gives or raises `EppError`."""

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], str],
        *,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.path = path
        self._read = read
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._sleep = sleep
        self._stamps: dict[Path, tuple[_Stamp, File]] = {}
        self._taken: Files = {}
        self._missing = False

    def open(self) -> Files:
        """The files there are now. Raises `StartError` when there is no such directory."""
        try:
            self._taken = self._look()
        except OSError as error:
            raise StartError(
                f"directory {self.path} cannot be read: {error.strerror or error}; name a directory that exists"
            ) from None
        return self._taken

    async def follow(self, changed: Callable[[Files], None]) -> None:
        """Tell every change, until cancelled."""
        while True:
            await self._sleep(self._poll_s)
            await self.poll(changed)

    async def poll(self, changed: Callable[[Files], None]) -> None:
        """Look once, and once more when something has changed."""
        try:
            files = await asyncio.to_thread(self._look)
            for _ in range(_RESTLESS_POLLS):
                if files == self._taken:
                    break
                await self._sleep(self._settle_s)
                before, files = files, await asyncio.to_thread(self._look)
                if files == before:
                    break
        except OSError as error:
            if not self._missing:
                log.warning("directory %s: %s; what was read of it is kept", self.path, error.strerror or error)
            self._missing = True
            return
        self._missing = False
        if files != self._taken:
            self._taken = files
            changed(files)

    def _look(self) -> Files:
        """Raises OSError for the directory itself."""
        found: dict[str, File] = {}
        stamps: dict[Path, tuple[_Stamp, File]] = {}
        paths = [path for path in self.path.iterdir() if path.suffix in SUFFIXES and path.name[0] != "."]
        for path in sorted(paths, key=lambda path: SUFFIXES.index(path.suffix)):
            file = self._file(path, stamps)
            if file is not None:
                found.setdefault(path.stem, file)
        self._stamps = stamps
        return found

    def _file(self, path: Path, stamps: dict[Path, tuple[_Stamp, File]]) -> File | None:
        try:
            stat = os.stat(path)
        except FileNotFoundError:  # removed meanwhile, or a link into the middle of a swap
            return None
        except OSError as error:
            return File(path, error=f"{path} cannot be read: {error.strerror or error}")
        stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
        known = self._stamps.get(path)
        if known is not None and known[0] == stamp:
            file = known[1]
        else:
            try:
                file = File(path, self._read(path))
            except EppError as error:
                file = File(path, error=str(error))
        stamps[path] = (stamp, file)
        return file
