# SPDX-License-Identifier: Apache-2.0
"""Keeps what we know of a kind in step with the API server: list, then watch, for ever.

Invariants: the store only ever moves forward, to a newer state of the server; while the server is away, or must be
listed anew, it stays as it is. `changed` is called with a copy, at most every 20 ms and only if a field that we read
has changed: a status heartbeat, which moves nothing but the resource version, costs a decode and a comparison. The
first list is always told, also an empty one.

An object that cannot be read keeps its last readable state, if it had one; it is logged once, and kept in `malformed`
until it can be read or is gone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Generic, cast

import msgspec

from epp.kube.answers import Request
from epp.kube.api import Api
from epp.kube.backoff import Backoff
from epp.kube.errors import ApiError, Gone, TooMany, Unreachable
from epp.kube.resource import Resource
from epp.kube.watch import Event, N, key_of

log = logging.getLogger("epp.kube")

TOGETHER_S = 0.02
"""Changes within this time are told together."""
SHORTEST_WATCH_S, LONGEST_WATCH_S = 300.0, 600.0
"""A watch is ended by the server after a random time in between, so that not all clients come back at once."""
_SETTLED_S = 30.0
"""A watch that lasted so long was a good one, even if nothing happened."""
_MOST_CUTS = 3
"""So many watches in a row that broke off before that are no accident."""


class Reflector(Generic[N]):
    """One kind, in one namespace or in all (None), of the objects that the selectors pick.

    * changed: gets the whole store by "namespace/name", on the loop; the mapping never changes afterwards
    * told: gets every failure, and None once the watch stands (again). A watch that breaks off after it worked is no
      failure until the attempt to resume it fails. `Unreachable` says nothing about the kind: the same is told of the
      whole connection by `Api`. Watches that are made and break off again and again are an `ApiError` of the kind.
    * malformed: `(key, line)` for an object that cannot be read, `(key, None)` once it can be again or is gone
    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        namespace: str | None,
        decode: type[N],
        changed: Callable[[Mapping[str, N]], None],
        *,
        label_selector: str = "",
        field_selector: str = "",
        told: Callable[[ApiError | None], None],
        rng: random.Random,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        malformed: Callable[[str, str | None], None] | None = None,
    ) -> None:
        self._api = api
        self._resource = resource
        self._namespace = namespace
        self._decode = decode
        self._changed = changed
        self._selectors = {"label_selector": label_selector, "field_selector": field_selector}
        self._told = told
        self._rng = rng
        self._sleep = sleep
        self._clock = clock
        self._tell_malformed = malformed
        self._backoff = Backoff(rng)
        self._store: dict[str, N] = {}
        self._malformed: dict[str, str] = {}
        self._version = ""
        self._listed = False
        self._well = False
        self._accepted_s: float | None = None
        self._moved = False
        self._cuts = 0
        self._dirty = asyncio.Event()

    @property
    def malformed(self) -> Mapping[str, str]:
        """The objects that cannot be read now: why, by key."""
        return MappingProxyType(self._malformed)

    async def run(self) -> None:
        """Runs until it is cancelled."""
        telling = asyncio.create_task(self._tell_changes())
        try:
            while True:
                wait_s = await self._round()
                if wait_s:
                    await self._sleep(wait_s)
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _round(self) -> float:
        """A list if there is nothing to resume, and one watch. Returns how long to wait before the next."""
        self._accepted_s, self._moved = None, False
        failure: ApiError | None = None
        retry_after_s = 0.0
        try:
            if not self._version:
                await self._list()
            await self._watch()
        except Gone:
            self._version = ""
        except ApiError as error:
            failure, retry_after_s = error, error.retry_after_s
            if not _resumable(error):
                self._version = ""
        except Exception as error:
            log.exception("%s: a fault of ours", self._resource)
            failure = ApiError(f"{self._resource}: {type(error).__name__}; the log has more", resource=self._resource)
            self._version = ""
        lasted_s = self._clock() - self._accepted_s if self._accepted_s is not None else 0.0
        settled = self._moved or lasted_s >= _SETTLED_S
        if settled:
            self._backoff.reset()
        cut = isinstance(failure, Unreachable) and self._accepted_s is not None and not settled
        self._cuts = self._cuts + 1 if cut else 0
        if self._cuts >= _MOST_CUTS:
            failure = self._cut()
        if failure is not None and not (settled and isinstance(failure, Unreachable)):
            self._well = False
            self._told(failure)
        if failure is None and settled:
            return 0.0
        return self._backoff.next_s(retry_after_s)

    async def _list(self) -> None:
        unreadable: dict[str, str] = {}
        objects, version = await self._api.list(
            self._resource, self._namespace, self._decode, malformed=unreadable.__setitem__, **self._selectors
        )
        fresh = {key_of(item.metadata): item for item in objects}
        fresh |= {key: self._store[key] for key in unreadable if key in self._store}
        for key in self._malformed.keys() - unreadable.keys():
            self._readable(key)
        for key, line in unreadable.items():
            self._unreadable(key, line)
        before, self._store, self._version = self._store, fresh, version
        if (
            not self._listed
            or before.keys() != fresh.keys()
            or not all(_same(before[key], fresh[key]) for key in fresh)
        ):
            self._dirty.set()
        self._listed = True

    async def _watch(self) -> None:
        watch = self._api.watch(
            self._resource,
            self._namespace,
            self._decode,
            resource_version=self._version,
            timeout_s=self._rng.uniform(SHORTEST_WATCH_S, LONGEST_WATCH_S),
            malformed=self._unreadable,
            **self._selectors,
        )
        async with aclosing(watch) as events:
            async for event in events:
                if self._accepted_s is None:
                    # The first event says only that there is a watch.
                    self._accepted_s = self._clock()
                    if self._cuts < _MOST_CUTS:
                        self._is_well()
                    continue
                self._moved = True
                self._is_well()
                self._apply(event)

    def _is_well(self) -> None:
        if not self._well:
            self._well = True
            self._told(None)

    def _cut(self) -> ApiError:
        request = Request("watch", self._resource, self._namespace)
        return ApiError(
            f"{request}: the connection is made, and breaks off soon after, again and again; check what stands between "
            "us and the API server, and for how long it lets a connection be silent",
            verb=request.verb,
            resource=self._resource,
        )

    def _apply(self, event: Event[N]) -> None:
        self._version = event.resource_version or self._version
        if event.type == "BOOKMARK":
            return
        key = event.key
        if key in self._malformed:
            self._readable(key)
        before = self._store.get(key)
        if event.type == "DELETED":
            if before is not None:
                del self._store[key]
                self._dirty.set()
            return
        if event.object is not None:
            self._store[key] = event.object
            if before is None or not _same(before, event.object):
                self._dirty.set()

    async def _tell_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                self._changed(MappingProxyType(self._store.copy()))
            except Exception:
                log.exception("%s: what follows from a change failed", self._resource)
            await self._sleep(TOGETHER_S)

    def _unreadable(self, key: str, line: str) -> None:
        if self._malformed.get(key) == line:
            return
        self._malformed[key] = line
        log.warning("%s %s cannot be read and is left as it was: %s", self._resource, key, line)
        if self._tell_malformed is not None:
            self._tell_malformed(key, line)

    def _readable(self, key: str) -> None:
        del self._malformed[key]
        if self._tell_malformed is not None:
            self._tell_malformed(key, None)


def _resumable(error: ApiError) -> bool:
    """Whether the watch may go on where it was. After anything else, such as a watch that is forbidden, a list keeps us
    up to date, if slowly."""
    return isinstance(error, (Unreachable, TooMany)) or error.status >= 500


def _same(before: Any, after: Any) -> bool:
    """Whether two states of an object differ in nothing but the resource version."""
    if before.metadata.resource_version == after.metadata.resource_version:
        return cast(bool, before == after)
    metadata = msgspec.structs.replace(before.metadata, resource_version=after.metadata.resource_version)
    return cast(bool, msgspec.structs.replace(before, metadata=metadata) == after)
