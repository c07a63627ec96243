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
import random
import signal
import time
import uuid
from collections.abc import Callable, Sequence

from epp import __version__
from epp.accesslog import AccessLogs
from epp.config.build import Assembly, assemble
from epp.config.catalog import Catalog, collect
from epp.config.configuration import Configuration
from epp.config.findings import ConfigErrors
from epp.config.load import load_text, read_text
from epp.config.reload import ConfigWatcher
from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Endpoint
from epp.contract.errors import DiscoveryError, EppError
from epp.director import Director
from epp.director.unwatched import Unwatched
from epp.director.unwatched_metrics import UnwatchedCollector
from epp.endpoints.pool import Pool
from epp.observe.log.bridge import bridge
from epp.observe.log.logs import Log, open_log
from epp.observe.metrics.loopwatch import LoopWatch
from epp.observe.recorder import Recorder
from epp.service.admin import Admin
from epp.service.debugpages import PATH as DECISIONS
from epp.service.debugpages import DecisionsPage
from epp.service.flags.options import Options
from epp.service.health import Health
from epp.service.listeners import Listeners, every_interface, open_listeners
from epp.service.sources import source_of
from epp.service.wiring import (
    WATCHED,
    decision_log_of,
    observe,
    plan_of,
    recorded_by,
    scrape_settings_of,
    scraped_reads,
    settings_of,
    watch_of,
)
from epp.signals.poll.scraper import Scraper

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

    def __init__(self, options: Options, lines: Log) -> None:
        self._options = options
        self._clock = time.monotonic
        self._rng = random.Random(options.seed)
        self._pool = Pool(self._clock)
        self._recorder = Recorder(
            lines,
            lambda: self._pool.columns,
            self._clock,
            pool_name=options.pool_name,
            staleness_s=options.metrics_staleness_threshold_s,
            version=__version__,
            later=_later,
        )
        self._unwatched = Unwatched(self._pool, self._recorder, self._clock, _later)
        self._pool.subscribe(self._unwatched)
        self._access_logs = AccessLogs(self._unwatched)
        self._recorder.registry.add(UnwatchedCollector(self._unwatched, self._access_logs.counts))
        self._health = Health(lambda: self._pool.synced, lambda: len(self._pool) > 0)
        self._catalog: Catalog = collect(*options.plugin_dirs)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._assembly: Assembly | None = None
        self._scraper: Scraper | None = None
        self._director: Director | None = None

    async def serve(self) -> int:
        """Start, serve, drain, stop. Raises `EppError` when it cannot start."""
        options = self._options
        self._listen_to_signals()
        _announce(options)
        text, configuration = self._load()
        self._use(configuration)
        director = self._director
        assert director is not None
        await self._discover()
        if self._stop.is_set():
            log.info("stopped before anything listened")
            return 0
        # The collector's walk over all that was loaded takes some 25 ms: before anybody is served.
        gc.collect()
        listeners = await open_listeners(options, director, self._access_logs, self._health, self._clock)
        admin: Admin | None = None
        try:
            self._recorder.decision_log = decision_log_of(options, self._clock)
            admin = Admin(
                options.bind_address or every_interface(),
                options.metrics_port,
                self._recorder.registry,
                self._missing,
                {DECISIONS: DecisionsPage(self._recorder.decisions, self._clock)} if options.debug_endpoints else {},
            )
            self._pool.subscribe(_HealthTold(self._health))
            if options.config_file is not None:
                watcher = ConfigWatcher(options.config_file, self._check, self._use, log, text=text)
                self._tasks.append(asyncio.create_task(watcher.run()))
            if options.watch_loop:
                watch = LoopWatch()
                watch.start()
                self._recorder.registry.add(watch)
            _ready(options, listeners, admin)
            await self._until_told()
            await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            if self._scraper is not None:
                self._scraper.stop()
            await self._close(listeners)
            if admin is not None:
                await asyncio.to_thread(admin.close)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._recorder.flush()
            if self._recorder.decision_log is not None:
                await asyncio.to_thread(self._recorder.decision_log.close)
        log.info("stopped")
        return 0

    def _load(self) -> tuple[str | None, Configuration]:
        options = self._options
        text, source = options.config_text, "--config-text"
        if options.config_file is not None:
            text, source = read_text(options.config_file), str(options.config_file)
        if not text:
            log.info("no configuration was given (--config-file or --config-text): using the built-in one")
            return text, self._check("", "built-in configuration")
        return text, self._check(text, source)

    def _check(self, text: str, source: str) -> Configuration:
        return load_text(text, self._catalog, source=source, strict=self._options.strict)

    def _use(self, configuration: Configuration) -> None:
        """Make `configuration` the one in force; requests that are on their way keep theirs."""
        assembly = assemble(configuration, self._clock, self._options.seed)
        settings = scrape_settings_of(self._options, configuration)
        plan = plan_of(assembly, self._clock, watch_of(self._options, assembly))
        rng = random.Random(self._rng.random())
        record = recorded_by(self._pool, self._unwatched)
        scraper = Scraper(record, scraped_reads(assembly, plan), settings, rng, self._pool.suspect, self._in_flight)
        # Nothing above changed anything: up to here a bad configuration is refused as a whole.
        for warning in configuration.warnings:
            log.warning("configuration %s: %s", configuration.source, warning)
        for note in configuration.notes:
            log.info("configuration %s: %s", configuration.source, note)
        if self._options.response_phase != "full":
            log.info("responses: %s", WATCHED[plan.watch])
        before, self._assembly = self._assembly, assembly
        if before is not None and _discovery_of(before) != _discovery_of(assembly):
            log.warning("configuration %s: another discovery takes effect at the next start", configuration.source)
        for hook in before.endpoint_hooks if before is not None else ():
            self._pool.unsubscribe(hook.object)
        for hook in assembly.endpoint_hooks:
            self._pool.subscribe(hook.object)
        if self._scraper is not None:
            self._pool.unsubscribe(self._scraper)
            self._scraper.stop()
        self._scraper = scraper
        self._pool.subscribe(scraper)
        scraper.start()
        observe(self._recorder, assembly, plan, scraper)
        if self._director is None:
            self._director = Director(
                self._pool,
                plan,
                self._recorder,
                self._unwatched,
                clock=self._clock,
                new_request_id=_request_ids(self._rng),
                settings=settings_of(self._options),
            )
        else:
            self._director.plan = plan
        self._director.arrived = scraper.pace.arrived

    async def _discover(self) -> None:
        assert self._assembly is not None
        source = source_of(self._options, self._assembly)
        if source is None:
            log.warning(
                "there is no source of endpoints, every request gets 503; give --endpoints IP:PORT,... or "
                "--endpoints-file FILE, or file-discovery in the configuration"
            )
            self._pool.apply([])
            return
        first = asyncio.Event()

        def publish(snapshot: Sequence[EndpointSpec]) -> None:
            self._pool.apply(snapshot)
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
        log.info("endpoints found: %d", len(self._pool))

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

    def _in_flight(self, endpoint: Endpoint) -> float:
        return self._pool.columns.in_flight_requests.item(endpoint.row)

    def _missing(self) -> str | None:
        if self._health.draining:
            return "stopping"
        if not self._pool.synced:
            return "endpoints are not known yet"
        return None if len(self._pool) else "there is no endpoint; see --endpoints and --endpoints-file"


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


def _discovery_of(assembly: Assembly) -> object:
    name = assembly.configuration.discovery
    if name is None:
        return None
    instance = assembly.configuration.instance(name)
    return instance.type, instance.parameters


def _later(delay_s: float, tell: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_later(delay_s, tell)


def _request_ids(rng: random.Random) -> Callable[[], str]:
    return lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4))


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
