# SPDX-License-Identifier: Apache-2.0
"""Which TCP ports are free, and which are ours.

Between the look and the use of a port another run of `epp up` could choose it too, and two runs would use each other's
parts. So a run holds the numbers of its ports from before the look to its end (`Ports`). Another program may still take
one in between; then its user says so.
"""

from __future__ import annotations

import errno
import random
import socket
import sys
from collections.abc import Callable, Sequence

from epp.contract.errors import StartError

HOST = "127.0.0.1"
MOST = 65535
# Below the range from which the kernel takes ports for outgoing connections.
_FIRST, _LAST = 10_000, 32_000
_TRIES = 200


def is_free(host: str, port: int) -> bool:
    """Nothing listens there. Raises `StartError` for an address that is not this machine's, or a port not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    return True


def free_port(hosts: Sequence[str], preferred: int | None, rng: random.Random, avoid: Sequence[int] = ()) -> int:
    """A port that is free on all `hosts`: `preferred` if it is, else one chosen at random. Raises `StartError`."""
    return _choose(hosts, preferred, rng, lambda port: port not in avoid and all(is_free(host, port) for host in hosts))


class Ports:
    """Gives ports away, each number once and to one run alone, until `close`. With `usual` false none is preferred.
    With `look` false it only says which they would be: no port is looked at or held."""

    def __init__(self, rng: random.Random, *, usual: bool, look: bool = True) -> None:
        self._rng = rng
        self._usual = usual
        self._look = look
        self._held: dict[int, socket.socket | None] = {}

    def take(self, preferred: int, hosts: Sequence[str] = (HOST,)) -> int:
        """A port that is free on all of `hosts`. Raises `StartError`."""
        if not self._look:
            while preferred in self._held:
                preferred += 1
            self._held[preferred] = None
            return preferred
        return _choose(
            hosts,
            preferred if self._usual else None,
            self._rng,
            lambda port: port not in self._held and self._hold(port, hosts),
        )

    def promise(self, port: int) -> int:
        """This port and no other. Raises `StartError` when it is taken."""
        if port > MOST:
            raise StartError(f"port {port} for a listener: a port is at most {MOST}; choose a lower --port")
        if not self._look:
            self._held[port] = None
        elif port in self._held or not self._hold(port, (HOST,)):
            raise StartError(f"port {port} is taken: free it, or choose another with --port")
        return port

    def close(self) -> None:
        """Hold nothing any more."""
        for held in self._held.values():
            if held is not None:
                held.close()

    def _hold(self, port: int, hosts: Sequence[str]) -> bool:
        """Make the number ours, if it is nobody's and free."""
        # First the number: a look listens for a moment, and must not get in the way of the run that the port is of.
        held = _own(port)
        if held is None:
            return False
        try:
            if all(is_free(host, port) for host in hosts):
                self._held[port] = held
                return True
        finally:
            if port not in self._held:
                held.close()
        return False


def _choose(hosts: Sequence[str], preferred: int | None, rng: random.Random, usable: Callable[[int], bool]) -> int:
    wished = [] if preferred is None else [preferred]
    for port in (*wished, *(rng.randint(_FIRST, _LAST) for _ in range(_TRIES))):
        if usable(port):
            return port
    raise StartError(f"no free port found on {', '.join(hosts)}")


def _own(port: int) -> socket.socket | None:
    """What holds the number while it is open, None if somebody else does. It is a name that the kernel gives to one
    socket at a time, and takes back when the process ends, however that is; names are where ports are, in a network
    namespace. Other systems than Linux have no such names: there a start at the same instant is not noticed."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if sys.platform == "linux":
        try:
            held.bind(f"\0epp-up/port/{port}")
        except OSError as error:
            held.close()
            if error.errno == errno.EADDRINUSE:
                return None
            raise StartError(f"port {port} cannot be held: {error.strerror or error}") from None
    return held
