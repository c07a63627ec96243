# SPDX-License-Identifier: Apache-2.0
"""The gRPC ports: ext_proc (TLS unless told otherwise) and health (always plaintext), on the chosen transport.

With many pools ext_proc may be on further ports, which come and go with the pools that ask for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Any

from epp.accesslog import PATH as ACCESS_LOG_PATH
from epp.contract.endpoints import Clock
from epp.contract.errors import EppError
from epp.extproc import MESSAGE_OVERHEAD_BYTES, PATH, Services
from epp.observe.degraded import Tell
from epp.service.flags.options import Options
from epp.service.health import Health
from epp.service.serving import Serving
from epp.transport.call import Limits, Listener, Service
from epp.transport.sockets import every_interface
from epp.transport.tls import TlsSource

log = logging.getLogger("epp.service")

HEALTH_LIMITS = Limits(message_bytes=64 * 1024, streams=1000, connections=200)
PARTING_S = 60.0
"""How long streams on a port that nobody asks for any more may go on."""

_Listen = Callable[[int], Awaitable[Listener]]


class Listeners:
    """All ports, from `open_listeners` to `close`."""

    def __init__(self, ext_proc: Listener, health: Listener, serving: Serving, listen: _Listen) -> None:
        self.ext_proc = ext_proc
        self.health = health
        self.reloads: asyncio.Task[None] | None = None
        self._serving = serving
        self._listen = listen
        self._more: dict[int, Listener] = {}
        self._parting: set[asyncio.Task[None]] = set()

    async def listen_also(self, ports: Set[int], tell: Tell) -> None:
        """Serve ext_proc on `ports` besides, and on no others; `tell` is told of those that cannot be had."""
        ports = ports - {self.ext_proc.port, self.health.port}
        for port in [port for port in self._more if port not in ports]:
            log.info("port %d is asked for by no pool any more", port)
            task = asyncio.create_task(self._more.pop(port).close(PARTING_S))
            self._parting.add(task)
            task.add_done_callback(self._parting.discard)
        for port in sorted(ports - self._more.keys()):
            try:
                self._more[port] = await self._listen(port)
            except EppError as error:
                tell(f"port-{port}", str(error))
            else:
                tell(f"port-{port}", None)
                log.info("serving ext_proc on port %d too", port)

    async def close(self, grace_s: float) -> None:
        """Tell Envoy to go elsewhere, let open streams finish for up to `grace_s`, stop listening.

        May be cancelled and called again with less grace.
        """
        if self.reloads is not None:
            self.reloads.cancel()
        self._serving.access_logs.stop()
        for task in self._parting:
            task.cancel()
        await asyncio.gather(*[listener.close(grace_s) for listener in (self.ext_proc, *self._more.values())])
        await self.health.close(0.0)


async def open_listeners(options: Options, serving: Serving, health: Health, clock: Clock) -> Listeners:
    """Listen on both ports. Raises `StartError` when one is taken or a certificate cannot be used."""
    listen: Any
    if options.transport == "grpcio":
        from epp.transport.grpcio import listen
    else:
        from epp.transport.h2 import listen

    host = options.bind_address or every_interface()
    body_bytes = options.max_body_bytes
    limits = Limits(message_bytes=options.grpc_max_recv_msg_bytes or body_bytes + MESSAGE_OVERHEAD_BYTES)
    streams = Services(body_bytes)
    tls = None
    if options.secure_serving:
        tls = TlsSource(options.cert_path, min_version=options.tls_min_version, cipher_suites=options.tls_cipher_suites)

    async def listen_on(port: int) -> Listener:
        services: Mapping[str, Service] = {
            PATH: serving.ext_proc(streams, port),
            ACCESS_LOG_PATH: serving.access_logs.open,
            **health.services(),
        }
        listener: Listener = await listen(services, host, port, tls=tls, limits=limits, clock=clock)
        return listener

    health_listener = await listen(
        health.services(), host, options.grpc_health_port, tls=None, limits=HEALTH_LIMITS, clock=clock
    )
    try:
        ext_proc = await listen_on(options.grpc_port)
    except BaseException:
        await health_listener.close(0.0)
        raise
    listeners = Listeners(ext_proc, health_listener, serving, listen_on)
    if tls is not None and options.cert_path is not None:
        listeners.reloads = asyncio.create_task(tls.watch())
    return listeners
