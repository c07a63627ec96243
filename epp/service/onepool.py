# SPDX-License-Identifier: Apache-2.0
"""A process with one pool: its configuration is given by flags and must be right at the start."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence, Set

from epp.accesslog import AccessLogs
from epp.admin.pages import Page
from epp.config.catalog import Catalog
from epp.contract.discovery import Discovery, EndpointSpec
from epp.contract.endpoints import Clock, Endpoint
from epp.contract.errors import DiscoveryError
from epp.extproc import Services
from epp.observe.decision.file import DecisionLog
from epp.observe.log.logs import Log
from epp.observe.metrics.page import MetricsRegistry
from epp.service.cluster import wanted
from epp.service.debugpages import PATH as DECISIONS
from epp.service.debugpages import DecisionsPage
from epp.service.flags.options import Options
from epp.service.served import ServedPool
from epp.service.serving import Connect
from epp.service.sources import source_of
from epp.transport.call import Service

log = logging.getLogger("epp.service")


class OnePool:
    """The pool that `options` describe, as a `Serving`. Raises `EppError` when its configuration cannot be used."""

    def __init__(self, options: Options, lines: Log, clock: Clock, rng: random.Random, catalog: Catalog) -> None:
        self._options = options
        self._clock = clock
        self._served = ServedPool(options, lines, clock, rng, catalog)
        self.access_logs: AccessLogs = self._served.access_logs
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def registry(self) -> MetricsRegistry:
        """The pool's."""
        return self._served.recorder.registry

    @property
    def synced(self) -> bool:
        """Whether its endpoints are known."""
        return self._served.pool.synced

    @property
    def pickable(self) -> bool:
        """Whether it has any."""
        return len(self._served.pool) > 0

    def pool_ready(self, pool: str) -> bool | None:
        """By the name that the flags give it."""
        return self.pickable if pool in self.pools() else None

    def pools(self) -> Iterable[str]:
        """Its name, if it has one."""
        options = self._options
        return (f"{options.pool_namespace}/{options.pool_name}",) if options.pool_name else ()

    def ports(self) -> Set[int]:
        """None."""
        return frozenset()

    def ext_proc(self, streams: Services, port: int) -> Service:
        """Every stream is for the pool."""
        return streams.plain(self._served.director.open)

    def pages(self) -> Mapping[str, Page]:
        """Its decisions."""
        return {DECISIONS: DecisionsPage(self._served.recorder.decisions, self._clock)}

    def log_decisions(self, decision_log: DecisionLog | None) -> None:
        """Its decisions."""
        self._served.recorder.decision_log = decision_log

    async def discover(self, connect: Connect, stop: asyncio.Event, changed: Callable[[], None]) -> None:
        """From the configuration's source, or the flags', or Kubernetes."""
        self._served.pool.subscribe(_Changed(changed))
        source = source_of(self._options, self._served.assembly)
        if source is not None:
            return await self._publish(source, stop)
        cluster = connect() if wanted(self._options) else None
        if cluster is not None:
            # Nothing waits for the API server: until it has answered we are not ready, which health says.
            return cluster.follow(self._served, changed)
        log.warning(
            "there is no source of endpoints, every request gets 503; give --endpoints IP:PORT,... or "
            "--endpoints-file FILE, or file-discovery in the configuration, or --pool-name in a Kubernetes cluster"
        )
        return self._served.endpoints([])

    def follow(self) -> None:
        """Its configuration's file."""
        self._served.watch_configuration()

    async def stop(self) -> None:
        """End discovery and the pool."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._served.stop()

    async def _publish(self, source: Discovery, stop: asyncio.Event) -> None:
        first = asyncio.Event()

        def publish(snapshot: Sequence[EndpointSpec]) -> None:
            self._served.endpoints(snapshot)
            first.set()

        task = asyncio.create_task(source.run(publish))
        self._tasks.append(task)
        events = [asyncio.create_task(event.wait()) for event in (first, stop)]
        await asyncio.wait((task, *events), return_when=asyncio.FIRST_COMPLETED)
        for waiting in events:
            waiting.cancel()
        if task.done() and not first.is_set():
            task.result()
            raise DiscoveryError("the source of endpoints ended without telling any; it must run until it is cancelled")
        task.add_done_callback(_source_ended)
        log.info("endpoints found: %d", len(self._served.pool))


class _Changed:
    """Tells of endpoints that come and go; an `EndpointHook`."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        self._changed()

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        self._changed()


def _source_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        error = task.exception()
        log.error("the source of endpoints %s; its last endpoints are kept", f"failed: {error!r}" if error else "ended")
