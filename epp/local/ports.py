# SPDX-License-Identifier: Apache-2.0
"""Which TCP ports are free. Somebody else may take a port between the answer and its use; then its user says so."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Sequence

from epp.contract.errors import StartError

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
    wished = [] if preferred is None else [preferred]
    for port in (*wished, *(rng.randint(_FIRST, _LAST) for _ in range(_TRIES))):
        if port not in avoid and all(is_free(host, port) for host in hosts):
            return port
    raise StartError(f"no free port found on {', '.join(hosts)}")
