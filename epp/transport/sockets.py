# SPDX-License-Identifier: Apache-2.0
"""The listening socket, and what to say when there is none."""

from __future__ import annotations

import asyncio
import errno
import socket

from epp.contract.errors import StartError

_KEEPALIVE_S = 15
_KEEPALIVE_PROBES = 4
_REMEDIES = {
    errno.EADDRINUSE: "the port is taken; stop the process that has it, or choose another port",
    errno.EACCES: "no right to take this port; choose one of 1024 or above, or grant CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address; use 0.0.0.0 or :: for all of its addresses",
    errno.EAFNOSUPPORT: "this machine has no IPv6; use 0.0.0.0",
}


def shown(host: str, port: int) -> str:
    """`host:port` as people write it, IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(host: str, port: int, error: OSError) -> StartError:
    """The one line for a person who can free the port or choose another."""
    remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return StartError(f"cannot listen on {shown(host, port)}: {remedy}")


async def listening_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket for `host` (an address or a name; `::` and "" take IPv4 too) and `port` (0: any free one).

    Accepted sockets inherit its options: no delay for small writes, and keepalive, which tells within about a minute
    and a quarter that a peer is gone without a word. Raises StartError.
    """
    if not 0 <= port <= 65_535:
        raise StartError(f"cannot listen on {shown(host, port)}: a port is a number from 0 to 65535")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host or "::", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise StartError(f"cannot listen on {shown(host, port)}: {host!r} is no known address ({error})") from error
    family, kind, protocol, _, address = found[0]
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        if host:
            raise cannot_listen(host, port, error) from error
        return await listening_socket("0.0.0.0", port)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", _KEEPALIVE_S),
            ("TCP_KEEPINTVL", _KEEPALIVE_S),
            ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "::" else 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        if not host and error.errno == errno.EADDRNOTAVAIL:
            return await listening_socket("0.0.0.0", port)
        raise cannot_listen(host, port, error) from error
    return sock


def every_interface() -> str:
    """`::` where the system has IPv6 (it takes IPv4 too), else 0.0.0.0."""
    if socket.has_dualstack_ipv6():
        return "::"
    return "0.0.0.0"
