# SPDX-License-Identifier: Apache-2.0
"""Where every part of a gateway on one machine listens: the one thing its bootstrap needs that no manifest says.

Ports are TCP ports; hosts are IP literals or, for backends alone, names that Envoy resolves. Nothing here is checked
for being free.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """A host without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """The host is an IP address, nothing to resolve."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


def address(text: str) -> Address:
    """`host:port` or `[IPv6]:port`, as topologies write endpoints. Raises ValueError."""
    host, _, port = text.rpartition(":")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        host = ""
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not HOST:PORT with a port of 1 to 65535")
    return Address(host, int(port))


@dataclass(frozen=True, slots=True)
class PoolPlace:
    """A pool: where its endpoint picker takes ext_proc streams, and its pods, real or simulated.

    Envoy connects to whatever the picker names; `pods` is for those who start the picker.
    """

    picker: Address
    pods: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Places:
    """All addresses.

    * listeners: the manifest's listener port -> where Envoy listens for it
    * admin: Envoy's admin interface, on loopback
    * gateway: the process that reads model names (`epp gateway`), plaintext gRPC
    * ratelimit: the rate limit service (`epp ratelimit`), plaintext gRPC; None: the topology has no limits
    * pools: pool name -> its place; backends: backend name -> its endpoints, real or simulated
    * picker_tls: pickers serve TLS; any certificate is taken, as gateways do
    """

    listeners: Mapping[int, Address]
    admin: Address
    gateway: Address
    ratelimit: Address | None
    pools: Mapping[str, PoolPlace]
    backends: Mapping[str, tuple[Address, ...]]
    picker_tls: bool = True
