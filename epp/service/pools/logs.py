# SPDX-License-Identifier: Apache-2.0
"""Envoy's access log, shared out to the pools: an entry tells the end of a request of one of them.

An entry bears no pool's name, and neither does the log's stream: one Envoy logs all its routes into one. What tells is
the address of the endpoint that served the request, and an endpoint is in one pool: one look into a dictionary. Only
an entry without an address, or with one that no pool has (a proxy's on the way, another route's), is offered to the
pools that hold unwatched requests at the moment, and those look for its request id.
"""

from __future__ import annotations

from epp.accesslog import Ended
from epp.contract.endpoints import Endpoint
from epp.director.unwatched import Unwatched


class _Holder:
    """One pool's part; an `EndpointHook`."""

    def __init__(self, unwatched: Unwatched, by_address: dict[str, list[Unwatched]]) -> None:
        self.unwatched = unwatched
        self._by_address = by_address

    def on_endpoint_added(self, endpoint: Endpoint) -> None:
        """Its entries are this pool's."""
        self._by_address.setdefault(endpoint.address, []).append(self.unwatched)

    def on_endpoint_removed(self, endpoint: Endpoint) -> None:
        """Its entries are nobody's any more."""
        holders = self._by_address[endpoint.address]
        holders.remove(self.unwatched)
        if not holders:
            del self._by_address[endpoint.address]


class SharedLog:
    """A sink for all pools. `add` gives the hook to subscribe to a pool's endpoints."""

    def __init__(self) -> None:
        self._by_address: dict[str, list[Unwatched]] = {}
        self._all: dict[Unwatched, None] = {}
        self._streams = 0

    def add(self, unwatched: Unwatched) -> _Holder:
        """From now on `unwatched` is told of its requests."""
        self._all[unwatched] = None
        unwatched.log_streams(self._streams)
        return _Holder(unwatched, self._by_address)

    def remove(self, unwatched: Unwatched) -> None:
        """Forget it."""
        self._all.pop(unwatched, None)

    def ended(self, end: Ended) -> bool:
        """A request ended; whether it was one of ours."""
        holders = self._by_address.get(end.address)
        if holders is not None:
            return any(holder.ended(end) for holder in holders)
        return any(unwatched.ended(end) for unwatched in self._all if len(unwatched))

    def log_streams(self, count: int) -> None:
        """So many logs are connected now."""
        self._streams = count
        for unwatched in self._all:
            unwatched.log_streams(count)
