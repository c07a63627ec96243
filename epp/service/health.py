# SPDX-License-Identifier: Apache-2.0
"""The gRPC health protocol, for every name a probe of any release asks for.

    liveness                 always SERVING: restarting us mends nothing about the pool
    inference-extension      SERVING once discovery has synced, even with no endpoint ready
    "", the ext_proc service the same, where we are active: not standing by for another replica that leads
    readiness                the same, when there is something to pick
    pool/<namespace>/<name>  the same, when that pool has something to pick

inference-extension asks nothing of leadership. It is probed for liveness as well as readiness, by charts that mean one
replica: standbys must not be restarted for standing by, while two ready ones do no harm. (The Go EPP knows no such
name when it elects a leader.) While draining all but liveness say NOT_SERVING. Other names get NOT_FOUND. The same
answers are given on the health port (plaintext) and on the ext_proc port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from epp.extproc import NAME as EXT_PROC
from epp.transport.call import Service
from epp.transport.health import LIVENESS, NOT_SERVING, READINESS, SERVING, HealthService

EXTENSION = "inference-extension"
POOL = "pool/"
NAMES = (LIVENESS, READINESS, "", EXT_PROC, EXTENSION)


class Health:
    """What we say of ourselves. `synced`, `pickable` and `active` are asked at every probe; call `changed` when they
    may have changed, so that watchers hear of it. `active` is False in a replica that stands by.

    * pool_ready: whether a pool, by `namespace/name`, has something to pick, None for strangers; pools: those names
    """

    def __init__(
        self,
        synced: Callable[[], bool],
        pickable: Callable[[], bool],
        active: Callable[[], bool] = lambda: True,
        pool_ready: Callable[[str], bool | None] = lambda _: None,
        pools: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._synced = synced
        self._pickable = pickable
        self._active = active
        self._pool_ready = pool_ready
        self._pools = pools
        self._draining = False
        self._service = HealthService(self)

    @property
    def draining(self) -> bool:
        """Whether we are going away."""
        return self._draining

    def drain(self) -> None:
        """From now on we are going away."""
        self._draining = True
        self.changed()

    def status(self, name: str) -> int | None:
        """The status of `name`, None when nobody knows it."""
        if name == LIVENESS:
            return SERVING
        if name.startswith(POOL):
            ready = self._pool_ready(name.removeprefix(POOL))
            if ready is None:
                return None
            return SERVING if ready and self._active() and not self._draining else NOT_SERVING
        if name not in NAMES:
            return None
        serving = (
            not self._draining
            and self._synced()
            and (name != READINESS or self._pickable())
            and (name == EXTENSION or self._active())
        )
        return SERVING if serving else NOT_SERVING

    def names(self) -> Iterator[str]:
        """Every name there is."""
        yield from NAMES
        yield from self.names_of_pools()

    def names_of_pools(self) -> Iterator[str]:
        """Those of pools."""
        yield from [POOL + pool for pool in self._pools()]

    def known(self) -> str:
        """The names for a person."""
        pools = (f"{POOL}<namespace>/<name>",) if any(self.names_of_pools()) else ()
        return ", ".join((*filter(None, NAMES), *pools))

    def changed(self) -> None:
        """Tell watchers whose status is another one now."""
        self._service.changed()

    def services(self) -> Mapping[str, Service]:
        """What to register with a transport."""
        return self._service.services()
