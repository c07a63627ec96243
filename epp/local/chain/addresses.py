# SPDX-License-Identifier: Apache-2.0
"""Ports for the parts: the usual ones where they are free, others where they are not, no port twice; and addresses of
model servers that are given by name."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence

from epp.contract.errors import StartError
from epp.local.gateway.places import Address, address
from epp.local.ports import free_port, is_free

HOST = "127.0.0.1"
_TRIES = 50
Lookup = Callable[[str], str]


class Ports:
    """Gives ports away. With `usual` false none is preferred, so that several runs can start at once: then each
    port is held by a socket that is bound and never listens, which nobody else's choice gets past."""

    def __init__(self, rng: random.Random, *, usual: bool) -> None:
        self._rng = rng
        self._usual = usual
        self._taken: list[int] = []
        self._held: list[socket.socket] = []

    def take(self, preferred: int, hosts: Sequence[str] = (HOST,)) -> int:
        """A port that is free on all of `hosts`. Raises `StartError`."""
        for _ in range(_TRIES):
            port = free_port(hosts, preferred if self._usual else None, self._rng, self._taken)
            self._taken.append(port)
            if self._usual or self._hold(hosts, port):
                return port
        raise StartError(f"no free port found on {', '.join(hosts)}")

    def close(self) -> None:
        """Hold nothing any more."""
        for held in self._held:
            held.close()

    def _hold(self, hosts: Sequence[str], port: int) -> bool:
        """Bind the port for ourselves; false if somebody else was faster."""
        for host in hosts:
            held = socket.socket()
            self._held.append(held)
            try:
                held.bind((host, port))
            except OSError:
                return False
            # Bound alone; from now on our parts may bind it too, and listen.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return True

    def promise(self, port: int) -> int:
        """This port and no other. Raises `StartError` when it is taken."""
        if port > 65535:
            raise StartError(f"port {port} for a listener: a port is at most 65535; choose a lower --port")
        if not is_free(HOST, port):
            raise StartError(f"port {port} is taken: free it, or choose another with --port")
        self._taken.append(port)
        return port

    def here(self, preferred: int) -> Address:
        """An address on loopback."""
        return Address(HOST, self.take(preferred))


def look_up(name: str) -> str:
    """The first address of a host name, of IPv4 if it has one. Raises `StartError`."""
    try:
        infos = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"model server {name}: its address cannot be found: {error.strerror or error}") from None
    infos.sort(key=lambda info: info[0] != socket.AF_INET)
    return str(infos[0][4][0])


def resolved(text: str, lookup: Lookup) -> Address:
    """`HOST:PORT` with the host's IP address: pickers choose among addresses. Raises `StartError`."""
    try:
        found = address(text)
    except ValueError as error:
        raise StartError(f"model server {error}") from None
    return found if found.is_literal else Address(lookup(found.host), found.port)
