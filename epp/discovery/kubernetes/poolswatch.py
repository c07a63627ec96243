# SPDX-License-Identifier: Apache-2.0
"""InferencePools of both groups as one set of pools: one by name, those of a namespace, or those of the cluster.

Which group: the one that is given; otherwise inference.networking.k8s.io/v1, and where that kind is not installed, is
forbidden (KServe v0.16's role knows the other group alone) or has no such pool, inference.networking.x-k8s.io/v1alpha2.
The first is asked for again from time to time, and wins where both have a pool. A refusal by one group is no
degradation while the other one answers.

A pool is removed when the server says that it is gone or being deleted; no failure removes one. An object that no
longer makes sense leaves the pool as it was. Nothing is said of any pool before the first group has answered.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from epp.contract.endpoints import Clock
from epp.contract.errors import DiscoveryError
from epp.discovery.kubernetes.objects import PoolV1, PoolV1Alpha2
from epp.discovery.kubernetes.podfeed import Sleep, Tell
from epp.discovery.kubernetes.poolspec import PoolSpec, pool_of, pool_resource
from epp.kube.api import Api
from epp.kube.errors import ApiError, Forbidden, Missing, Unreachable
from epp.kube.reflector import Reflector
from epp.kube.resource import POOLS, POOLS_X, Resource

WHAT = "inferencepools"
"""The matter under which a watch tells what is wrong."""
LOOK_ROUND_S = 60.0
"""How often the names of other pools are asked for while the wanted one is not there."""
_SHOWN = 8


class PoolsListener(Protocol):
    """Who is told of pools. `changed` is only called for a pool that was added."""

    def added(self, pool: PoolSpec) -> None: ...
    def changed(self, pool: PoolSpec) -> None: ...
    def removed(self, pool: PoolSpec) -> None: ...


class _Group:
    """What is known of the pools of one group."""

    def __init__(self, resource: Resource, wake: Callable[[], None]) -> None:
        self.resource = resource
        self.pools: dict[str, PoolSpec] = {}
        self.answered = False
        self.error: ApiError | None = None
        self.problems: dict[str, str] = {}
        self._wake = wake

    @property
    def refused(self) -> bool:
        """Whether the kind is not there, or not for us."""
        return isinstance(self.error, (Missing, Forbidden))

    def changed(self, store: Mapping[str, PoolV1 | PoolV1Alpha2]) -> None:
        """The group's objects are these."""
        pools: dict[str, PoolSpec] = {}
        problems: dict[str, str] = {}
        for key, obj in store.items():
            if obj.metadata.deletion_timestamp is not None:
                continue
            try:
                pools[key] = pool_of(obj)
            except DiscoveryError as error:
                problems[key] = str(error)
                if key in self.pools:
                    pools[key] = self.pools[key]
        self.pools, self.problems, self.answered = pools, problems, True
        self._wake()

    def told(self, error: ApiError | None) -> None:
        """The group's watch fails, or works."""
        if isinstance(error, Unreachable):
            return  # says nothing about the kind, and is told of the connection
        self.error = error
        self.answered = self.answered or self.refused
        self._wake()

    def forget(self) -> None:
        """The group is not watched any more."""
        self.pools, self.problems, self.answered, self.error = {}, {}, False, None


