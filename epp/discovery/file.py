# SPDX-License-Identifier: Apache-2.0
"""Endpoints from a file, followed while it changes.

The file is read once every `poll_s` seconds and compared by content, so that every way of changing it is seen: edits
in place, renames, and the symlinks that a kubelet swaps. Reading happens in a thread.

* A change is taken when two readings `settle_s` apart agree, so that a file that is being written is not taken for
  one with fewer endpoints. A file that never rests is taken as it is after `_RESTLESS_POLLS` polls.
* What cannot be read or understood is looked at again at the next poll before it is logged, once; the last good
  state is kept. So is it when a new version has entries and none of them is usable.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence

from epp.contract.discovery import Publish
from epp.contract.errors import DiscoveryError
from epp.discovery.entries import Entries, parse_entries

log = logging.getLogger("epp.discovery")

MAX_FILE_BYTES = 1024 * 1024
_RESTLESS_POLLS = 5
_LINES_LOGGED = 20

Sleep = Callable[[float], Awaitable[None]]


def read_file(path: str) -> bytes:
    """The content of the regular file at `path`. Raises `DiscoveryError`."""
    try:
        # Opening a pipe must not wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DiscoveryError(f"endpoints file {path} is not a regular file")
            content = _read_all(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"endpoints file {path} cannot be read: {reason}; give a readable YAML or JSON file"
        raise DiscoveryError(text) from None
    if len(content) > MAX_FILE_BYTES:
        raise DiscoveryError(f"endpoints file {path} is over {MAX_FILE_BYTES} bytes")
    return content


def _read_all(descriptor: int) -> bytes:
    parts, size = [], 0
    while size <= MAX_FILE_BYTES and (part := os.read(descriptor, MAX_FILE_BYTES + 1 - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


class FileDiscovery:
    """The endpoints that the file at `path` lists. A `Discovery`. `watch` follows changes."""

    def __init__(
        self,
        path: str,
        *,
        watch: bool = True,
        poll_s: float = 1.0,
        settle_s: float = 0.2,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.path = path
        self._watch = watch
        self._poll_s = poll_s
        self._settle_s = settle_s
        self._sleep = sleep
        self._taken = b""
        self._count = 0
        self._doubted: bytes | None = None
        self._error: DiscoveryError | None = None
        self._logged = False
        self._restless = 0

    async def run(self, publish: Publish) -> None:
        """Publish what the file lists, then every change. Raises `DiscoveryError` when it is no use at the start."""
        content = await asyncio.to_thread(read_file, self.path)
        entries = await asyncio.to_thread(self._parse, content)
        self._take(content, entries, publish)
        if not self._watch:
            await asyncio.Event().wait()
        while True:
            await self._sleep(self._poll_s)
            await self.poll(publish)

    async def poll(self, publish: Publish) -> None:
        """Look at the file once, and once more when it has changed."""
        try:
            content = await asyncio.to_thread(read_file, self.path)
        except DiscoveryError as error:
            self._doubt(None, error)
            return
        if content == self._taken:
            if self._logged:
                log.info("endpoints file %s is again as it was when it was last used", self.path)
            self._restless = 0
            self._forget_doubt()
            return
        if content == self._doubted and self._error is not None:
            self._doubt(content, self._error)
            return
        if not await self._settled(content):
            return
        try:
            entries = await asyncio.to_thread(self._parse, content)
            if entries.problems and not entries.specs:
                raise DiscoveryError(f"endpoints file {self.path}: no entry can be used; {entries.problems[0]}")
        except DiscoveryError as error:
            self._doubt(content, error)
            return
        self._take(content, entries, publish)

    async def _settled(self, content: bytes) -> bool:
        """Whether the file, which has changed, has come to rest with `content`."""
        await self._sleep(self._settle_s)
        try:
            settled = await asyncio.to_thread(read_file, self.path) == content
        except DiscoveryError:
            settled = False
        self._restless = 0 if settled else self._restless + 1
        return settled or self._restless >= _RESTLESS_POLLS

    def _parse(self, content: bytes) -> Entries:
        try:
            return parse_entries(content)
        except DiscoveryError as error:
            raise DiscoveryError(f"endpoints file {self.path}: {error}") from None

    def _take(self, content: bytes, entries: Entries, publish: Publish) -> None:
        _log_lines(f"endpoints file {self.path}", "this entry is left out", entries.problems)
        _log_lines(f"endpoints file {self.path}", "both are used", entries.remarks)
        log.info("endpoints file %s: %d endpoints", self.path, len(entries.specs))
        self._taken, self._count = content, len(entries.specs)
        self._restless = 0
        self._forget_doubt()
        publish(entries.specs)

    def _doubt(self, content: bytes | None, error: DiscoveryError) -> None:
        """`content` (None: it cannot be read) is no use. Said when it is the same at two polls in a row."""
        if self._error is None or (content, str(error)) != (self._doubted, str(self._error)):
            self._doubted, self._error, self._logged = content, error, False
        elif not self._logged:
            self._logged = True
            log.warning("%s; its last good state, %d endpoints, is kept", error, self._count)

    def _forget_doubt(self) -> None:
        self._doubted = self._error = None
        self._logged = False


def _log_lines(source: str, consequence: str, lines: Sequence[str]) -> None:
    for line in lines[:_LINES_LOGGED]:
        log.warning("%s: %s; %s", source, line, consequence)
    if len(lines) > _LINES_LOGGED:
        log.warning("%s: %d more such lines are not shown", source, len(lines) - _LINES_LOGGED)
