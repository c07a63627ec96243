# SPDX-License-Identifier: Apache-2.0
"""A simulated pod at an address: its listener, which can be closed for a while and opened again at the same place.

The address is held by a second socket that is bound and never listens, so that connections are refused while the
listener is closed, and nobody else gets the port meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from epp.contract.errors import StartError
from epp.local.sim.hangup import reset
from epp.local.sim.server import Pod, PodConfig, make_server

log = logging.getLogger("epp.local.sim")

_BACKLOG = 4096
FLUSH_S = 0.02
"""Time for an answer that has been written to leave the process."""


class Site:
    """One pod, listening. `port` 0: the system chooses; without a name in `config` it is `sim-<host>-<port>`.

    `end_process` is called with the exit code when a fault ends the process.
    """

    def __init__(
        self,
        config: PodConfig,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        admin: bool = True,
        clock: Callable[[], float] = time.monotonic,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._config = config
        self.host = host
        self.port = port
        self._with_admin = admin
        self._clock = clock
        self._end_process = end_process
        self._holder: socket.socket | None = None
        self._server: asyncio.AbstractServer | None = None
        self._reopening: asyncio.Task[None] | None = None

    pod: Pod
    _web: web.Server

    @property
    def address(self) -> str:
        """`host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Where it is, for clients."""
        return f"http://{self.address}"

    async def open(self) -> Site:
        """Listen. Raises `StartError` when the address cannot be had."""
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self._holder = _bound(infos[0][0], infos[0][4])
            self.port = self._holder.getsockname()[1]
            name = self._config.name or f"sim-{self.host}-{self.port}"
            self.pod = Pod(replace(self._config, name=name), self._clock, self if self._with_admin else None)
            self._web = make_server(self.pod)
            await self._listen()
        except OSError as error:
            self._let_go()
            reason = error.strerror or str(error)
            where = f"{self.host}:{self.port}"
            raise StartError(f"cannot listen on {where}: {reason}; choose another --host or --port") from None
        return self

    async def close(self) -> None:
        """Stop listening; open requests are cut off."""
        if self._reopening is not None:
            self._reopening.cancel()
        if self._server is not None:
            self._server.close()
        self._let_go()
        await self._web.shutdown(0.0)
        self.pod.close()

    async def __aenter__(self) -> Site:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def refuse(self, for_s: float, drop: bool, spare: asyncio.BaseTransport | None) -> None:
        """See `Place`. A second call before the time is over starts it anew."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if drop:
            for connection in list(self._web.connections):
                transport = connection.transport
                if transport is not spare:
                    reset(transport)
        if self._reopening is not None:
            self._reopening.cancel()
        self._reopening = asyncio.get_running_loop().create_task(self._reopen(for_s))

    def exit(self, code: int, after_s: float) -> None:
        """See `Place`."""
        asyncio.get_running_loop().call_later(max(FLUSH_S, after_s), self._end_process, code)

    async def _reopen(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            await self._listen()
        except OSError as error:
            log.error("cannot listen on %s again: %s", self.address, error.strerror or error)

    async def _listen(self) -> None:
        assert self._holder is not None
        listener = _bound(self._holder.family, self._holder.getsockname())
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._web, sock=listener, backlog=_BACKLOG)

    def _let_go(self) -> None:
        if self._holder is not None:
            self._holder.close()
            self._holder = None


def _bound(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock
