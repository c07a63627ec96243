# SPDX-License-Identifier: Apache-2.0
"""Many pools in one process: one watch of pools, one of pods, one of each optional kind, whatever the number of pools.

Each pool has a listener of its own. A fault in one of them is logged and costs the others nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from epp.contract.endpoints import Clock
from epp.discovery.kubernetes.endpointtable import Found
from epp.discovery.kubernetes.modelfeed import ModelFeed
from epp.discovery.kubernetes.podfeed import Following, PodFeed, Sleep, Tell
from epp.discovery.kubernetes.poolspec import PoolSpec
from epp.discovery.kubernetes.poolswatch import PoolsWatch
from epp.discovery.kubernetes.source import Announcer, GuardedListener, Listener, keep_running
from epp.kube.api import Api

log = logging.getLogger("epp.discovery")


@dataclass(slots=True)
class _Member:
    listener: Listener
    announcer: Announcer
    following: Following
    unfollow_models: Callable[[], None]


class KubernetesFleet:
    """Follows all pools of `namespace` (None: of the cluster), or those of `names`, and one listener for each.

    * opened: called for a pool that is there; returns who is told of it, and by whom it is told what is odd about it
      (`endpoints`), or None to leave the pool alone. It may raise: the pool is then left alone, and the fault logged
    * listener.gone: the last call for a pool; should it come again, `opened` is called again
    * group None: see `poolswatch`

    Raises `StartError` for a group that has no pools.
    """

    def __init__(
        self,
        api: Api,
        namespace: str | None,
        opened: Callable[[PoolSpec], tuple[Listener, Tell] | None],
        *,
        names: frozenset[str] | None = None,
        group: str | None = None,
        tell: Tell,
        rng: random.Random,
        sleep: Sleep = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._opened = opened
        self._names = names
        self._sleep = sleep
        self._members: dict[str, _Member] = {}
        self._pools = PoolsWatch(api, namespace, self, group=group, tell=tell, rng=rng, sleep=sleep, clock=clock)
        self._pods = PodFeed(api, namespace, tell=tell, rng=rng, sleep=sleep)
        self._models = ModelFeed(api, namespace, tell=tell, rng=rng, sleep=sleep)

    async def run(self) -> None:
        """Follow the pools until cancelled."""
        runs = (self._pools.run, self._pods.run, self._models.run)
        tasks = [asyncio.create_task(keep_running(run, self._sleep)) for run in runs]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def added(self, pool: PoolSpec) -> None:
        """A pool is there; for the watch of pools."""
        if self._names is not None and pool.name not in self._names:
            return
        try:
            opened = self._opened(pool)
        except Exception:
            log.exception("%s is left alone: it cannot be served", pool)
            return
        if opened is None:
            return
        listener = GuardedListener(pool.key, opened[0])
        announcer = Announcer(pool, listener, opened[1])
        listener.pool(pool)
        following = self._pods.follow(pool, announcer.found)
        unfollow = self._models.follow(pool.namespace, pool.group, pool.name, listener.models)
        self._members[pool.key] = _Member(listener, announcer, following, unfollow)

    def changed(self, pool: PoolSpec) -> None:
        """A pool has changed; for the watch of pools."""
        member = self._members.get(pool.key)
        if member is None:
            self.added(pool)
            return
        before, member.announcer.pool = member.announcer.pool, pool
        member.listener.pool(pool)
        member.following.aim(pool)
        if before.group != pool.group:
            member.unfollow_models()
            member.unfollow_models = self._models.follow(pool.namespace, pool.group, pool.name, member.listener.models)

    def removed(self, pool: PoolSpec) -> None:
        """A pool is gone; for the watch of pools."""
        member = self._members.pop(pool.key, None)
        if member is None:
            return
        member.following.close()
        member.unfollow_models()
        member.announcer.found(Found((), 0, 0), of_now=False)
        member.listener.gone()
