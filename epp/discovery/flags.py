# SPDX-License-Identifier: Apache-2.0
"""Endpoints given on the command line: `IP:PORT,[IPv6]:PORT,...`, named `default/<ip>-<port>`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from epp.contract.discovery import EndpointSpec, Publish
from epp.contract.errors import DiscoveryError, UsageError
from epp.discovery.address import name_part, parse_ip, parse_port


def parse_endpoints(text: str) -> tuple[EndpointSpec, ...]:
    """The endpoints in a flag's value; an empty one means none. Raises `UsageError`."""
    specs: dict[str, EndpointSpec] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            spec = _parse_one(part)
        except DiscoveryError as error:
            raise UsageError(f"--endpoints: {part!r}: {error}") from None
        if spec.id in specs:
            raise UsageError(f"--endpoints: {part!r} is listed twice")
        specs[spec.id] = spec
    return tuple(specs.values())


def _parse_one(part: str) -> EndpointSpec:
    host, colon, port_text = part.rpartition(":")
    if not colon or host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise DiscoveryError("write IP:PORT, or [IPv6]:PORT")
    ip = parse_ip(host[1:-1] if host.startswith("[") else host)
    port = parse_port(port_text)
    return EndpointSpec(namespace="default", name=f"{name_part(ip)}-{port}", ip=ip, port=port)


class StaticDiscovery:
    """Endpoints that never change. A `Discovery`."""

    def __init__(self, specs: Sequence[EndpointSpec]) -> None:
        self._specs = tuple(specs)

    async def run(self, publish: Publish) -> None:
        """Publish once, then wait to be cancelled."""
        publish(self._specs)
        await asyncio.Event().wait()
