# SPDX-License-Identifier: Apache-2.0
"""Pods of a namespace, or of the cluster, shared out to the pools that select them.

A change costs what changed: a pod is looked at when its version differs, and offered to the pools that one of its
labels points to, by an index over one requirement of each pool's selector. Work is done in slices, and the loop has
its turn between them. A pool is told of a whole pass or of nothing: never of half a list.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

from epp.discovery.kubernetes.endpointtable import EndpointTable, Found, replaced
from epp.discovery.kubernetes.objects import ServingPod
from epp.discovery.kubernetes.poolspec import PoolSpec
from epp.kube.api import Api
from epp.kube.errors import ApiError, Unreachable
from epp.kube.reflector import Reflector
from epp.kube.resource import PODS

PODS_MATTER = "pods"
MALFORMED = "pods-malformed"
SLICE = 64
"""Pods looked at in one turn of the loop."""
Tell = Callable[[str, str | None], None]
Sleep = Callable[[float], Awaitable[object]]


class Following:
    """One pool's part in a feed. `found` is called with the first whole pass, and when something has changed."""

    def __init__(self, feed: PodFeed, pool: PoolSpec, found: Callable[[Found], None]) -> None:
        self.pool = pool
        self.table = EndpointTable(pool.ports, ranked=pool.ranked)
        self.complete = False
        self._feed = feed
        self._found = found

    def aim(self, pool: PoolSpec) -> None:
        """The pool's selector, ports or group have changed. What was found holds until the pods are gone through
        again."""
        self._feed.aim(self, pool)

    def close(self) -> None:
        """Find nothing any more."""
        self._feed.unfollow(self)

    def start_over(self, pool: PoolSpec) -> None:
        """Begin with an empty table for `pool`; for the feed alone."""
        self.pool, self.complete = pool, False
        self.table = EndpointTable(pool.ports, ranked=pool.ranked)

    def publish(self) -> None:
        """Say what there is; for the feed alone."""
        self._found(self.table.found())


class PodFeed:
    """Follows pods with one list and one watch. `namespace` None: of all namespaces.

    `tell` is told under `pods` why they cannot be followed, under `pods-malformed` how many objects cannot be read, and
    why the first of them: each keeps its last readable state.
    """

    def __init__(
        self,
        api: Api,
        namespace: str | None,
        *,
        tell: Tell,
        rng: random.Random,
        label_selector: str = "",
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._tell = tell
        self._reflector = Reflector(
            api, PODS, namespace, ServingPod, self._changed,
            label_selector=label_selector, told=self._told, rng=rng, sleep=sleep, malformed=self._unreadable,
        )  # fmt: skip
        self._malformed: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._latest: Mapping[str, ServingPod] | None = None
        self._pods: Mapping[str, ServingPod] = {}
        self._followings: dict[Following, list[tuple[str, str, str]]] = {}
        self._index: dict[tuple[str, str, str], list[Following]] = {}

    def follow(self, pool: PoolSpec, found: Callable[[Found], None]) -> Following:
        """Tell `found` of the endpoints of `pool` from now on, first when the pods are known."""
        following = Following(self, pool, found)
        self._enter(following)
        return following

    def aim(self, following: Following, pool: PoolSpec) -> None:
        """`following` is about `pool` from now on."""
        if following not in self._followings:
            return
        old, following.pool = following.pool, pool
        if _found_by(old) != _found_by(pool):
            self.unfollow(following)
            following.start_over(pool)
            self._enter(following)

    def unfollow(self, following: Following) -> None:
        """`following` is told nothing any more."""
        for place in self._followings.pop(following, ()):
            there = self._index[place]
            there.remove(following)
            if not there:
                del self._index[place]

    async def run(self) -> None:
        """Follow the pods until cancelled."""
        watching = asyncio.create_task(self._reflector.run())
        working = asyncio.create_task(self._work())
        try:
            await asyncio.gather(watching, working)
        finally:
            watching.cancel()
            working.cancel()
            await asyncio.gather(watching, working, return_exceptions=True)

    def _enter(self, following: Following) -> None:
        pool = following.pool
        # Any one requirement leads to the pool; the one that fewest share sends the fewest strangers its way.
        ways = [
            [(pool.namespace, requirement.key, value) for value in sorted(requirement.values)]
            for requirement in pool.selector.requirements
            if requirement.operator == "in"
        ] or [[(pool.namespace, "", "")]]
        places = min(ways, key=lambda way: sum(len(self._index.get(place, ())) for place in way))
        self._followings[following] = places
        for place in places:
            self._index.setdefault(place, []).append(following)
        self._wake.set()

    def _changed(self, store: Mapping[str, ServingPod]) -> None:
        self._latest = store
        self._wake.set()

    def _told(self, error: ApiError | None) -> None:
        if isinstance(error, Unreachable):
            return  # says nothing about pods, and is told of the connection
        self._tell(PODS_MATTER, None if error is None else str(error))
        self._report_malformed()

    def _unreadable(self, key: str, line: str | None) -> None:
        if line is None:
            self._malformed.pop(key, None)
        else:
            self._malformed[key] = line
        self._report_malformed()

    def _report_malformed(self) -> None:
        line = None
        if self._malformed:
            key = next(iter(self._malformed))
            # Without a number: each pod that comes to it would be told anew, and the log has named it.
            more = " (and others, which the log names)" if len(self._malformed) > 1 else ""
            line = f"pod {key} cannot be read: {self._malformed[key]}{more}; it is left as it was; mend or delete it"
        self._tell(MALFORMED, line)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._latest is not None:
                await self._pass(self._latest)

    async def _pass(self, pods: Mapping[str, ServingPod]) -> None:
        """Bring every table up to `pods`, then tell those that have changed or are new."""
        new = {following: following.table for following in self._followings if not following.complete}
        keys = replaced(self._pods, pods)
        changed = dict.fromkeys(new)
        if new:
            every = dict.fromkeys([*keys, *pods])
            keys = list(every)
        for at, key in enumerate(keys):
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            self._share(key, self._pods.get(key), pods.get(key), changed)
        self._pods = pods
        for following in changed:
            await asyncio.sleep(0)
            # One that was aimed elsewhere meanwhile has a table of its own, and a pass still to come.
            if following in self._followings and (following.complete or new.get(following) is following.table):
                following.complete = True
                following.publish()

    def _share(self, key: str, old: ServingPod | None, new: ServingPod | None, changed: dict[Following, None]) -> None:
        for following in self._led_to(old):
            if (new is None or not following.pool.selector.matches(new.metadata.labels or {})) and (
                following.table.drop(key)
            ):
                changed[following] = None
        if new is None:
            return
        for following in self._led_to(new):
            if following.pool.selector.matches(new.metadata.labels or {}) and following.table.put(key, new):
                changed[following] = None

    def _led_to(self, pod: ServingPod | None) -> list[Following]:
        if pod is None:
            return []
        namespace, index = pod.metadata.namespace, self._index
        led = list(index.get((namespace, "", ""), ()))
        for key, value in (pod.metadata.labels or {}).items():
            led += index.get((namespace, key, value), ())
        return led


def _found_by(pool: PoolSpec) -> tuple[object, ...]:
    """What decides which endpoints a pool has."""
    return pool.namespace, pool.selector, pool.ports, pool.ranked
