# SPDX-License-Identifier: Apache-2.0
"""Pools from a Kubernetes API server: one watch of pools, one of pods and one for each optional kind, shared out to
however many pools there are.

What is wrong with a watch is the process's matter, what is odd about one pool that pool's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Clock
from epp.contract.models import Models
from epp.discovery.kubernetes.modelfeed import ModelFeed
from epp.discovery.kubernetes.podfeed import Following, PodFeed
from epp.discovery.kubernetes.poolspec import PoolSpec, pool_resource
from epp.discovery.kubernetes.poolswatch import WHAT, PoolsWatch
from epp.discovery.kubernetes.source import Announcer, keep_running
from epp.kube.api import Api
from epp.observe.degraded import Tell
from epp.service.pools.choosing import Claim
from epp.service.pools.configs import ANNOTATION
from epp.service.pools.identity import EVERY, PoolId
from epp.service.pools.place import Wanted
from epp.service.pools.pools import Pools


@dataclass(frozen=True, slots=True)
class _Followed:
    announcer: Announcer
    following: Following
    unfollow_models: Callable[[], None]


class _Teller:
    """The `Listener` of one pool."""

    def __init__(self, pools: Pools, pool: PoolId) -> None:
        self._pools = pools
        self._pool = pool

    def pool(self, pool: PoolSpec) -> None:
        """Told by the watch of pools already."""

    def endpoints(self, endpoints: Sequence[EndpointSpec]) -> None:
        self._pools.endpoints(self._pool, endpoints)

    def gone(self) -> None:
        """Told by the watch of pools."""

    def models(self, models: Models) -> None:
        self._pools.models(self._pool, models)


class KubernetesPools:
    """The source; a `PoolsListener`. `namespace` "*": of the cluster. `group` "": whichever has the pools.

    `tell` is told what is wrong with a watch, `about` gives the `Tell` of one pool. Raises `StartError` for a group
    that has no pools.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        group: str,
        pools: Pools,
        *,
        tell: Tell,
        about: Callable[[PoolId], Tell],
        rng: random.Random,
        clock: Clock,
    ) -> None:
        if group:
            pool_resource(group)
        where = None if namespace == EVERY else namespace
        self._pools = pools
        self._tell = tell
        self._about = about
        self._pods = PodFeed(api, where, tell=tell, rng=rng)
        self._models = ModelFeed(api, where, tell=tell, rng=rng)
        self._watch = PoolsWatch(api, where, self, group=group or None, tell=self._told, rng=rng, clock=clock)
        self._followed: dict[PoolId, _Followed] = {}
        self._listing = False

    async def run(self) -> None:
        """Follow everything until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for run in (self._watch.run, self._pods.run, self._models.run):
                tasks.create_task(keep_running(run, asyncio.sleep))

    def added(self, pool: PoolSpec) -> None:
        """A pool is there; for the watch."""
        self._soon_listed()
        wanted = wanted_of(pool)
        if not self._pools.wants(wanted.id):
            return
        self._pools.put(wanted)
        teller = _Teller(self._pools, wanted.id)
        announcer = Announcer(pool, teller, self._about(wanted.id))
        self._followed[wanted.id] = _Followed(
            announcer,
            self._pods.follow(pool, announcer.found),
            self._models.follow(pool.namespace, pool.group, pool.name, teller.models),
        )

    def changed(self, pool: PoolSpec) -> None:
        """A pool has changed; for the watch."""
        wanted = wanted_of(pool)
        followed = self._followed.get(wanted.id)
        if followed is None:
            return
        before, followed.announcer.pool = followed.announcer.pool, pool
        self._pools.put(wanted)
        followed.following.aim(pool)
        if before.group != pool.group:
            followed.unfollow_models()
            models = _Teller(self._pools, wanted.id).models
            unfollow = self._models.follow(pool.namespace, pool.group, pool.name, models)
            self._followed[wanted.id] = _Followed(followed.announcer, followed.following, unfollow)

    def removed(self, pool: PoolSpec) -> None:
        """A pool is gone; for the watch."""
        gone = PoolId(pool.namespace, pool.name)
        followed = self._followed.pop(gone, None)
        if followed is not None:
            followed.following.close()
            followed.unfollow_models()
            self._pools.remove(gone)

    def _told(self, what: str, line: str | None) -> None:
        self._tell(what, line)
        if what == WHAT and line is None:
            self._soon_listed()

    def _soon_listed(self) -> None:
        """The watch has answered; by the next turn of the loop it has told of all pools that it saw."""
        if not self._listing:
            self._listing = True
            asyncio.get_running_loop().call_soon(self._pools.listed)


def wanted_of(pool: PoolSpec) -> Wanted:
    """How `pool` wants to be called and configured."""
    claim = Claim(PoolId(pool.namespace, pool.name), pool.picker_name, pool.picker_port or 0)
    return Wanted(claim, pool.annotations.get(ANNOTATION, ""))
