# SPDX-License-Identifier: Apache-2.0
"""The service, from its options to its last line: puts the rooms together, starts, waits, drains, stops.

Start: everything that can be wrong is checked before anything listens. Stop (SIGTERM): health says NOT_SERVING and
requests are still answered for --drain-timeout, then connections are told to go (GOAWAY) and open streams may finish
for up to `FINISH_S`. One of several replicas (leader election) gives its lease up first and stays ready for the first
part of the drain. A second signal, or SIGINT, skips what is left of the waits.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import time
from collections.abc import Mapping

from epp import __version__
from epp.admin import Admin
from epp.config.catalog import Catalog, collect
from epp.lifecycle import Stop, run_logged
from epp.observe.decision.file import DecisionLog
from epp.observe.degraded import Degraded
from epp.observe.log.logs import Log, open_log
from epp.observe.metrics.loopwatch import LoopWatch
from epp.service.cluster import Cluster, access_of
from epp.service.flags.options import Options
from epp.service.health import Health
from epp.service.listeners import Listeners, open_listeners
from epp.service.onepool import OnePool
from epp.service.serving import Serving
from epp.service.wiring import admin_tls, decision_log_of
from epp.transport.sockets import every_interface

log = logging.getLogger("epp.service")

HAND_OVER_S = 12.0
"""How long a replica that stops stays ready for another one to become it: KServe asks for readiness every 10 s."""
FINISH_S = 60.0
"""How long open streams may go on after the drain."""


def run(options: Options) -> int:
    """Serve until a signal; returns the exit code. Problems at the start are one log line each, and 1."""
    lines = open_log(encoder=options.log_encoder, verbosity=options.verbosity, times=options.log_time_encoding)
    return run_logged(lambda: Process(options, lines).serve(), lines, log)


class Process:
    """One service. `serve` is its whole life."""

    def __init__(self, options: Options, lines: Log, environ: Mapping[str, str] = os.environ) -> None:
        self._options = options
        self._environ = environ
        self._lines = lines
        self._clock = time.monotonic
        self._rng = random.Random(options.seed)
        self._degraded = Degraded()
        self._cluster: Cluster | None = None
        self._health = Health(
            lambda: self._serving.synced,
            lambda: self._serving.pickable,
            self._active,
            lambda pool: self._serving.pool_ready(pool),
            lambda: self._serving.pools(),
        )
        self._catalog: Catalog = collect(*options.plugin_dirs)
        self._stop = Stop()
        self._ports_wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> int:
        """Start, serve, drain, stop. Raises `EppError` when it cannot start."""
        options = self._options
        self._stop.listen()
        _announce(options)
        self._serving = serving = self._make()
        serving.registry.add(self._degraded)
        listeners: Listeners | None = None
        admin: Admin | None = None
        decision_log: DecisionLog | None = None
        try:
            await serving.discover(self._connect, self._stop.asked, self._changed)
            if self._stop.asked.is_set():
                log.info("stopped before anything listened")
                return 0
            # The collector's walk over all that was loaded takes some 25 ms: before anybody is served.
            gc.collect()
            listeners = await open_listeners(options, serving, self._health, self._clock)
            decision_log = decision_log_of(options, self._clock)
            serving.log_decisions(decision_log)
            admin = self._open_admin(serving)
            serving.follow()
            if options.pool_ports is not None:
                self._tasks.append(asyncio.create_task(self._keep_ports(listeners)))
            _ready(options, listeners, admin)
            # What lives now lives for ever: keep the collector from walking it.
            gc.freeze()
            await self._stop.asked.wait()
            await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            if listeners is not None:
                await self._stop.finish(listeners.close, FINISH_S)
            if admin is not None:
                await asyncio.to_thread(admin.close)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._cluster is not None:
                await self._cluster.close()
            await serving.stop()
            if decision_log is not None:
                await asyncio.to_thread(decision_log.close)
        log.info("stopped")
        return 0

    def _make(self) -> Serving:
        options, lines, clock, rng, catalog = self._options, self._lines, self._clock, self._rng, self._catalog
        if not options.pool_names:
            return OnePool(options, lines, clock, rng, catalog)
        # Loaded here: one pool needs none of it.
        from epp.service.pools.many import ManyPools

        return ManyPools(options, lines, clock, rng, catalog, self._degraded)

    def _open_admin(self, serving: Serving) -> Admin:
        options = self._options
        if options.watch_loop:
            watch = LoopWatch()
            watch.start()
            serving.registry.add(watch)
        if self._cluster is None and options.metrics_cert_dir is not None and options.metrics_client_ca_file is None:
            log.warning(
                "the metrics page is encrypted, and open to everybody: there is no Kubernetes to ask who may read it; "
                "give --metrics-client-ca-file"
            )
        return Admin(
            options.bind_address or every_interface(),
            options.metrics_port,
            serving.registry,
            self._missing,
            serving.pages() if options.debug_endpoints else {},
            review=self._cluster.review() if self._cluster is not None else None,
            tls=admin_tls(options),
            notes=self._degraded.lines,
        )

    def _connect(self) -> Cluster | None:
        access = access_of(self._options, self._environ)
        if access is None:
            return None
        rng = random.Random(self._rng.random())
        self._cluster = Cluster(access, self._options, self._degraded.tell, self._clock, rng)
        self._cluster.contend(self._health.changed)
        return self._cluster

    def _changed(self) -> None:
        """Health, or the ports that pools ask for, may be another."""
        self._health.changed()
        self._ports_wanted.set()

    async def _keep_ports(self, listeners: Listeners) -> None:
        while True:
            await self._ports_wanted.wait()
            self._ports_wanted.clear()
            await listeners.listen_also(self._serving.ports(), self._degraded.tell)

    async def _drain(self) -> None:
        left_s = self._options.drain_timeout_s
        if self._cluster is not None and self._cluster.contends:
            self._tasks.append(asyncio.create_task(self._cluster.give_up_lease()))
            # Not ready at once would mean that for a moment nobody is: the next leader is asked whether it is ready
            # every few seconds only.
            handing_over_s = min(left_s / 2, HAND_OVER_S)
            log.info("stopping: ready for %.0f s more, so that another replica can become it", handing_over_s)
            await self._stop.pause(handing_over_s)
            left_s -= handing_over_s
        self._health.drain()
        log.info("stopping: requests are answered for %.0f s more", self._stop.patience_s(left_s))
        await self._stop.pause(left_s)

    def _missing(self) -> str | None:
        if self._health.draining:
            return "stopping"
        if self._cluster is not None and not self._cluster.active:
            holder = self._cluster.holder
            return f"standing by: {holder} holds the lease" if holder else "standing by: the lease was not read yet"
        if self._serving.synced and self._serving.pickable:
            return None
        return "there is no endpoint" if self._serving.synced else "endpoints are not known yet"

    def _active(self) -> bool:
        return self._cluster is None or self._cluster.active


def _announce(options: Options) -> None:
    names = ", ".join(options.pool_names) or options.pool_name
    plural = "s" if options.pool_names else ""
    pool = f" for pool{plural} {options.pool_namespace}/{names}" if names else ""
    log.info("epp %s starts%s", __version__, pool)
    for warning in options.warnings:
        log.warning("%s", warning)
    if options.without_effect:
        log.warning("flags that have no effect yet: %s", ", ".join(options.without_effect))


def _ready(options: Options, listeners: Listeners, admin: Admin) -> None:
    if not options.secure_serving:
        served = "plaintext h2"
    elif options.cert_path is None:
        served = "TLS, self-signed certificate"
    else:
        served = f"TLS, certificate of {options.cert_path}"
    log.info(
        "serving ext_proc on port %d (%s, %s), health on %d, metrics on %d",
        listeners.ext_proc.port,
        served,
        options.transport,
        listeners.health.port,
        admin.port,
    )
