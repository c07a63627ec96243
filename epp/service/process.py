# SPDX-License-Identifier: Apache-2.0
"""The service, from its options to its last line: puts the rooms together, starts, waits, drains, stops.

Start: everything that can be wrong is checked before anything listens. Stop (SIGTERM): health says NOT_SERVING and
requests are still answered for --drain-timeout, then connections are told to go (GOAWAY) and open streams may finish
for up to `FINISH_S`. A second signal, or SIGINT, skips what is left of both waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import time
from collections.abc import Mapping, Sequence

from epp import __version__
from epp.config.catalog import Catalog, collect
from epp.config.findings import ConfigErrors
from epp.contract.discovery import Discovery, EndpointSpec
from epp.contract.endpoints import Endpoint
from epp.contract.errors import DiscoveryError, EppError
from epp.observe.degraded import Degraded
from epp.observe.log.bridge import bridge
from epp.observe.log.logs import Log, open_log
from epp.observe.metrics.loopwatch import LoopWatch
from epp.service.admin import Admin
from epp.service.cluster import Cluster, access_of, wanted
from epp.service.debugpages import PATH as DECISIONS
from epp.service.debugpages import DecisionsPage
from epp.service.flags.options import Options
from epp.service.health import Health
from epp.service.listeners import Listeners, every_interface, open_listeners
from epp.service.served import ServedPool
from epp.service.sources import source_of
from epp.service.wiring import admin_tls, decision_log_of

log = logging.getLogger("epp.service")

FINISH_S = 60.0
"""How long open streams may go on after the drain."""


def run(options: Options) -> int:
    """Serve until a signal; returns the exit code. Problems at the start are one log line each, and 1."""
    import uvloop

    lines = open_log(encoder=options.log_encoder, verbosity=options.verbosity, times=options.log_time_encoding)
    undo = bridge(lines)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Process(options, lines).serve())
    except ConfigErrors as error:
        for mistake in error.mistakes:
            log.error("configuration %s: %s", error.source, mistake)
        return 1
    except EppError as error:
        log.error("%s", error)
        return 1
    finally:
        undo()
        lines.close()


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
        self._health = Health(lambda: self._served.pool.synced, lambda: len(self._served.pool) > 0, self._active)
        self._catalog: Catalog = collect(*options.plugin_dirs)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> int:
        """Start, serve, drain, stop. Raises `EppError` when it cannot start."""
        options = self._options
        self._listen_to_signals()
        _announce(options)
        self._served = served = ServedPool(options, self._lines, self._clock, self._rng, self._catalog)
        served.recorder.registry.add(self._degraded)
        listeners: Listeners | None = None
        admin: Admin | None = None
        try:
            await self._discover(served)
            if self._stop.is_set():
                log.info("stopped before anything listened")
                return 0
            # The collector's walk over all that was loaded takes some 25 ms: before anybody is served.
            gc.collect()
            listeners = await open_listeners(options, served.director, served.access_logs, self._health, self._clock)
            served.recorder.decision_log = decision_log_of(options, self._clock)
            admin = self._open_admin(served)
            served.pool.subscribe(_HealthTold(self._health))
            served.watch_configuration()
            _ready(options, listeners, admin)
            await self._until_told()
            await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            if listeners is not None:
                await self._close(listeners)
            if admin is not None:
                await asyncio.to_thread(admin.close)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._cluster is not None:
                await self._cluster.close()
            await served.stop()
            if served.recorder.decision_log is not None:
                await asyncio.to_thread(served.recorder.decision_log.close)
        log.info("stopped")
        return 0

    def _open_admin(self, served: ServedPool) -> Admin:
        options, recorder = self._options, served.recorder
        if options.watch_loop:
            watch = LoopWatch()
            watch.start()
            recorder.registry.add(watch)
        return Admin(
            options.bind_address or every_interface(),
            options.metrics_port,
            recorder.registry,
            self._missing,
            {DECISIONS: DecisionsPage(recorder.decisions, self._clock)} if options.debug_endpoints else {},
            review=self._cluster.review() if self._cluster is not None else None,
            tls=admin_tls(options),
        )

    async def _discover(self, served: ServedPool) -> None:
        source = source_of(self._options, served.assembly)
        if source is not None:
            return await self._publish(source, served)
        access = access_of(self._options, self._environ) if wanted(self._options) else None
        if access is not None:
            # Nothing waits for the API server: until it has answered we are not ready, which health says.
            rng = random.Random(self._rng.random())
            self._cluster = Cluster(access, self._options, self._degraded.tell, self._clock, rng)
            self._cluster.follow(served, self._health.changed)
            self._cluster.contend(self._health.changed)
            return None
        log.warning(
            "there is no source of endpoints, every request gets 503; give --endpoints IP:PORT,... or "
            "--endpoints-file FILE, or file-discovery in the configuration, or --pool-name in a Kubernetes cluster"
        )
        return served.endpoints([])

    async def _publish(self, source: Discovery, served: ServedPool) -> None:
        first = asyncio.Event()

        def publish(snapshot: Sequence[EndpointSpec]) -> None:
            served.endpoints(snapshot)
            first.set()

        task = asyncio.create_task(source.run(publish))
        self._tasks.append(task)
        events = [asyncio.create_task(event.wait()) for event in (first, self._stop)]
        await asyncio.wait((task, *events), return_when=asyncio.FIRST_COMPLETED)
        for waiting in events:
            waiting.cancel()
        if task.done() and not first.is_set():
            task.result()
            raise DiscoveryError("the source of endpoints ended without telling any; it must run until it is cancelled")
        task.add_done_callback(_source_ended)
        log.info("endpoints found: %d", len(served.pool))

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._told, False)
        loop.add_signal_handler(signal.SIGINT, self._told, True)

    async def _until_told(self) -> None:
        # What lives now lives for ever: keep the collector from walking it.
        gc.freeze()
        await self._stop.wait()

    def _told(self, hurry: bool) -> None:
        if hurry or self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _drain(self) -> None:
        self._health.drain()
        if self._cluster is not None:
            self._tasks.append(asyncio.create_task(self._cluster.give_up_lease()))
        wait_s = 0.0 if self._hurry.is_set() else self._options.drain_timeout_s
        log.info("stopping: requests are answered for %.0f s more", wait_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), wait_s)

    async def _close(self, listeners: Listeners) -> None:
        """Let open streams finish, until somebody is in a hurry."""
        finishing = asyncio.create_task(listeners.close(FINISH_S))
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((finishing, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if finishing.done():
            return finishing.result()
        finishing.cancel()
        await asyncio.wait((finishing,))
        return await listeners.close(0.0)

    def _missing(self) -> str | None:
        if self._health.draining:
            return "stopping"
        if not self._active():
            return "standing by: another replica is active"
        if self._served.pool.synced and len(self._served.pool):
            return None
        missing = "there is no endpoint" if self._served.pool.synced else "endpoints are not known yet"
        return "; ".join((missing, *self._degraded.lines()))

    def _active(self) -> bool:
        return self._cluster is None or self._cluster.active


class _HealthTold:
    """Lets health watchers hear of endpoints that come and go."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        self._health.changed()

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        self._health.changed()


def _source_ended(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        error = task.exception()
        log.error("the source of endpoints %s; its last endpoints are kept", f"failed: {error!r}" if error else "ended")


def _announce(options: Options) -> None:
    pool = f" for pool {options.pool_namespace}/{options.pool_name}" if options.pool_name else ""
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
