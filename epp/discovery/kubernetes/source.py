# SPDX-License-Identifier: Apache-2.0
"""One pool from the API server: its object, its pods, and what objects say about models, followed until cancelled.

Nothing that the API server does ends `run`: what is known stays, what is wrong is told, and everything is tried again.
`tell` is told, each under its own matter, what `poolswatch` (`inferencepools`), `podfeed` (`pods`, `pods-malformed`)
and `modelfeed` find wrong, and under `endpoints` that a pool selects no pod, or none that is ready. An API server that
does not answer is no matter of theirs: `Api` tells of it, once for all.

When the selector changes, the pods of the old one are followed until those of the new one are known.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Clock
from epp.contract.models import Models
from epp.discovery.kubernetes.endpointtable import Found
from epp.discovery.kubernetes.modelfeed import ModelFeed
from epp.discovery.kubernetes.podfeed import MALFORMED, PODS_MATTER, Following, PodFeed, Sleep, Tell
from epp.discovery.kubernetes.poolspec import PoolSpec
from epp.discovery.kubernetes.poolswatch import PoolsWatch
from epp.kube.api import Api

log = logging.getLogger("epp.discovery")

WHAT = "endpoints"
RESTART_S = 5.0
"""After a fault of ours, how long until what failed is started again."""


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """The pool to follow, by name. `group` None: whichever has it, see `poolswatch`."""

    namespace: str
    name: str
    group: str | None = None


class Listener(Protocol):
    """Who is told of one pool. The first call is `pool`; the first `endpoints` may be empty and means that the pods
    are known."""

    def pool(self, pool: PoolSpec) -> None:
        """The pool is there, or has changed."""

    def endpoints(self, endpoints: Sequence[EndpointSpec]) -> None:
        """These are all endpoints; called when they differ from the last ones, and once after each `gone`."""

    def gone(self) -> None:
        """The pool is not there any more. `endpoints(())` was called right before."""

    def models(self, models: Models) -> None:
        """What objects say about models; `Models()` until the first call."""


class GuardedListener:
    """A listener whose faults stay its own."""

    def __init__(self, key: str, listener: Listener) -> None:
        self._key = key
        self._listener = listener

    def pool(self, pool: PoolSpec) -> None:
        self._try(lambda: self._listener.pool(pool))

    def endpoints(self, endpoints: Sequence[EndpointSpec]) -> None:
        self._try(lambda: self._listener.endpoints(endpoints))

    def gone(self) -> None:
        self._try(self._listener.gone)

    def models(self, models: Models) -> None:
        self._try(lambda: self._listener.models(models))

    def _try(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:
            log.exception("pool %s: what follows from a change failed", self._key)


class Announcer:
    """Tells a listener of one pool's endpoints, when they have changed, and what is odd about them."""

    def __init__(self, pool: PoolSpec, listener: Listener, tell: Tell) -> None:
        self.pool = pool
        self._listener = listener
        self._tell = tell
        self._last: Sequence[EndpointSpec] | None = None

    def found(self, found: Found, *, of_now: bool = True) -> None:
        """The pool's pods come to this; not `of_now`: those of its former selector."""
        if of_now:
            self._tell(WHAT, oddity(self.pool, found))
        if found.endpoints is not self._last:
            self._last = found.endpoints
            self._listener.endpoints(found.endpoints)


def oddity(pool: PoolSpec, found: Found) -> str | None:
    """Why a pool has no endpoint that may be chosen, in one line; None when it has one."""
    if any(spec.ready for spec in found.endpoints):
        return None
    selector = f"{pool}: selector {pool.selector}" if pool.selector.requirements else f"{pool}: an empty selector"
    if not found.matched:
        return f"{selector} matches no pod in namespace {pool.namespace}"
    if not found.ready:
        return f"{selector} matches {found.matched} pods, none of them is Ready"
    ports = ", ".join(map(str, pool.ports))
    return f"{selector}: {found.ready} of {found.matched} pods are Ready, none has one of the ports {ports} active"


