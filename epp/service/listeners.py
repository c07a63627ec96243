# SPDX-License-Identifier: Apache-2.0
"""The gRPC ports: ext_proc (TLS unless told otherwise) and health (always plaintext), on the chosen transport."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from epp.accesslog import PATH as ACCESS_LOG_PATH
from epp.accesslog import AccessLogs
from epp.contract.endpoints import Clock
from epp.director import Director
from epp.extproc import PATH
from epp.extproc import service as ext_proc_service
from epp.service.flags.options import Options
from epp.service.health import Health
from epp.transport.call import Limits, Listener, Service
from epp.transport.tls import TlsSource

MESSAGE_OVERHEAD_BYTES = 64 * 1024
"""What a message may have around the largest body."""
HEALTH_LIMITS = Limits(message_bytes=64 * 1024, streams=1000, connections=200)


@dataclass(slots=True)
class Listeners:
    """Both ports, from `open` to `close`."""

    ext_proc: Listener
    health: Listener
    access_logs: AccessLogs
    reloads: asyncio.Task[None] | None = None

    async def close(self, grace_s: float) -> None:
        """Tell Envoy to go elsewhere, let open streams finish for up to `grace_s`, stop listening.

        May be cancelled and called again with less grace.
        """
        if self.reloads is not None:
            self.reloads.cancel()
        self.access_logs.stop()
        await self.ext_proc.close(grace_s)
        await self.health.close(0.0)


async def open_listeners(
    options: Options, director: Director, access_logs: AccessLogs, health: Health, clock: Clock
) -> Listeners:
    """Listen on both ports. Raises `StartError` when one is taken or a certificate cannot be used."""
    if options.transport == "grpcio":
        from epp.transport.grpcio import listen
    else:
        from epp.transport.h2 import listen

    host = options.bind_address or every_interface()
    body_bytes = options.max_body_bytes
    limits = Limits(message_bytes=options.grpc_max_recv_msg_bytes or body_bytes + MESSAGE_OVERHEAD_BYTES)
    services: Mapping[str, Service] = {
        PATH: ext_proc_service(director.open, body_bytes),
        ACCESS_LOG_PATH: access_logs.open,
        **health.services(),
    }
    tls = None
    if options.secure_serving:
        tls = TlsSource(options.cert_path, min_version=options.tls_min_version, cipher_suites=options.tls_cipher_suites)
    health_listener = await listen(
        health.services(), host, options.grpc_health_port, tls=None, limits=HEALTH_LIMITS, clock=clock
    )
    try:
        ext_proc = await listen(services, host, options.grpc_port, tls=tls, limits=limits, clock=clock)
    except BaseException:
        await health_listener.close(0.0)
        raise
    listeners = Listeners(ext_proc, health_listener, access_logs)
    if tls is not None and options.cert_path is not None:
        listeners.reloads = asyncio.create_task(tls.watch())
    return listeners


def every_interface() -> str:
    """`::` where the system has IPv6 (it takes IPv4 too), else 0.0.0.0."""
    if socket.has_dualstack_ipv6():
        return "::"
    return "0.0.0.0"
