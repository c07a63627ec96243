# SPDX-License-Identifier: Apache-2.0
"""Addresses and ports as people write them, checked. Host names are refused: Envoy is told addresses."""

from __future__ import annotations

import ipaddress
import re

from epp.contract.errors import DiscoveryError

SHOWN_CHARACTERS = 80
"""What a message shows of a value."""
_PORT = re.compile(r"[0-9]{1,5}")


def parse_ip(text: str) -> str:
    """The IPv4 or IPv6 address in its usual form. Raises `DiscoveryError`."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        bare = text.removeprefix("[").removesuffix("]")
        remedy = "leave the brackets out" if bare != text else "host names are not looked up"
        raise DiscoveryError(f"address {text[:SHOWN_CHARACTERS]!r} is no IPv4 or IPv6 address; {remedy}") from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        zone = "%" + address.scope_id[:SHOWN_CHARACTERS]
        raise DiscoveryError(f"address {text[:SHOWN_CHARACTERS]!r} has a zone; leave {zone!r} out")
    return str(address)


def parse_port(text: str) -> int:
    """A port, 1 to 65535. Raises `DiscoveryError`."""
    port = int(text) if _PORT.fullmatch(text) else 0
    if not 1 <= port <= 65535:
        raise DiscoveryError(f"port {text[:SHOWN_CHARACTERS]!r} must be a number from 1 to 65535")
    return port


def name_part(ip: str) -> str:
    """An address as part of an object's name: IPv4 as it is, IPv6 as eight groups with dashes (`0-0-0-0-0-0-0-1`)."""
    address = ipaddress.ip_address(ip)
    if address.version == 4:
        return ip
    return "-".join(
        f"{high << 8 | low:x}" for high, low in zip(address.packed[0::2], address.packed[1::2], strict=True)
    )
