# SPDX-License-Identifier: Apache-2.0
"""Pools from a Kubernetes API server: what its objects say of pools, handed on to `Pools`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Clock
from epp.contract.models import Models
from epp.discovery.kubernetes.fleet import KubernetesFleet
from epp.discovery.kubernetes.poolspec import PoolSpec
from epp.discovery.kubernetes.poolswatch import WHAT
from epp.discovery.kubernetes.source import Listener
from epp.kube.api import Api
from epp.observe.degraded import Tell
from epp.service.pools.choosing import Claim
from epp.service.pools.configs import ANNOTATION
from epp.service.pools.identity import EVERY, PoolId
from epp.service.pools.place import Wanted
from epp.service.pools.pools import Pools


class KubernetesPools:
    """The source. `namespace` "*": of the cluster. `group` "": whichever has the pools.

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
        self._pools = pools
        self._tell = tell
        self._about = about
        self._listing = False
        where = None if namespace == EVERY else namespace
        self._fleet = KubernetesFleet(
            api, where, self._opened, group=group or None, tell=self._told, rng=rng, clock=clock
        )

    async def run(self) -> None:
        """Follow everything until cancelled."""
        await self._fleet.run()

    def _opened(self, pool: PoolSpec) -> tuple[Listener, Tell] | None:
        self._soon_listed()
        known = PoolId(pool.namespace, pool.name)
        return (_Listener(self._pools, known), self._about(known)) if self._pools.wants(known) else None

    def _told(self, what: str, line: str | None) -> None:
        self._tell(what, line)
        if what == WHAT and line is None:
            self._soon_listed()

    def _soon_listed(self) -> None:
        """The watch has answered; by the next turn of the loop it has told of all pools that it saw."""
        if not self._listing:
            self._listing = True
            asyncio.get_running_loop().call_soon(self._pools.listed)


class _Listener:
    """Hands on what is told of one pool."""

    def __init__(self, pools: Pools, pool: PoolId) -> None:
        self._pools = pools
        self._pool = pool
        self._latest: Sequence[EndpointSpec] = ()

    def pool(self, pool: PoolSpec) -> None:
        """It is there, or has changed."""
        self._pools.put(wanted_of(pool))

    def endpoints(self, endpoints: Sequence[EndpointSpec]) -> None:
        """These are its endpoints. None at all are told right before it is gone, too: what is on its way then still
        finds those there were."""
        self._latest = endpoints
        if endpoints:
            self._pools.endpoints(self._pool, endpoints)
        else:
            asyncio.get_running_loop().call_soon(self._none)

    def gone(self) -> None:
        """It is not there any more."""
        self._pools.remove(self._pool)

    def _none(self) -> None:
        if not self._latest:
            self._pools.endpoints(self._pool, ())

    def models(self, models: Models) -> None:
        """This is what is said of models."""
        self._pools.models(self._pool, models)


def wanted_of(pool: PoolSpec) -> Wanted:
    """How `pool` wants to be called and configured."""
    claim = Claim(PoolId(pool.namespace, pool.name), pool.picker_name, pool.picker_port or 0)
    return Wanted(claim, pool.annotations.get(ANNOTATION, ""))
