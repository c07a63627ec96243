# SPDX-License-Identifier: Apache-2.0
"""Where endpoints come from: a source publishes whole snapshots; the pool works out what changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from epp.contract.endpoints import format_address


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One endpoint as a source describes it.

    * incarnation: changes when the same name is a new process (a pod's UID and restart count): the pool then treats it
      as removed and added
    * ready: false while it must not be chosen; what is known of it stays
    """

    namespace: str
    name: str
    ip: str
    port: int
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rank: int = 0
    incarnation: str = ""
    ready: bool = True

    @property
    def id(self) -> str:
        """`namespace/name`, unique in a snapshot."""
        return f"{self.namespace}/{self.name}"

    @property
    def address(self) -> str:
        """`ip:port`, with IPv6 in brackets."""
        return format_address(self.ip, self.port)


Publish = Callable[[Sequence[EndpointSpec]], None]


@runtime_checkable
class Discovery(Protocol):
    """A source of endpoints."""

    async def run(self, publish: Publish) -> None:
        """Publish the first snapshot as soon as it is known, then every change, until cancelled.

        Raises `DiscoveryError` only before the first snapshot; later faults are logged and the last good state kept.
        """
        ...