class PoolsWatch:
    """Follows pools. `namespace` None: of the whole cluster. `name`: that one alone. `group` None: see above.

    `tell` is told under `inferencepools` what is wrong. Raises `StartError` for a group that has no pools.
    """

    def __init__(
        self,
        api: Api,
        namespace: str | None,
        listener: PoolsListener,
        *,
        name: str = "",
        group: str | None = None,
        tell: Tell,
        rng: random.Random,
        sleep: Sleep = asyncio.sleep,
        clock: Clock,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._listener = listener
        self._name = name
        self._tell = tell
        self._rng = rng
        self._sleep = sleep
        self._clock = clock
        self._wake = asyncio.Event()
        resources = (POOLS, POOLS_X) if group is None else (pool_resource(group),)
        self._groups = [_Group(resource, self._wake.set) for resource in resources]
        self._watches: dict[int, asyncio.Task[None]] = {}
        self._pools: dict[str, PoolSpec] = {}
        self._malformed: dict[tuple[int, str], str] = {}
        self._others = ""
        self._looked_s = -math.inf

    async def run(self) -> None:
        """Follow the pools until cancelled."""
        try:
            self._watch(0)
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._follow_second()
                await self._compare()
                await self._report()
        finally:
            for task in self._watches.values():
                task.cancel()
            await asyncio.gather(*self._watches.values(), return_exceptions=True)
            self._watches.clear()

    def _watch(self, at: int) -> None:
        group = self._groups[at]
        decode: type[PoolV1] | type[PoolV1Alpha2] = PoolV1Alpha2 if group.resource == POOLS_X else PoolV1
        reflector: Reflector[PoolV1 | PoolV1Alpha2] = Reflector(
            self._api, group.resource, self._namespace, decode, group.changed,
            field_selector=f"metadata.name={self._name}" if self._name else "",
            told=group.told, rng=self._rng, sleep=self._sleep,
            malformed=lambda key, line: self._unreadable(at, key, line),
        )  # fmt: skip
        self._watches[at] = asyncio.create_task(reflector.run())

    def _follow_second(self) -> None:
        """Watch the second group while the first one does not have all that we look for."""
        if len(self._groups) == 1:
            return
        first, second = self._groups
        wanted = first.answered and (first.refused or not self._name or not first.pools)
        if wanted and 1 not in self._watches:
            self._watch(1)
        elif not wanted and 1 in self._watches:
            self._watches.pop(1).cancel()
            second.forget()
            self._malformed = {place: line for place, line in self._malformed.items() if place[0] == 0}

    async def _compare(self) -> None:
        """Tell the listener how the pools differ from those it knows."""
        if not self._groups[0].answered:
            return
        wanted: dict[str, PoolSpec] = {}
        for group in sorted(self._groups, key=lambda group: group.refused):
            for key, pool in group.pools.items():
                wanted.setdefault(key, pool)
        settled = all(group.answered for group in self._groups if self._is_watched(group))
        for key, pool in list(self._pools.items()):
            if key not in wanted and settled:
                del self._pools[key]
                self._listener.removed(pool)
        for key, pool in wanted.items():
            before = self._pools.get(key)
            self._pools[key] = pool
            if before != pool:
                # What a listener does for one pool may take a while; the loop has its turn before the next.
                await asyncio.sleep(0)
            if before is None:
                self._listener.added(pool)
            elif before != pool:
                self._listener.changed(pool)

    def _is_watched(self, group: _Group) -> bool:
        return self._groups.index(group) in self._watches

    async def _report(self) -> None:
        watched = [group for group in self._groups if self._is_watched(group)]
        failed = [group for group in watched if group.error is not None]
        # A refusal counts where we use what the group had, or when no group is left that answers.
        none_answers = len(failed) == len(watched)
        lines = [str(group.error) for group in failed if not group.refused or group.pools or none_answers]
        lines += [line for group in watched for line in group.problems.values()]
        lines += self._malformed.values()
        if self._pools:
            self._looked_s = -math.inf
        elif self._name and not lines and all(group.answered for group in watched):
            await self._look_round(group for group in watched if group.error is None)
            tried = " and ".join(group.resource.api_version for group in watched)
            lines.append(
                f"{WHAT[:-1]} {self._namespace}/{self._name} is not there (looked in {tried}){self._others}; "
                "create it, or mend --pool-name and --pool-namespace"
            )
        self._tell(WHAT, "; ".join(lines) or None)

    async def _look_round(self, groups: Iterable[_Group]) -> None:
        """Find the names of the pools that are there."""
        if self._clock() - self._looked_s < LOOK_ROUND_S:
            return
        self._looked_s = self._clock()
        names: set[str] = set()
        for group in groups:
            decode: type[PoolV1] | type[PoolV1Alpha2] = PoolV1Alpha2 if group.resource == POOLS_X else PoolV1
            try:
                found, _ = await self._api.list(group.resource, self._namespace, decode, malformed=_overlook)
            except ApiError:
                continue  # whoever may see one pool need not be allowed to see all
            names.update(obj.metadata.name for obj in found)
        shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
        self._others = f"; there is {shown}" if names else "; there is no pool in the namespace"

    def _unreadable(self, at: int, key: str, line: str | None) -> None:
        if line is None:
            self._malformed.pop((at, key), None)
        else:
            self._malformed[at, key] = f"{WHAT[:-1]} {key}: {line}"
        self._wake.set()


def _overlook(key: str, line: str) -> None:
    """Objects that cannot be read are told by the watch, not by a look round."""
