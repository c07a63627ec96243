# SPDX-License-Identifier: Apache-2.0
"""A process with many pools: what they share, and what the process shows of them.

They share the event loop, the listeners, one share of the loop for reading metrics pages, the log, the access log and
the decision log. Everything else is each pool's own (`epp.service.served`), so that a fault or a flood stays there.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import replace
from pathlib import Path

from epp import __version__
from epp.accesslog import AccessLogs
from epp.admin.pages import Page
from epp.config.catalog import Catalog
from epp.config.configuration import Configuration
from epp.config.load import load_text, read_text
from epp.config.reload import ConfigWatcher
from epp.contract.endpoints import Clock
from epp.contract.errors import ConfigError
from epp.director.unwatched_metrics import LogCollector
from epp.extproc import Handler, Services
from epp.observe.decision.file import DecisionLog
from epp.observe.decision.ring import DecisionRing
from epp.observe.degraded import Degraded, Tell
from epp.observe.log.logs import Log
from epp.observe.metrics.counts import Readings, ReadingsCollector
from epp.observe.metrics.merged import MergedCollector
from epp.observe.metrics.page import MetricsRegistry
from epp.observe.metrics.rows import FamilyCollector
from epp.service.cluster import wanted
from epp.service.debugpages import PATH as DECISIONS
from epp.service.debugpages import DecisionsPage
from epp.service.flags.options import Options
from epp.service.pools.choosing import Called
from epp.service.pools.configs import BUILT_IN_CONFIGURATION, Given
from epp.service.pools.files import FilePools
from epp.service.pools.folder import Folder
from epp.service.pools.identity import PoolId
from epp.service.pools.kubernetes import KubernetesPools
from epp.service.pools.logs import SharedLog
from epp.service.pools.pages import AllDecisions, PoolsCollector
from epp.service.pools.pools import Pools
from epp.service.pools.unknown import UnknownPools
from epp.service.served import Among, ServedPool, tell_notes
from epp.service.serving import Connect
from epp.signals.poll.common import Common
from epp.transport.call import Service

log = logging.getLogger("epp.service")

RING_RECORDS = 1_000
RING_BYTES = 1 << 20
"""Of one pool's last decisions; the only pool of a process has sixteen times as much."""
_READ_AT_MOST = 64
"""Configurations that are kept read: pools that have the same one share it."""


