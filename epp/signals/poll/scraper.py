# SPDX-License-Identifier: Apache-2.0
"""Keeps reading the metrics pages of all endpoints, and tells the pool what they say.

One connection and one timer per endpoint. Polls of different endpoints are spread evenly over the interval, so the
work of a large pool comes as a trickle and not in bursts; how often is decided in `pace`, how much at a time in
`turns`. Nothing is scraped when nothing needs it.

All calls are on the event loop's thread. Times are seconds of the loop's clock.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random

from epp.contract.endpoints import Endpoint
from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Signal
from epp.observe.metrics.scraping import ScrapeFigures
from epp.signals.engine.scan import PageScanner, anything_wanted
from epp.signals.poll.buffers import BufferPool
from epp.signals.poll.common import Common
from epp.signals.poll.pace import Pace
from epp.signals.poll.reader import PageReader, PageSink, PageSource
from epp.signals.poll.target import (
    InFlight,
    Lost,
    OpenReader,
    Reader,
    Record,
    ScrapeCounts,
    ScrapeState,
    Surroundings,
    Target,
)
from epp.signals.poll.timers import Timers
from epp.signals.poll.tls import PageTls, page_tls
from epp.signals.poll.turns import Turns
from epp.signals.settings import ScrapeSettings

log = logging.getLogger("epp.signals")

_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0
_SIGNALS = {
    Reads.WAITING: Signal.WAITING,
    Reads.RUNNING: Signal.RUNNING,
    Reads.KV_UTILIZATION: Signal.KV_UTILIZATION,
    Reads.CACHE_CONFIG: Signal.CACHE_CONFIG,
    Reads.LORA: Signal.LORA,
}
# A cost measured over fewer polls may be that of connecting.
_TRUSTED_POLLS = 4096
_TOLD_STRETCH = 1.5


class Scraper:
    """Scrapes every endpoint it is told of, from `start` to `stop`. An `EndpointHook`. Raises `ConfigError` when
    certificates that `settings` names cannot be used.

    * record: where samples go
    * reads: what the configuration needs; only that is looked for
    * rng: places the polls in time
    * lost: told when an endpoint refuses or drops a connection to the port that serves requests
    * in_flight: what an endpoint has of us; it is not idle then
    * common: what it shares with the other scrapers of the loop; without, the loop's share is its own

    `pace.arrived` is to be called when a request arrives, if there is an idle interval.
    """

    def __init__(
        self,
        record: Record,
        reads: Reads,
        settings: ScrapeSettings,
        rng: random.Random,
        lost: Lost | None = None,
        in_flight: InFlight | None = None,
        common: Common | None = None,
    ) -> None:
        self.counts = ScrapeCounts()
        self.settings = settings
        self.pace = Pace(settings.interval_s, settings.idle_interval_s, self._hurry)
        self._common = common or Common(settings.loop_share)
        self.turns = Turns(self._common, self._measured)
        self.turns.endpoints = lambda: len(self._targets)
        self._around = Surroundings(settings, record, in_flight or _nothing, self.pace, self.turns, self.counts, rng)
        self._reads = reads & SCRAPED
        self._lost = lost or _nobody
        self._phase = rng.random()
        self._notes: set[str] = set()
        self._targets: dict[tuple[str, int], Target] = {}
        self._timers: Timers | None = None
        self._open_reader: OpenReader | None = None
        self._tls = tls_of(settings)

    @property
    def needed(self) -> bool:
        """Whether there is anything to look for. When not, no endpoint is ever asked."""
        return anything_wanted(self.settings.engines, self._reads)

    def start(self, timers: Timers | None = None, open_reader: OpenReader | None = None) -> None:
        """Begin, with the endpoints known so far. Without arguments: on the running event loop, over the network."""
        self._timers = timers = timers or asyncio.get_running_loop()
        self._open_reader = open_reader or _network_readers(self.settings, self._tls, self.turns, self._common.buffers)
        self.turns.start(timers)
        self.pace.start(timers)
        for target in self._targets.values():
            self._launch(target)

    def stop(self) -> None:
        """End all polls and connections, for good."""
        self._timers = None
        self.pace.stop()
        self.turns.stop()
        for target in self._targets.values():
            target.close()

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """Scrape `endpoint` from now on."""
        scanner = PageScanner(self.settings.engines, self._reads, endpoint.labels)
        if not scanner.wanted:
            return
        self._tell(self.settings.engines.unknown(endpoint.labels), endpoint)
        # A metrics port of its own says nothing about the port that requests go to.
        lost = self._lost if self.settings.port in (0, endpoint.port) else _nobody
        target = Target(endpoint, scanner, self._around, lost)
        self._targets[_key(endpoint)] = target
        self._launch(target)

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        """Scrape `endpoint` no more."""
        target = self._targets.pop(_key(endpoint), None)
        if target is not None:
            target.close()

    def states(self) -> list[ScrapeState]:
        """How it goes, per endpoint. May be called from another thread."""
        return [target.state for target in list(self._targets.values())]

    def figures(self) -> ScrapeFigures:
        """What it costs, and what it reads. May be called from another thread."""
        counts = self.counts
        return ScrapeFigures(
            signals=[signal for need, signal in _SIGNALS.items() if need in self._reads] if self.needed else (),
            interval_s=self.interval_s,
            idle_interval_s=self.settings.idle_interval_s,
            idle=not self.pace.awake,
            busy_s=self.turns.busy_s,
            page_bytes=float(counts.page_bytes),
            saved_bytes=float(counts.saved_bytes),
            filtered=sum(state.filtered for state in self.states()),
        )

    @property
    def interval_s(self) -> float:
        """Seconds between two polls of one endpoint while requests are routed, as the share of the loop allows."""
        return max(self.settings.interval_s, self.turns.round_s())

    def _hurry(self) -> None:
        for target in list(self._targets.values()):
            target.hurry()

    def _tell(self, note: str, endpoint: Endpoint) -> None:
        if note and note not in self._notes:
            self._notes.add(note)
            log.warning("endpoint %s: %s; others like it are not told of", endpoint.id, note)

    def _measured(self) -> None:
        interval_s, settings = self.interval_s, self.settings
        if (
            self._common.stretch_told
            or self.turns.measured_polls < _TRUSTED_POLLS
            or interval_s < _TOLD_STRETCH * settings.interval_s
        ):
            return
        self._common.stretch_told = True
        log.warning(
            "%d endpoints are read every %.0f ms instead of every %.0f ms: a page takes %.0f us, and reading may take "
            "%.0f%% of the event loop; --metrics-max-loop-share allows more",
            len(self._targets),
            interval_s * 1e3,
            settings.interval_s * 1e3,
            self.turns.cost_s * 1e6,
            settings.loop_share * 100,
        )

    def _launch(self, target: Target) -> None:
        if self._timers is not None and self._open_reader is not None:
            # Multiples of the golden ratio fill the interval evenly however many endpoints come and go.
            self._phase = (self._phase + _GOLDEN_RATIO) % 1.0
            target.launch(self._timers, self._open_reader, self._phase)


def _nobody(_endpoint: Endpoint, _seconds: float) -> None:
    """Nobody wants to know."""


def _nothing(_endpoint: Endpoint) -> float:
    """Nothing is known to be there."""
    return 0.0


def _key(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.id, endpoint.generation


def tls_of(settings: ScrapeSettings) -> PageTls | None:
    """What pages are read with; None for plain HTTP. Raises `ConfigError`."""
    if settings.scheme != "https":
        return None
    return page_tls(
        settings.verify_tls, settings.ca_file, client_certificate=(settings.client_cert_file, settings.client_key_file)
    )


def _network_readers(settings: ScrapeSettings, tls: PageTls | None, turns: Turns, buffers: BufferPool) -> OpenReader:
    loop = asyncio.get_running_loop()

    def open_reader(endpoint: Endpoint, sink: PageSink) -> Reader:
        source = PageSource(endpoint.ip, settings.port or endpoint.port, settings.path, tls)
        return PageReader(
            source,
            sink,
            loop=loop,
            buffers=buffers,
            timeout_s=settings.timeout_s,
            max_bytes=settings.max_page_bytes,
            meter=turns,
        )

    return open_reader
