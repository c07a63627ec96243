# SPDX-License-Identifier: Apache-2.0
"""What a process serves, one pool or many, as the rest of the service sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Protocol

from epp.accesslog import AccessLogs
from epp.admin.pages import Page
from epp.extproc import Services
from epp.observe.decision.file import DecisionLog
from epp.observe.metrics.page import MetricsRegistry
from epp.service.cluster import Cluster
from epp.transport.call import Service

Connect = Callable[[], Cluster | None]
"""Connects to the Kubernetes API; None, and a warning, when nothing says how. Raises `StartError`."""


class Serving(Protocol):
    """From construction to `stop`."""

    access_logs: AccessLogs
    """Every stream of Envoy's access log ends here."""

    @property
    def registry(self) -> MetricsRegistry:
        """The metrics page."""
        ...

    @property
    def synced(self) -> bool:
        """Whether discovery has told what there is."""
        ...

    @property
    def pickable(self) -> bool:
        """Whether there is an endpoint."""
        ...

    def pool_ready(self, pool: str) -> bool | None:
        """Whether the pool `namespace/name` has an endpoint; None for one that is not served by that name."""
        ...

    def pools(self) -> Iterable[str]:
        """The names that `pool_ready` knows."""
        ...

    def ports(self) -> Set[int]:
        """Ports to listen on besides --grpc-port, as of now."""
        ...

    def ext_proc(self, streams: Services, port: int) -> Service:
        """What answers ext_proc on `port`."""
        ...

    def pages(self) -> Mapping[str, Page]:
        """Pages under /debug/, by path."""
        ...

    def log_decisions(self, decision_log: DecisionLog | None) -> None:
        """Write every decision to this log."""
        ...

    async def discover(self, connect: Connect, stop: asyncio.Event, changed: Callable[[], None]) -> None:
        """Find endpoints, from now on; wait for the first ones where they are near, but not longer than for `stop`.

        `changed` is called whenever what the properties above say may have changed. Raises `EppError`.
        """
        ...

    def follow(self) -> None:
        """From now on, follow the files of configurations."""
        ...

    async def stop(self) -> None:
        """End all that runs."""
        ...