class ManyPools:
    """The pools that `options` ask for, as a `Serving`. Raises `EppError` when what holds for all cannot be used."""

    def __init__(
        self, options: Options, lines: Log, clock: Clock, rng: random.Random, catalog: Catalog, degraded: Degraded
    ) -> None:
        self._options = options
        self._lines = lines
        self._clock = clock
        self._rng = rng
        self._catalog = catalog
        self._degraded = degraded
        self._tasks: list[asyncio.Task[None]] = []
        self._common = Common(options.metrics_max_loop_share)
        self._numbers = itertools.count(1)
        self._unknown = UnknownPools()
        self._decision_log: DecisionLog | None = None
        self._read: dict[Given, Configuration] = {}
        self._shared_log = SharedLog()
        self.access_logs = AccessLogs(self._shared_log)
        self._otherwise = _otherwise(options)
        self._checked = self._otherwise
        self._load(self._otherwise)
        low, high = options.pool_ports or (0, -1)
        self._pools = Pools(
            options.pool_names,
            options.pool_namespace,
            self._build,
            self._configuration,
            tell=degraded.tell,
            about=self._about,
            ports=range(low, high + 1),
            otherwise=self._otherwise,
            removed=lambda pool: degraded.forget(f"{pool}/"),
            retired=lambda served: self._shared_log.remove(served.unwatched),
        )
        self._folder: Folder | None = None
        if options.config_dir is not None:
            self._folder = Folder(options.config_dir, read_text)
            self._pools.files(self._folder.open())
        self._registry = MetricsRegistry(
            MergedCollector(self._parts),
            ReadingsCollector(self._readings(), "", __version__),
            LogCollector(self.access_logs.counts),
            PoolsCollector(self._pools, self._unknown),
        )

    @property
    def registry(self) -> MetricsRegistry:
        """All pools on one page."""
        return self._registry

    @property
    def synced(self) -> bool:
        """Whether the pools are known, and the endpoints of each."""
        return self._pools.known

    @property
    def pickable(self) -> bool:
        """Whether any pool has an endpoint."""
        return self._pools.pickable

    def pool_ready(self, pool: str) -> bool | None:
        """Whether that one has."""
        namespace, _, name = pool.partition("/")
        place = self._pools.place(PoolId(namespace, name))
        return place.pickable if place is not None else None

    def pools(self) -> Iterable[str]:
        """Those there are."""
        return [str(pool) for pool, _ in self._pools]

    def ports(self) -> Set[int]:
        """Those that pools ask for, within --pool-ports."""
        return self._pools.ports()

    def ext_proc(self, streams: Services, port: int) -> Service:
        """Every stream is for the pool that `choosing` finds."""
        choose, unknown, chooser = self._pools.chooser.on_port(port), self._unknown, self._pools.chooser

        def handler_for(called: Called) -> Handler:
            found = choose(called)
            return found() if found is not None else unknown.open(chooser.unknown(called, port))

        return streams.choosing(handler_for)

    def pages(self) -> Mapping[str, Page]:
        """The decisions of all."""
        every = AllDecisions(lambda: [served.recorder.decisions for _, served in self._pools.served()])
        return {DECISIONS: DecisionsPage(every, self._clock, of_pool=self._decisions_of)}

    def log_decisions(self, decision_log: DecisionLog | None) -> None:
        """One file for all."""
        self._decision_log = decision_log
        for _, served in self._pools.served():
            served.recorder.decision_log = decision_log

    async def discover(self, connect: Connect, stop: asyncio.Event, changed: Callable[[], None]) -> None:
        """From --endpoints-dir, else from Kubernetes."""
        options, pools = self._options, self._pools
        pools.changed = changed
        self._tasks.append(asyncio.create_task(pools.run()))
        if options.transport == "grpcio":
            log.warning(
                "--transport=grpcio does not tell the :authority of a stream: pools are told apart by initial metadata "
                "x-epp-pool and by port alone"
            )
        if options.endpoints_dir is not None:
            files = FilePools(options.endpoints_dir, options.pool_namespace, pools, self._about)
            await files.open()
            self._tasks.append(asyncio.create_task(files.run()))
            return
        cluster = connect() if wanted(options) else None
        if cluster is None:
            log.warning(
                "there is no source of pools, every request gets 503; give --endpoints-dir DIR, or run in a cluster"
            )
            pools.listed()
            return
        rng = random.Random(self._rng.random())
        source = KubernetesPools(
            cluster.api, options.pool_namespace, options.pool_group, pools,
            tell=self._degraded.tell, about=self._about, rng=rng, clock=self._clock,
        )  # fmt: skip
        cluster.run(source.run())

    def follow(self) -> None:
        """--config-dir and --config-file."""
        if self._folder is not None:
            self._tasks.append(asyncio.create_task(self._folder.follow(self._pools.files)))
        path = self._options.config_file
        if path is not None:
            watcher = ConfigWatcher(path, self._check, self._use, log, text=self._otherwise.text)
            self._tasks.append(asyncio.create_task(watcher.run()))

    async def stop(self) -> None:
        """End discovery and every pool."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._pools.stop()

    # What `Pools` asks for.

    def _build(self, pool: PoolId, configuration: Configuration) -> ServedPool:
        options = replace(self._options, pool_name=pool.name, pool_namespace=pool.namespace)
        seed = self._options.seed
        rng = random.Random(self._rng.random() if seed is None else f"{seed} {pool}")
        ring = DecisionRing(RING_RECORDS, RING_BYTES, self._numbers)
        among = Among(str(pool), configuration, self._common, ring)
        served = ServedPool(options, self._lines, self._clock, rng, self._catalog, among)
        served.recorder.decision_log = self._decision_log
        served.pool.subscribe(self._shared_log.add(served.unwatched))
        log.info("pool %s is served, configuration %s", pool, configuration.source)
        return served

    async def _configuration(self, given: Given) -> Configuration:
        found = self._read.get(given)
        return found if found is not None else await asyncio.to_thread(self._load, given)

    def _load(self, given: Given) -> Configuration:
        if given.error:
            raise ConfigError(given.error)
        configuration = load_text(given.text, self._catalog, source=given.source, strict=self._options.strict)
        if configuration.discovery is not None:
            log.warning(
                "configuration %s: its discovery is not used, as there are many pools; see --endpoints-dir",
                configuration.source,
            )
        tell_notes(configuration)
        if len(self._read) >= _READ_AT_MOST:
            self._read.clear()
        self._read[given] = configuration
        return configuration

    def _about(self, pool: PoolId) -> Tell:
        return self._degraded.about(str(pool))

    # The file of --config-file.

    def _check(self, text: str, source: str) -> Configuration:
        self._checked = Given(text, source)
        return self._load(self._checked)

    def _use(self, _configuration: Configuration) -> None:
        # The watcher hands on what it had checked last.
        self._pools.use_otherwise(self._checked)

    # What pages ask for, from other threads.

    def _parts(self) -> Iterable[tuple[str, Iterable[FamilyCollector]]]:
        return [(str(pool), served.recorder.registry.ours) for pool, served in self._pools.served()]

    def _readings(self) -> Readings:
        return Readings(
            log_lines_dropped=lambda: float(self._lines.lines_dropped),
            decision_log=lambda: self._decision_log.counts if self._decision_log is not None else None,
        )

    def _decisions_of(self, pool: str) -> DecisionRing | None:
        return next((served.recorder.decisions for known, served in self._pools.served() if str(known) == pool), None)


def _otherwise(options: Options) -> Given:
    """The configuration of pools that have none of their own. Raises `ConfigErrors` when its file cannot be read."""
    path: Path | None = options.config_file
    if path is not None:
        return Given(read_text(path), str(path))
    return Given(options.config_text, "--config-text") if options.config_text else BUILT_IN_CONFIGURATION
