# SPDX-License-Identifier: Apache-2.0
"""One pool of many: what its source said of it, and what serves it.

Whatever is wrong with a pool stays with it: where its configuration cannot be used it keeps the one it has, or gets
the built-in one, and that is told as degraded. Tried again it is when another configuration is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from epp.config.configuration import Configuration
from epp.contract.discovery import EndpointSpec
from epp.contract.models import Models
from epp.observe.degraded import Tell
from epp.service.pools.choosing import Claim
from epp.service.pools.configs import BUILT_IN_CONFIGURATION, Given
from epp.service.pools.identity import PoolId
from epp.service.served import ServedPool

Build = Callable[[PoolId, Configuration], ServedPool]
"""Makes what serves a pool. Raises whatever a plugin may raise."""
Read = Callable[[Given], Awaitable[Configuration]]
"""Reads a configuration. Raises `ConfigErrors`."""

CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a source says of a pool: how it is called, and the configuration in its annotation ("" for none)."""

    claim: Claim
    annotation: str = ""

    @property
    def id(self) -> PoolId:
        """Which pool."""
        return self.claim.pool


class Place:
    """A pool's place. `served` is None until its first configuration has been read."""

    def __init__(self, wanted: Wanted, build: Build, read: Read, tell: Tell) -> None:
        self.wanted = wanted
        self.served: ServedPool | None = None
        self.left = False
        """The pool is gone: nothing is to be built for it any more."""
        self.failed = False
        """Nothing serves it, and nothing will until another configuration is given."""
        self._build = build
        self._read = read
        self._tell = tell
        self._given: Given | None = None
        self._snapshot: Sequence[EndpointSpec] | None = None
        self._models: Models | None = None

    @property
    def synced(self) -> bool:
        """Whether its endpoints are known, or nobody waits for them."""
        return self.failed if self.served is None else self.served.pool.synced

    @property
    def pickable(self) -> bool:
        """Whether it has an endpoint."""
        return self.served is not None and len(self.served.pool) > 0

    def endpoints(self, snapshot: Sequence[EndpointSpec]) -> None:
        """These are its endpoints now."""
        if self.served is None:
            self._snapshot = snapshot
        else:
            self.served.endpoints(snapshot)

    def models(self, models: Models) -> None:
        """This is what is said of models now."""
        if self.served is None:
            self._models = models
        else:
            self.served.models(models)

    async def settle(self, given: Given) -> None:
        """Be served with the configuration `given`, if that is another one than before."""
        if given == self._given:
            return
        self._given = given
        try:
            self._use(await self._read(given))
        except Exception as error:  # a plugin may raise anything
            await self._make_do(error)
        else:
            self._tell(CONFIGURATION, None)

    async def _make_do(self, error: Exception) -> None:
        if self.left:
            return
        kept = "its last good one is kept" if self.served is not None else "the built-in one is used"
        self._tell(CONFIGURATION, f"{error or repr(error)}; {kept}")
        if self.served is None:
            self._use(await self._read(BUILT_IN_CONFIGURATION))

    def _use(self, configuration: Configuration) -> None:
        if self.left:
            return
        if self.served is not None:
            self.served.use(configuration)
            return
        served = self._build(self.wanted.id, configuration)
        if self._models is not None:
            served.models(self._models)
        if self._snapshot is not None:
            served.endpoints(self._snapshot)
        self.served, self._snapshot, self._models = served, None, None
