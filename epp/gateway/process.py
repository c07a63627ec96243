# SPDX-License-Identifier: Apache-2.0
"""The process, from its options to its last line.

Start: the configuration is checked before anything listens. Reload: requests that come after a good new version see
it. Stop (SIGTERM): health says NOT_SERVING and requests are still answered for --drain-timeout, then Envoy is told to
go (GOAWAY) and open streams may finish for up to `FINISH_S`. A second signal, or SIGINT, skips what is left.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time

from epp import __version__
from epp.admin import Admin
from epp.config.load import read_text
from epp.config.reload import ConfigWatcher
from epp.contract.errors import ConfigError
from epp.contract.metering import Meter
from epp.extproc import MESSAGE_OVERHEAD_BYTES, NAME, PATH, Handler, Services
from epp.gateway.config import read_config
from epp.gateway.counts import Counts
from epp.gateway.handler import Gate, Passage
from epp.gateway.models import Served
from epp.gateway.names import LISTENER_HEADER
from epp.gateway.options import Options
from epp.gateway.refusallog import RefusalLog
from epp.lifecycle import Stop, run_logged
from epp.observe.log.logs import open_log
from epp.observe.metrics.loopwatch import LoopWatch
from epp.observe.metrics.meter import CountingMeter
from epp.observe.metrics.page import MetricsRegistry
from epp.transport.call import Limits, Listener, Metadata
from epp.transport.h2 import listen
from epp.transport.health import Readiness

log = logging.getLogger("epp.gateway")

FINISH_S = 60.0
"""How long open streams may go on after the drain."""


def run(options: Options) -> int:
    """Serve until a signal; returns the exit code. Problems at the start are one log line each, and 1."""
    lines = open_log(encoder=options.log_encoder, verbosity=options.verbosity)
    return run_logged(Process(options).serve, lines, log)


class Process:
    """One process. `serve` is its whole life."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._stop = Stop()
        self._health = Readiness(NAME)

    async def serve(self) -> int:
        """Start, serve, drain, stop. Raises `EppError` when it cannot start."""
        options = self._options
        self._stop.listen()
        log.info("epp gateway %s starts", __version__)
        text = read_text(options.config)
        counts, meter = Counts(), CountingMeter()
        served = compiled(text, str(options.config), meter)
        gate = Gate(served, counts, RefusalLog(time.monotonic))
        registry = MetricsRegistry(counts, meter)
        if options.watch_loop:
            watch = LoopWatch()
            watch.start()
            registry.add(watch)
        listener = await open_listener(options, gate, self._health)
        admin: Admin | None = None
        following = asyncio.create_task(self._follow(gate, text, meter))
        try:
            admin = Admin(options.bind_address, options.metrics_port, registry, self._health.missing)
            log.info(
                "serving ext_proc on port %d (plaintext h2), metrics on %d; %d models",
                listener.port, admin.port, len(served.names),
            )  # fmt: skip
            # What lives now lives for ever: keep the collector from walking it.
            gc.collect()
            gc.freeze()
            await self._stop.asked.wait()
            self._health.drain()
            left_s = self._stop.patience_s(options.drain_timeout_s)
            log.info("stopping: requests are answered for %.0f s more", left_s)
            await self._stop.pause(left_s)
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await self._stop.finish(listener.close, FINISH_S)
            if admin is not None:
                await asyncio.to_thread(admin.close)
        log.info("stopped")
        return 0

    async def _follow(self, gate: Gate, text: str, meter: Meter) -> None:
        def load(text: str, source: str) -> Served:
            return compiled(text, source, meter)

        def use(served: Served) -> None:
            if served.body_limit_bytes != gate.served.body_limit_bytes:
                log.warning("bodyLimitBytes: a higher one counts from the next start on, a lower one from now")
            gate.served = served
            gate.counts.reloads += 1

        await ConfigWatcher(self._options.config, load, use, log, text=text).run()


def compiled(text: str, source: str, meter: Meter) -> Served:
    """The configuration in `text`, ready for use. Raises `EppError`, one line that names `source`."""
    config = read_config(text, source)
    try:
        return Served(config, meter)
    except ConfigError as error:
        raise ConfigError(f"gateway configuration {source}: {error}") from None


async def open_listener(options: Options, gate: Gate, health: Readiness) -> Listener:
    """Listen for Envoy, with health on the same port. Raises `StartError`."""
    body_bytes = gate.served.body_limit_bytes
    streams = Services(body_bytes)

    def handler_for(metadata: Metadata) -> Handler:
        return Passage(gate, metadata.values.get(LISTENER_HEADER))

    services = {PATH: streams.choosing(handler_for), **health.services()}
    limits = Limits(message_bytes=body_bytes + MESSAGE_OVERHEAD_BYTES)
    return await listen(services, options.bind_address, options.port, limits=limits)
