# SPDX-License-Identifier: Apache-2.0
"""Addresses of model servers that are given by name."""

from __future__ import annotations

import socket
from collections.abc import Callable

from epp.contract.errors import StartError
from epp.local.gateway.places import Address, address

Lookup = Callable[[str], str]


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
