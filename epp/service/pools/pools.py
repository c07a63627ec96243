# SPDX-License-Identifier: Apache-2.0
"""All pools of the process: sources tell of them, streams find them.

A source calls `put`, `endpoints`, `models` and `remove`, in any order for different pools, and `listed` once it has
told of all pools there are. Pools are built one at a time, so that the loop has its turn between two of them, and what
is said of one meanwhile waits in its place.

A pool that is removed is found by no stream any more; streams that are open go on with what they have. Its endpoints
stay until nothing is in flight, or `RETIRE_MOST_S` have passed; then it lets go of all it has.

`known` turns true when the source has listed the pools and the endpoints of each are known, and stays so: pools that
come later, and pools that are named and not there, do not make those unready that are served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence

from epp.contract.discovery import EndpointSpec
from epp.contract.models import Models
from epp.extproc import Handler
from epp.observe.degraded import Tell
from epp.service.pools.choosing import Chooser, Ways
from epp.service.pools.configs import BUILT_IN_CONFIGURATION, Given, choose, unused
from epp.service.pools.folder import Files
from epp.service.pools.identity import EVERY, PoolId
from epp.service.pools.place import Build, Place, Read, Wanted
from epp.service.served import ServedPool

log = logging.getLogger("epp.service")

RETIRE_LEAST_S = 10.0
"""A body may still be arriving for a pool that was removed."""
RETIRE_MOST_S = 600.0
_RETIRE_LOOK_S = 1.0

Open = Callable[[], Handler]


class Pools:
    """The pools called `names` ("*" among them: all) in `namespace` ("*": in all).

    * about: gives the `Tell` of one pool's matters; tell: of the process's
    * ports: those that may be listened on for pools
    * otherwise: the configuration of pools without one of their own
    * removed: called when a pool is gone; retired: when it has let go of all it had
    * changed: called when a pool came, changed or went, and when what health says of them may be another
    """

    def __init__(
        self,
        names: Sequence[str],
        namespace: str,
        build: Build,
        read: Read,
        *,
        tell: Tell,
        about: Callable[[PoolId], Tell],
        ports: range = range(0),
        otherwise: Given = BUILT_IN_CONFIGURATION,
        changed: Callable[[], None] = lambda: None,
        removed: Callable[[PoolId], None] = lambda _: None,
        retired: Callable[[ServedPool], None] = lambda _: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.chooser: Chooser[Open] = Chooser()
        self.known = False
        self.changed = changed
        self._names = names
        self._namespace = namespace
        self._build = build
        self._read = read
        self._tell = tell
        self._about = about
        self._ports = ports
        self._otherwise = otherwise
        self._removed = removed
        self._retired = retired
        self._sleep = sleep
        self._places: dict[PoolId, Place] = {}
        self._files: Files = {}
        self._unused: list[str] = []
        self._listed = False
        self._work = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[tuple[PoolId, Place]]:
        """The pools there are, served or not yet. May be iterated over in another thread."""
        return iter(list(self._places.items()))

    def served(self) -> list[tuple[PoolId, ServedPool]]:
        """Those that are served. May be called from another thread."""
        return [(pool, place.served) for pool, place in self if place.served is not None]

    def place(self, pool: PoolId) -> Place | None:
        """The place of one pool."""
        return self._places.get(pool)

    @property
    def pickable(self) -> bool:
        """Whether any pool has an endpoint."""
        return any(place.pickable for place in self._places.values())

    def ports(self) -> set[int]:
        """The ports that pools want to be called on and that may be listened on."""
        return {place.wanted.claim.port for place in self._places.values()} & set(self._ports)

    def wants(self, pool: PoolId) -> bool:
        """Whether `pool` is one of those asked for."""
        named = EVERY in self._names or pool.name in self._names
        return named and self._namespace in (EVERY, pool.namespace)

    # What a source says.

    def put(self, wanted: Wanted) -> None:
        """A pool is there, or has changed."""
        if not self.wants(wanted.id):
            return
        place = self._places.get(wanted.id)
        if place is None:
            self._places[wanted.id] = Place(wanted, self._build, self._read, self._about(wanted.id))
        else:
            place.wanted = wanted
        self._work.set()

    def endpoints(self, pool: PoolId, snapshot: Sequence[EndpointSpec]) -> None:
        """These are the endpoints of a pool."""
        place = self._places.get(pool)
        if place is not None:
            place.endpoints(snapshot)
            if self.known:
                self.changed()
            else:
                self._told()

    def models(self, pool: PoolId, models: Models) -> None:
        """This is what is said of the models of a pool."""
        place = self._places.get(pool)
        if place is not None:
            place.models(models)

    def remove(self, pool: PoolId) -> None:
        """A pool is there no more."""
        place = self._places.pop(pool, None)
        if place is None:
            return
        place.left = True
        self._removed(pool)
        self._publish()
        if place.served is not None:
            log.info("pool %s is gone; streams that are open go on", pool)
            task = asyncio.create_task(self._retire(place.served))
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)
        self._told()

    def listed(self) -> None:
        """All pools that there are have been told of."""
        self._listed = True
        self._told()

    def files(self, files: Files) -> None:
        """These are the files of --config-dir."""
        self._files = files
        self._work.set()

    def use_otherwise(self, given: Given) -> None:
        """This is the configuration of pools that have none of their own."""
        self._otherwise = given
        self._work.set()

    # What happens then.

    async def run(self) -> None:
        """Bring the pools to what is wanted, until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            for pool, place in self:
                await self._settle(pool, place)
            self._publish()
            self._told()

    async def stop(self) -> None:
        """Every pool ends what it runs."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await asyncio.gather(*[served.stop() for _, served in self.served()])

    async def _settle(self, pool: PoolId, place: Place) -> None:
        new = place.served is None
        try:
            await place.settle(choose(pool, place.wanted.annotation, self._files, self._otherwise))
        except Exception as error:
            log.error("pool %s cannot be served: %r", pool, error, exc_info=error)
            place.failed = True
            return
        if new and place.served is not None:
            self._publish()

    def _publish(self) -> None:
        claims = [place.wanted.claim for place in self._places.values()]
        every = self._namespace == EVERY
        alone = len(self._names) == 1 and EVERY not in self._names and not every
        ways = Ways(claims, "" if every else self._namespace, self.ports(), alone)
        self.chooser.use(ways, {pool: served.director.open for pool, served in self.served()})
        self._tell("pools", "; ".join(ways.doubts()) or None)

    def _told(self) -> None:
        """Something was said: what follows for the whole."""
        if self._listed and not self.known and all(place.synced for place in self._places.values()):
            self.known = True
            log.info("pools known: %d", len(self._places))
        if self._listed:
            self._say_missing()
            self._say_unused()
        self.changed()

    def _say_missing(self) -> None:
        there = {pool.name for pool in self._places}
        missing = [name for name in self._names if name != EVERY and name not in there]
        where = "" if self._namespace == EVERY else f" in namespace {self._namespace}"
        self._tell(
            "pools-missing",
            f"no pool {', '.join(missing)}{where}; create it, or mend --pool-name and --pool-namespace"
            if missing
            else None,
        )

    def _say_unused(self) -> None:
        names = unused(self._files, self._places)
        if names and names != self._unused:
            log.warning(
                "--config-dir: no pool uses %s; a file is called <namespace>.<pool>.yaml or <pool>.yaml",
                ", ".join(names),
            )
        self._unused = names

    async def _retire(self, served: ServedPool) -> None:
        try:
            await self._sleep(RETIRE_LEAST_S)
            waited_s = RETIRE_LEAST_S
            while served.in_flight and waited_s < RETIRE_MOST_S:
                await self._sleep(_RETIRE_LOOK_S)
                waited_s += _RETIRE_LOOK_S
        finally:
            await served.stop()
            served.let_go()
            self._retired(served)
