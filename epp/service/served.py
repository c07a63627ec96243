# SPDX-License-Identifier: Apache-2.0
"""One pool, put together: its table, the configuration in force, its scraper, its counts, its director.

A process serves one pool or many; pools share nothing but the log, the collected plugins and the interpreter. `use`
makes a configuration the one in force, at the start and whenever its file changes. The methods `endpoints`, `gone` and
`models` are what a source of endpoints tells; all of it happens on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epp import __version__
from epp.accesslog import AccessLogs
from epp.config.build import Assembly, assemble
from epp.config.catalog import Catalog
from epp.config.configuration import Configuration
from epp.config.conformance import SOURCE as CONFORMANCE
from epp.config.conformance import conformance_text
from epp.config.load import load_text, read_text
from epp.config.reload import ConfigWatcher
from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Clock, Endpoint
from epp.contract.models import Models
from epp.contract.plugins import Reads
from epp.director import Director
from epp.director.unwatched import Unwatched
from epp.director.unwatched_metrics import LogCollector, UnwatchedCollector
from epp.endpoints.pool import Pool
from epp.extproc import Watch
from epp.observe.decision.ring import DecisionRing
from epp.observe.log.logs import Log
from epp.observe.metrics.meter import CountingMeter
from epp.observe.recorder import Recorder
from epp.service.flags.options import Options
from epp.service.saturation import detector_reads, follow_pace, with_detector
from epp.service.wiring import (
    WATCHED,
    observe,
    plan_of,
    recorded_by,
    scrape_settings_of,
    scraped_reads,
    settings_of,
    watch_of,
)
from epp.signals.poll.common import Common
from epp.signals.poll.scraper import Scraper

log = logging.getLogger("epp.service")


@dataclass(frozen=True, slots=True)
class Among:
    """What a pool gets that is one of many.

    * pool: `namespace/name`, for lines and records
    * configuration: read already, and what is to be said of it is said
    * common: what its scraper shares with the others
    * decisions: where its decisions are kept
    """

    pool: str
    configuration: Configuration
    common: Common
    decisions: DecisionRing


class ServedPool:
    """The pool that `options` describe. Raises `EppError` when its configuration cannot be used.

    * rng: seeds all random choices of the pool
    * among: what it gets where it is one of many
    """

    def __init__(
        self,
        options: Options,
        lines: Log,
        clock: Clock,
        rng: random.Random,
        catalog: Catalog,
        among: Among | None = None,
    ) -> None:
        self.options = options
        self.pool = pool = Pool(clock)
        self.recorder = Recorder(
            lines,
            lambda: pool.columns,
            clock,
            pool_name=options.pool_name,
            staleness_s=options.metrics_staleness_threshold_s,
            version=__version__,
            later=_later,
            pool=among.pool if among is not None else "",
            decisions=among.decisions if among is not None else None,
        )
        self._clock = clock
        self._rng = rng
        self._catalog = catalog
        self._tasks: list[asyncio.Task[None]] = []
        self.unwatched = Unwatched(self.pool, self.recorder, clock, _later)
        self.pool.subscribe(self.unwatched)
        self.recorder.registry.add(UnwatchedCollector(self.unwatched))
        self._meter = CountingMeter()
        self.recorder.registry.add(self._meter)
        self.scraper: Scraper | None = None
        self._common = among.common if among is not None else None
        self._quiet = among is not None
        if among is not None:
            self.assembly = self.use(among.configuration)
            return
        self.access_logs = AccessLogs(self.unwatched)
        self.recorder.registry.add(LogCollector(self.access_logs.counts))
        self._text, configuration = self._load()
        self.assembly = self.use(configuration)

    def watch_configuration(self) -> None:
        """From now on, follow the configuration's file."""
        if self.options.config_file is not None:
            watcher = ConfigWatcher(self.options.config_file, self.check, self.use, log, text=self._text)
            self._tasks.append(asyncio.create_task(watcher.run()))

    async def stop(self) -> None:
        """End what runs for this pool; what was counted is told."""
        for task in self._tasks:
            task.cancel()
        if self.scraper is not None:
            self.scraper.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.recorder.flush()

    @property
    def in_flight(self) -> float:
        """Requests that were routed and have not ended."""
        return float(self.pool.columns.in_flight_requests.sum())

    def let_go(self) -> None:
        """After `stop`, for a pool that will never be asked again: what it holds is given back at once, without
        waiting for the collector, which does not look at what has lived since the start. Streams that are open go on;
        they keep what they need."""
        self.pool.apply(())
        self.pool.end()
        self.recorder.let_go()
        for name in ("director", "assembly", "scraper"):
            vars(self).pop(name, None)

    def endpoints(self, snapshot: Sequence[EndpointSpec]) -> None:
        """These are the endpoints now."""
        self.pool.apply(snapshot)

    def gone(self) -> None:
        """There is no such pool any more: nothing is known of its endpoints."""
        self.pool.forget()

    def models(self, models: Models) -> None:
        """This is what is said of models now; requests that are on their way keep what they began with."""
        self.director.models = models

    def check(self, text: str, source: str) -> Configuration:
        """Read a configuration. Raises `ConfigErrors`."""
        return load_text(text, self._catalog, source=source, strict=self.options.strict)

    def use(self, configuration: Configuration) -> Assembly:
        """Make `configuration` the one in force; requests that are on their way keep theirs."""
        assembly = assemble(configuration, self._clock, self.options.seed, self._meter)
        settings = scrape_settings_of(self.options, configuration)
        plan = plan_of(assembly, self._clock, watch_of(self.options, assembly))
        plan = with_detector(plan, assembly, self.options, self._clock)
        rng = random.Random(self._rng.random())
        record = recorded_by(self.pool, self.unwatched)
        reads = detector_reads(plan, scraped_reads(assembly, plan))
        scraper = Scraper(record, reads, settings, rng, self.pool.suspect, self._in_flight_at, self._common)
        # Nothing above changed anything: up to here a bad configuration is refused as a whole.
        if not self._quiet:
            tell_notes(configuration)
            if self.options.response_phase != "full":
                log.info("responses: %s", WATCHED[plan.watch])
            if plan.follows_ends and plan.watch is not Watch.BODY:
                log.warning(
                    "plugins want the end of each answer (%s), --response-phase=%s does not follow answers to it: what "
                    "they count is not complete; set it to auto or full",
                    ", ".join(assembly.configuration.readers(Reads.RESPONSE_BODY)),
                    self.options.response_phase,
                )
        if self.scraper is None:
            self.director = Director(
                self.pool,
                plan,
                self.recorder,
                self.unwatched,
                clock=self._clock,
                new_request_id=_request_ids(self._rng),
                settings=settings_of(self.options),
                rng=random.Random(self._rng.random()),
            )
        else:
            self._replace(self.assembly, assembly, self.scraper)
            self.director.plan = plan
        for hook in assembly.endpoint_hooks:
            self.pool.subscribe(hook.object)
        self.assembly, self.scraper = assembly, scraper
        self.pool.subscribe(scraper)
        scraper.start()
        observe(self.recorder, assembly, plan, scraper)
        follow_pace(plan, scraper)
        self.director.arrived = scraper.pace.arrived
        return assembly

    def _load(self) -> tuple[str | None, Configuration]:
        options = self.options
        text, source = options.config_text, "--config-text"
        if options.config_file is not None:
            text, source = read_text(options.config_file), str(options.config_file)
        if options.conformance:
            log.warning(
                "conformance mode: clients choose endpoints with the header test-epp-endpoint-selection, and responses "
                "name endpoints; if this is no test of a gateway, give a configuration or --conformance=off"
            )
            return text, self.check(conformance_text(options.pool_name), CONFORMANCE)
        if not text:
            log.info("no configuration was given (--config-file or --config-text): using the built-in one")
            return text, self.check("", "built-in configuration")
        return text, self.check(text, source)

    def _replace(self, before: Assembly, assembly: Assembly, scraper: Scraper) -> None:
        """Let go of what the configuration that was in force had."""
        if _discovery_of(before) != _discovery_of(assembly):
            source = assembly.configuration.source
            log.warning("configuration %s: another discovery takes effect at the next start", source)
        for hook in before.endpoint_hooks:
            self.pool.unsubscribe(hook.object)
        self.pool.unsubscribe(scraper)
        scraper.stop()

    def _in_flight_at(self, endpoint: Endpoint) -> float:
        return self.pool.columns.in_flight_requests.item(endpoint.row)


def tell_notes(configuration: Configuration) -> None:
    """Log what a configuration has to say of itself."""
    for warning in configuration.warnings:
        log.warning("configuration %s: %s", configuration.source, warning)
    for note in configuration.notes:
        log.info("configuration %s: %s", configuration.source, note)


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
