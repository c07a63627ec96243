# SPDX-License-Identifier: Apache-2.0
"""Places for any topology, for tests that only look at the bootstrap."""

from __future__ import annotations

from epp.local.gateway.places import Address, Places, PoolPlace, address
from epp.manifests.topology import Topology

HOST = "127.0.0.1"


def places_of(topology: Topology) -> Places:
    ports = sorted({listener.port for listener in topology.listeners})
    pools = {
        pool.name: PoolPlace(Address(HOST, 20100 + number), tuple(address(text) for text in pool.endpoints))
        for number, pool in enumerate(topology.pools)
    }
    backends = {
        backend.name: tuple(address(text) for text in backend.endpoints) or (Address("127.0.1.1", 20300 + number),)
        for number, backend in enumerate(topology.backends)
    }
    return Places(
        listeners={port: Address(HOST, 18080 + number) for number, port in enumerate(ports)},
        admin=Address(HOST, 20001),
        gateway=Address(HOST, 20002),
        ratelimit=Address(HOST, 20003) if topology.limits else None,
        pools=pools,
        backends=backends,
    )
