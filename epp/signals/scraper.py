# SPDX-License-Identifier: Apache-2.0
"""Keeps reading the metrics pages of all endpoints, and tells the pool what they say.

One connection and one timer per endpoint. Polls of different endpoints are spread evenly over the interval, so the
work of a large pool comes as a trickle and not in bursts. Nothing is scraped when nothing needs it.

All calls are on the event loop's thread. Times are seconds of the loop's clock.
"""

from __future__ import annotations

import asyncio
import math
import random
import ssl

from epp.contract.endpoints import Endpoint
from epp.contract.plugins import SCRAPED, Reads
from epp.signals.buffers import BufferPool
from epp.signals.reader import PageReader, PageSink, PageSource
from epp.signals.scan import PageScanner, wanted_fields
from epp.signals.settings import ScrapeSettings
from epp.signals.target import Lost, OpenReader, Reader, Record, ScrapeCounts, ScrapeState, Target, Timers
from epp.signals.tls import tls_context

_GOLDEN_RATIO = (math.sqrt(5.0) - 1.0) / 2.0


class Scraper:
    """Scrapes every endpoint it is told of, from `start` to `stop`. An `EndpointHook`. Raises `ConfigError` when
    certificates that `settings` names cannot be used.

    * record: where samples go
    * reads: what the configuration needs; only that is looked for
    * rng: places the polls in time
    * lost: told when an endpoint refuses or drops a connection to the port that serves requests
    """

    def __init__(
        self, record: Record, reads: Reads, settings: ScrapeSettings, rng: random.Random, lost: Lost | None = None
    ) -> None:
        self.counts = ScrapeCounts()
        self.settings = settings
        self._reads = reads & SCRAPED
        self._record = record
        self._lost = lost or _nobody
        self._rng = rng
        self._phase = rng.random()
        self._targets: dict[tuple[str, int], Target] = {}
        self._timers: Timers | None = None
        self._open_reader: OpenReader | None = None
        self._tls = _tls(settings) if settings.scheme == "https" else None

    @property
    def needed(self) -> bool:
        """Whether there is anything to look for. When not, no endpoint is ever asked."""
        return bool(wanted_fields(self.settings.engine, self._reads))

    def start(self, timers: Timers | None = None, open_reader: OpenReader | None = None) -> None:
        """Begin, with the endpoints known so far. Without arguments: on the running event loop, over the network."""
        self._timers = timers or asyncio.get_running_loop()
        self._open_reader = open_reader or _network_readers(self.settings, self._tls)
        for target in self._targets.values():
            self._launch(target)

    def stop(self) -> None:
        """End all polls and connections, for good."""
        self._timers = None
        for target in self._targets.values():
            target.close()

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """Scrape `endpoint` from now on."""
        if not self.needed:
            return
        scanner = PageScanner(self.settings.engine, self._reads)
        # A metrics port of its own says nothing about the port that requests go to.
        lost = self._lost if self.settings.port in (0, endpoint.port) else _nobody
        target = Target(endpoint, scanner, self._record, self.settings, self.counts, self._rng, lost)
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

    def _launch(self, target: Target) -> None:
        if self._timers is not None and self._open_reader is not None:
            # Multiples of the golden ratio fill the interval evenly however many endpoints come and go.
            self._phase = (self._phase + _GOLDEN_RATIO) % 1.0
            target.launch(self._timers, self._open_reader, self._phase)


def _nobody(_endpoint: Endpoint) -> None:
    """Nobody wants to know."""


def _key(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.id, endpoint.generation


def _tls(settings: ScrapeSettings) -> ssl.SSLContext:
    return tls_context(
        settings.verify_tls, settings.ca_file, client_certificate=(settings.client_cert_file, settings.client_key_file)
    )


def _network_readers(settings: ScrapeSettings, tls: ssl.SSLContext | None) -> OpenReader:
    loop = asyncio.get_running_loop()
    buffers = BufferPool()

    def open_reader(endpoint: Endpoint, sink: PageSink) -> Reader:
        source = PageSource(endpoint.ip, settings.port or endpoint.port, settings.path, tls)
        return PageReader(
            source, sink, loop=loop, buffers=buffers, timeout_s=settings.timeout_s, max_bytes=settings.max_page_bytes
        )

    return open_reader
