# SPDX-License-Identifier: Apache-2.0
"""Pools from --endpoints-dir: every file lists the endpoints of one pool, and is the pool.

`<namespace>.<pool>.yaml` is a pool of that namespace, `<pool>.yaml` one of --pool-namespace; a pool whose name has dots
needs the namespace. Such a pool is called by its name in the place of a Service's: `llama`, `llama.team-a`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from epp.contract.errors import DiscoveryError
from epp.discovery.entries import Entries, parse_entries
from epp.discovery.file import read_file
from epp.observe.degraded import Tell
from epp.service.pools.choosing import Claim
from epp.service.pools.folder import File, Files, Folder
from epp.service.pools.identity import EVERY, PoolId
from epp.service.pools.place import Wanted
from epp.service.pools.pools import Pools

ENDPOINTS = "endpoints"


def read_entries(path: Path) -> str:
    """The text of a file of endpoints. Raises `DiscoveryError`."""
    try:
        return read_file(str(path)).decode()
    except UnicodeDecodeError:
        raise DiscoveryError(f"endpoints file {path} is not UTF-8; save it as UTF-8") from None


class FilePools:
    """The source. `namespace`: of files that name none; "*" is the namespace "default"."""

    def __init__(self, path: Path, namespace: str, pools: Pools, about: Callable[[PoolId], Tell]) -> None:
        self._folder = Folder(path, read_entries)
        self._namespace = "default" if namespace == EVERY else namespace
        self._pools = pools
        self._about = about
        self._taken: dict[PoolId, File] = {}
        self._work = asyncio.Event()
        self._files: Files = {}

    async def open(self) -> None:
        """Tell of the pools there are. Raises `StartError` when there is no directory."""
        self._files = await asyncio.to_thread(self._folder.open)
        await self._take()
        self._pools.listed()

    async def run(self) -> None:
        """Tell of every change, until cancelled."""
        following = asyncio.create_task(self._folder.follow(self._changed))
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                await self._take()
        finally:
            following.cancel()

    def _changed(self, files: Files) -> None:
        self._files = files
        self._work.set()

    async def _take(self) -> None:
        files = {self._pool(stem): file for stem, file in self._files.items()}
        for pool in [pool for pool in self._taken if pool not in files]:
            del self._taken[pool]
            self._pools.remove(pool)
        for pool, file in files.items():
            if self._taken.get(pool) != file and self._pools.wants(pool):
                await self._read(pool, file)

    async def _read(self, pool: PoolId, file: File) -> None:
        """A file that is no use leaves the pool as it was; a new pool is there, with no endpoint."""
        tell = self._about(pool)
        self._pools.put(Wanted(Claim(pool, pool.name)))
        try:
            if file.error:
                raise DiscoveryError(file.error)
            entries = await asyncio.to_thread(_parsed, file)
        except DiscoveryError as error:
            tell(ENDPOINTS, f"{error}; its last good state is kept")
            if pool not in self._taken:
                self._pools.endpoints(pool, ())
        else:
            tell(ENDPOINTS, "; ".join(entries.problems[:3]) or None)
            self._pools.endpoints(pool, entries.specs)
        self._taken[pool] = file

    def _pool(self, stem: str) -> PoolId:
        namespace, dot, name = stem.partition(".")
        return PoolId(namespace, name) if dot else PoolId(self._namespace, stem)


def _parsed(file: File) -> Entries:
    try:
        entries = parse_entries(file.text.encode())
    except DiscoveryError as error:
        raise DiscoveryError(f"endpoints file {file.path}: {error}") from None
    if entries.problems and not entries.specs:
        raise DiscoveryError(f"endpoints file {file.path}: no entry can be used; {entries.problems[0]}")
    return entries