class KubernetesSource:
    """Follows `target` and tells `listener`. A `PoolSpec` as target (`--endpoint-selector`) needs no kind but pods.

    Times are in seconds. Raises `StartError` for a group that has no pools.
    """

    def __init__(
        self,
        api: Api,
        target: PoolTarget | PoolSpec,
        listener: Listener,
        *,
        tell: Tell,
        rng: random.Random,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._api = api
        self._target = target
        key = target.key if isinstance(target, PoolSpec) else f"{target.namespace}/{target.name}"
        self._listener = GuardedListener(key, listener)
        self._tell = tell
        self._rng = rng
        self._sleep = sleep
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._newest: PodFeed | None = None
        self._following: Following | None = None
        self._announcer: Announcer | None = None
        self._unfollow_models: Callable[[], None] | None = None
        self._pools: PoolsWatch | None = None
        self._models: ModelFeed | None = None
        if isinstance(target, PoolTarget):
            self._pools = PoolsWatch(
                api, target.namespace, self, name=target.name, group=target.group,
                tell=tell, rng=rng, sleep=sleep, clock=clock,
            )  # fmt: skip
            self._models = ModelFeed(api, target.namespace, tell=tell, rng=rng, sleep=sleep)

    async def run(self) -> None:
        """Follow the pool until cancelled."""
        try:
            if isinstance(self._target, PoolSpec):
                self.added(self._target)
            if self._pools is not None and self._models is not None:
                self._start("pools", self._pools.run)
                self._start("models", self._models.run)
            await asyncio.Event().wait()
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def added(self, pool: PoolSpec) -> None:
        """The pool is there; for the watch of pools."""
        self._listener.pool(pool)
        self._announcer = Announcer(pool, self._listener, self._tell)
        self._select(pool)
        self._take_models(pool)

    def changed(self, pool: PoolSpec) -> None:
        """The pool has changed; for the watch of pools."""
        announcer, following = self._announcer, self._following
        if announcer is None or following is None:
            return
        before, announcer.pool = announcer.pool, pool
        self._listener.pool(pool)
        if (before.selector, before.namespace) != (pool.selector, pool.namespace):
            self._select(pool)
        else:
            following.aim(pool)
        if before.group != pool.group:
            self._take_models(pool)

    def removed(self, pool: PoolSpec) -> None:
        """The pool is gone; for the watch of pools."""
        self._following = self._announcer = self._newest = None
        self._end_feeds()
        if self._unfollow_models is not None:
            self._unfollow_models()
            self._unfollow_models = None
        self._listener.endpoints(())
        self._listener.gone()
        for what in (WHAT, PODS_MATTER, MALFORMED):
            self._tell(what, None)

    def _select(self, pool: PoolSpec) -> None:
        """Follow the pods of `pool`; the feeds before end when the new one has been gone through."""
        feed = PodFeed(
            self._api, pool.namespace, tell=lambda what, line: self._told(feed, what, line),
            rng=self._rng, label_selector=str(pool.selector), sleep=self._sleep,
        )  # fmt: skip
        self._start(feed, feed.run)
        self._newest = feed
        self._following = feed.follow(pool, lambda found: self._found(feed, found))

    def _found(self, feed: PodFeed, found: Found) -> None:
        if self._announcer is None:
            return
        newest = feed is self._newest
        if newest:
            self._end_feeds(but=feed)
        self._announcer.found(found, of_now=newest)

    def _told(self, feed: PodFeed, what: str, line: str | None) -> None:
        if feed is self._newest:
            self._tell(what, line)

    def _end_feeds(self, but: PodFeed | None = None) -> None:
        for key in [key for key in self._tasks if isinstance(key, PodFeed) and key is not but]:
            self._tasks.pop(key).cancel()

    def _take_models(self, pool: PoolSpec) -> None:
        if self._unfollow_models is not None:
            self._unfollow_models()
        if self._models is not None:
            self._unfollow_models = self._models.follow(pool.namespace, pool.group, pool.name, self._listener.models)

    def _start(self, key: object, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks[key] = asyncio.create_task(keep_running(run, self._sleep))


async def keep_running(run: Callable[[], Awaitable[None]], sleep: Sleep) -> None:
    """Runs until cancelled; a fault of ours is logged, and it is started again."""
    while True:
        try:
            await run()
        except Exception:
            log.exception("a fault of ours in discovery; it goes on in %.0f s", RESTART_S)
        await sleep(RESTART_S)
