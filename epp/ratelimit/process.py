# SPDX-License-Identifier: Apache-2.0
"""The process `epp ratelimit`, from its options to its last line.

Start: everything that can be wrong is found before anything listens; a storage that is away is not wrong. Stop
(SIGTERM): health says NOT_SERVING and calls are answered for --drain-timeout, then Envoy is told to go (GOAWAY), and
what was begun is booked. A second signal, or SIGINT, skips the wait.
"""

from __future__ import annotations

import asyncio
import gc
import logging

from epp import __version__
from epp.admin import Admin
from epp.lifecycle import Stop, run_logged
from epp.observe.log.logs import open_log
from epp.observe.metrics.meter import CountingMeter
from epp.observe.metrics.page import MetricsRegistry
from epp.ratelimit.engine import Engine
from epp.ratelimit.engine import Options as Answering
from epp.ratelimit.ledger import Ledger, OnFailure, Window, open_ledger
from epp.ratelimit.limiter import Limiter
from epp.ratelimit.metrics import ProcessMetrics, Timed
from epp.ratelimit.options import Options
from epp.ratelimit.pages import Rules, pages, rules_of
from epp.ratelimit.reload import Reloader
from epp.ratelimit.service import MESSAGE_BYTES, NAME, PATH, RateLimits
from epp.ratelimit.sources import Loaded, Sources
from epp.transport.call import Limits, Listener
from epp.transport.h2 import listen
from epp.transport.health import Readiness
from epp.transport.sockets import every_interface, shown
from epp.transport.tls import TlsSource

log = logging.getLogger("epp.ratelimit")

FINISH_S = 10.0
"""How long calls under way may take after the drain."""
_LIMITS = Limits(message_bytes=MESSAGE_BYTES)


def run(options: Options) -> int:
    """Serve until a signal; returns the exit code. Problems at the start are one log line each, and 1."""
    lines = open_log(encoder=options.log_encoder, verbosity=options.verbosity)
    return run_logged(Process(options).serve, lines, log)


class Process:
    """One service. `serve` is its whole life."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._sources = Sources(options.config)
        self._rules: Rules = {}
        self._stop = Stop()
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self) -> int:
        """Start, serve, drain, stop. Raises `EppError` when it cannot start."""
        self._stop.listen()
        log.info("epp %s ratelimit starts", __version__)
        digest = await asyncio.to_thread(self._sources.digest)
        loaded = await asyncio.to_thread(self._sources.load)
        registry = MetricsRegistry()
        meter = CountingMeter()
        registry.add(meter)
        ledger = self._ledger(meter)
        answering = Answering(headers=self._options.response_headers, shadow=self._options.shadow)
        self._engine = engine = Engine(ledger, meter=meter, options=answering)
        # The storage is not asked: calls are answered without it as configured, and a restart would not bring it back.
        self._health = Readiness(NAME, lambda: "there are no rules yet" if engine.book is None else None)
        limits = RateLimits(Limiter(engine, waits=self._options.redis is not None))
        reloader = Reloader(self._sources, self._use, digest)
        self._use(loaded)
        registry.add(
            ProcessMetrics(
                limits,
                ledger.state,
                reloader.counts,
                lambda: self._rules,
                ledger.seconds if isinstance(ledger, Timed) else None,
            )
        )
        await self._serve(limits, ledger, registry, reloader)
        log.info("stopped")
        return 0

    async def _serve(self, limits: RateLimits, ledger: Ledger, registry: MetricsRegistry, reloader: Reloader) -> None:
        listener: Listener | None = None
        admin: Admin | None = None
        try:
            await ledger.start()
            listener = await self._listen(limits)
            admin = self._admin(registry, ledger)
            self._tasks.append(asyncio.create_task(reloader.run()))
            self._ready(listener, admin, ledger)
            # What lives now lives for ever: keep the collector from walking it.
            gc.collect()
            gc.freeze()
            await self._stop.asked.wait()
            await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            if listener is not None:
                await self._stop.finish(listener.close, FINISH_S)
            await limits.settle(FINISH_S)
            if admin is not None:
                await asyncio.to_thread(admin.close)
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await ledger.close()

    def _ledger(self, meter: CountingMeter) -> Ledger | Timed:
        options = self._options
        ledger = open_ledger(
            options.redis,
            window=Window(options.window),
            on_failure=OnFailure(options.on_storage_failure),
            meter=meter,
            most_counters=options.most_counters,
            timeout_s=options.storage_timeout_s,
            prefix=options.key_prefix,
        )
        return ledger if options.redis is None else Timed(ledger)

    async def _listen(self, limits: RateLimits) -> Listener:
        options = self._options
        tls = None
        if options.cert_path is not None:
            tls = TlsSource(options.cert_path, client_ca_file=options.client_ca_file)
        services = {PATH: limits.open, **self._health.services()}
        listener = await listen(services, self._host, options.port, tls=tls, limits=_LIMITS)
        if tls is not None:
            self._tasks.append(asyncio.create_task(tls.watch()))
        return listener

    def _admin(self, registry: MetricsRegistry, ledger: Ledger) -> Admin:
        made = pages(lambda: self._rules, ledger.state, self._health.missing)
        return Admin(self._host, self._options.metrics_port, registry, self._health.missing, made)

    @property
    def _host(self) -> str:
        return self._options.bind_address or every_interface()

    def _use(self, loaded: Loaded) -> None:
        """Limit by these rules from now on."""
        again = self._engine.book is not None
        self._rules = rules_of(loaded.book)
        self._engine.install(loaded.book)
        for note in loaded.notes:
            log.warning("%s", note)
        if again:
            log.info("the configuration changed and is in use: %s; counters stay", _told(self._rules))

    def _ready(self, listener: Listener, admin: Admin, ledger: Ledger) -> None:
        options, state = self._options, ledger.state()
        if options.redis_in_argv and "@" in (options.redis or ""):
            log.warning("--redis has a password, which the list of processes shows; give it as REDIS_URL instead")
        served = "plaintext" if options.cert_path is None else f"TLS, certificate of {options.cert_path}"
        if options.client_ca_file is not None:
            served += f", clients of {options.client_ca_file} alone"
        log.info(
            "serving rate limits on %s (%s), pages on %d: %s; counters in %s, %s windows",
            shown(self._host, listener.port),
            served,
            admin.port,
            _told(self._rules),
            state.place,
            state.window.value,
        )

    async def _drain(self) -> None:
        left_s = self._options.drain_timeout_s
        self._health.drain()
        log.info("stopping: calls are answered for %g s more", self._stop.patience_s(left_s))
        await self._stop.pause(left_s)


def _told(rules: Rules) -> str:
    """`3 rules of domain a`, or of several."""
    count = sum(len(limits) for limits in rules.values())
    domains = ", ".join(list(rules)[:5]) + (", ..." if len(rules) > 5 else "")
    return f"{count} rule{'' if count == 1 else 's'} of domain{'' if len(rules) == 1 else 's'} {domains or '(none)'}"
