# SPDX-License-Identifier: Apache-2.0
"""The pool table: who may be chosen, what is known of them, and what we have sent them.

Invariants:
* This class is the only writer of `Columns`.
* An endpoint keeps its row and generation while its name, address and incarnation stay the same; new labels do not
  end a life. Anything else is a removal followed by an addition, with a new generation and zeroed columns.
* An endpoint that is not ready lives on: its row, leases and what is known of it stay, it is still scraped, and hooks
  hear nothing. It is no candidate, and neither `len` nor iteration counts it.
* What arrives late for a past generation (a scrape's result, a lease's end) changes nothing.
* `in_flight_*` of a row is the sum over the open leases of its present generation, so never negative.
* A suspect, an endpoint that refused or dropped a connection a moment ago or hangs, is no candidate while another one
  is there: a dead endpoint looks idle, and without this the ties would all be its.

Everything runs on the event loop's thread and nothing awaits.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Clock, Columns, Endpoint, Endpoints, IntArray
from epp.contract.plugins import EndpointHook
from epp.contract.signals import Sample, Signal
from epp.endpoints.lease import Lease

log = logging.getLogger("epp.endpoints")

SUSPECT_S = 2.0
"""How long a suspicion lasts when nothing confirms or clears it."""


class Pool:
    """Endpoints by row; `len` says how many of them may be chosen. `synced` turns true with the first snapshot, and
    false when the pool is forgotten."""

    def __init__(self, clock: Clock, capacity: int = 16) -> None:
        self.columns = Columns(capacity)
        self.synced = False
        self._clock = clock
        self._live: dict[str, tuple[EndpointSpec, Endpoint]] = {}
        self._free = list(range(capacity - 1, -1, -1))
        self._generations = itertools.count(1)
        self._hooks: list[EndpointHook] = []
        self._rows: IntArray = np.empty(0, dtype=np.int64)
        self._suspects: dict[int, float] = {}
        self._rows_by_ip: dict[str, list[int]] = {}
        self._row_by_address: dict[str, list[int]] = {}
        self._addresses: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Endpoint]:
        return iter([endpoint for spec, endpoint in self._live.values() if spec.ready])

    def subscribe(self, hook: EndpointHook) -> None:
        """Tell `hook` of every change from now on, and of the endpoints there are."""
        self._hooks.append(hook)
        for _, endpoint in self._live.values():
            _told(hook.on_endpoint_added, endpoint)

    def unsubscribe(self, hook: EndpointHook) -> None:
        """Tell `hook` nothing any more."""
        self._hooks.remove(hook)

    def end(self) -> None:
        """Tell nobody anything any more."""
        self._hooks.clear()

    def apply(self, snapshot: Sequence[EndpointSpec]) -> None:
        """Make the pool hold exactly `snapshot`. Of two entries with one id the first counts."""
        wanted: dict[str, EndpointSpec] = {}
        for spec in snapshot:
            wanted.setdefault(spec.id, spec)
        removed, added = [], []
        for key, (spec, endpoint) in list(self._live.items()):
            new = wanted.get(key)
            if new is None or not _same_life(spec, new):
                removed.append(self._remove(key, endpoint))
        identities = list(self.columns.endpoints)
        for endpoint in removed:
            identities[endpoint.row] = None
        for key, spec in wanted.items():
            held = self._live.get(key)
            if held is None:
                endpoint = self._add(key, spec)
                added.append(endpoint)
                identities.extend([None] * (self.columns.capacity - len(identities)))
            elif held[0].labels != spec.labels:
                endpoint = _identity(spec, held[1].row, held[1].generation)
                self._live[key] = (spec, endpoint)
            else:
                self._live[key] = (spec, held[1])
                continue
            identities[endpoint.row] = endpoint
        self._publish(tuple(identities))
        self.synced = True
        for hook in self._hooks:
            for endpoint in removed:
                _told(hook.on_endpoint_removed, endpoint)
            for endpoint in added:
                _told(hook.on_endpoint_added, endpoint)

    def forget(self) -> None:
        """Nothing is known any more, not even that there is no endpoint."""
        self.apply([])
        self.synced = False

    def candidates(self) -> Endpoints:
        """All endpoints that may be chosen, as of now."""
        now_s = self._clock()
        rows = self._trusted(self._rows, now_s) if self._suspects else self._rows
        return Endpoints(self.columns, rows, now_s)

    def subset(self, hints: Iterable[str]) -> Endpoints:
        """The endpoints named by `hints`: `ip`, `ip:port`, `[ip6]:port`, `[ip6]` or a bare `ip6`."""
        rows: dict[int, None] = {}
        for hint in hints:
            text = hint.strip()
            found = self._row_by_address.get(text) or self._rows_by_ip.get(text.strip("[]")) or ()
            rows.update(dict.fromkeys(found))
        found_rows = np.fromiter(rows, dtype=np.int64, count=len(rows))
        now_s = self._clock()
        return Endpoints(self.columns, self._trusted(found_rows, now_s) if self._suspects else found_rows, now_s)

    def has_address(self, address: str) -> bool:
        """Whether an endpoint lives at `address` (`ip:port`), ready or not."""
        return address in self._addresses

    def suspect(self, endpoint: Endpoint, seconds: float = SUSPECT_S) -> None:
        """`endpoint` refused or dropped a connection, or hangs: choose others for `seconds`, or until `record` clears
        it."""
        if self._alive(endpoint):
            self._suspects[endpoint.row] = self._clock() + seconds

    def record(self, endpoint: Endpoint, sample: Sample) -> bool:
        """Write what a scrape said; values the page did not have stay. False when the endpoint is gone."""
        if not self._alive(endpoint):
            return False
        columns, row, now_s = self.columns, endpoint.row, self._clock()
        self._suspects.pop(row, None)
        seen_at_s = columns.seen_at_s
        if sample.waiting is not None:
            columns.waiting[row] = sample.waiting
            seen_at_s[Signal.WAITING, row] = now_s
        if sample.running is not None:
            columns.running[row] = sample.running
            seen_at_s[Signal.RUNNING, row] = now_s
        if sample.kv_utilization is not None:
            columns.kv_utilization[row] = sample.kv_utilization
            seen_at_s[Signal.KV_UTILIZATION, row] = now_s
        if sample.block_size_tokens is not None:
            columns.block_size_tokens[row] = sample.block_size_tokens
            seen_at_s[Signal.CACHE_CONFIG, row] = now_s
        if sample.num_blocks is not None:
            columns.num_blocks[row] = sample.num_blocks
            seen_at_s[Signal.CACHE_CONFIG, row] = now_s
        if sample.lora is not None:
            columns.set_lora(row, sample.lora)
            seen_at_s[Signal.LORA, row] = now_s
        columns.scraped_at_s[row] = now_s
        return True

    def charge(self, endpoint: Endpoint, tokens: float) -> Lease:
        """Book one request with `tokens` uncached prompt tokens on `endpoint` until the lease is released."""
        tokens = float(round(tokens))  # whole numbers add and subtract exactly
        self._book(endpoint, 1.0, tokens)
        return Lease(self._book, endpoint, tokens)

    def _trusted(self, rows: IntArray, now_s: float) -> IntArray:
        """Those of `rows` that are no suspects; all of them when they all are."""
        self._suspects = {row: until_s for row, until_s in self._suspects.items() if until_s > now_s}
        trusted = rows[np.isin(rows, list(self._suspects), invert=True)]
        return trusted if len(trusted) else rows

    def _book(self, endpoint: Endpoint, requests: float, tokens: float) -> None:
        if self._alive(endpoint):
            self.columns.in_flight_requests[endpoint.row] += requests
            self.columns.in_flight_tokens[endpoint.row] += tokens

    def _alive(self, endpoint: Endpoint) -> bool:
        held = self.columns.endpoints[endpoint.row]
        return held is not None and held.generation == endpoint.generation

    def _add(self, key: str, spec: EndpointSpec) -> Endpoint:
        if not self._free:
            capacity = self.columns.capacity
            self.columns.grow(capacity * 2)
            self._free = list(range(capacity * 2 - 1, capacity - 1, -1))
        row = self._free.pop()
        self.columns.clear_row(row)
        endpoint = _identity(spec, row, next(self._generations))
        self._live[key] = (spec, endpoint)
        return endpoint

    def _remove(self, key: str, endpoint: Endpoint) -> Endpoint:
        del self._live[key]
        self._suspects.pop(endpoint.row, None)
        self._free.append(endpoint.row)
        return endpoint

    def _publish(self, identities: tuple[Endpoint | None, ...]) -> None:
        ready = [endpoint for spec, endpoint in self._live.values() if spec.ready]
        unready = frozenset(endpoint.row for spec, endpoint in self._live.values() if not spec.ready)
        self.columns.replace_endpoints(identities, unready)
        self._rows = np.array([endpoint.row for endpoint in ready], dtype=np.int64)
        self._addresses = frozenset(endpoint.address for _, endpoint in self._live.values())
        self._rows_by_ip, self._row_by_address = {}, {}
        for endpoint in ready:
            self._rows_by_ip.setdefault(endpoint.ip, []).append(endpoint.row)
            self._row_by_address.setdefault(endpoint.address, []).append(endpoint.row)


def _same_life(old: EndpointSpec, new: EndpointSpec) -> bool:
    return (old.ip, old.port, old.rank, old.incarnation) == (new.ip, new.port, new.rank, new.incarnation)


def _identity(spec: EndpointSpec, row: int, generation: int) -> Endpoint:
    return Endpoint(spec.namespace, spec.name, spec.ip, spec.port, spec.labels, spec.rank, row, generation)


def _told(tell: Callable[[Endpoint], None], endpoint: Endpoint) -> None:
    try:
        tell(endpoint)
    except Exception as error:
        # One listener's fault must not keep the others, or the pool, from knowing.
        log.error("%s raised on %s: %r", getattr(tell, "__qualname__", tell), endpoint.id, error)
