# SPDX-License-Identifier: Apache-2.0
"""Endpoints as plugins see them: identities, and columns of numbers.

An `Endpoint` is an immutable identity (one address and port that serves a model). What is known about it lives in
`Columns`, a structure of arrays with one stable row per endpoint, written by `epp.endpoints` alone. A candidate set
is `Endpoints`: row numbers plus a view of the columns. A plugin computes whole arrays; it never loops over endpoints.

`waiting`, `running` and `kv_utilization` are what the endpoint's metrics page said last; what was sent there since is
in `in_flight_requests` and `in_flight_tokens`. Never-scraped endpoints read as idle (0), as in the Go EPP;
`age_s` is then infinite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epp.contract.lora import LoraState, LoraTable
from epp.contract.signals import Signal

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


def format_address(ip: str, port: int) -> str:
    """`ip:port`, with IPv6 in brackets."""
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that serves a model.

    `generation` tells two lives of the same name apart: it changes when an endpoint is removed and added again.
    `row` is its place in the columns while it lives.
    """

    namespace: str
    name: str
    ip: str
    port: int
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rank: int = 0
    row: int = -1
    generation: int = 0

    @property
    def id(self) -> str:
        """`namespace/name`, unique in a pool."""
        return f"{self.namespace}/{self.name}"

    @property
    def address(self) -> str:
        """`ip:port`, as Envoy wants it."""
        return format_address(self.ip, self.port)


class Columns:
    """The pool table's arrays; index is an endpoint's `row`. Shapes are (capacity,), dtype float64, if not said.

    All are views of one array, `table`, so that everything known at a moment is copied at once; write to them in place.

    * waiting, running: requests, as scraped
    * kv_utilization: 0..1, as scraped
    * block_size_tokens, num_blocks: cache configuration as scraped, 0 when unknown
    * scraped_at_s: the clock's time of the last good scrape, -inf when there was none
    * in_flight_requests, in_flight_tokens: leases held now
    * lora_adapters: different LoRA adapters in use (`lora` has names); max_lora_adapters: how many fit, 0 when unknown
    * seen_at_s: the clock's time when a page last said the signal, -inf when none did; shape (len(Signal), capacity)

    `endpoints` says who lives in which row, `unready` which of these rows must not be chosen at the moment.
    """

    NAMES = (
        "waiting",
        "running",
        "kv_utilization",
        "block_size_tokens",
        "num_blocks",
        "scraped_at_s",
        "in_flight_requests",
        "in_flight_tokens",
        "lora_adapters",
        "max_lora_adapters",
    )
    __slots__ = (*NAMES, "_label_cache", "endpoints", "lora", "seen_at_s", "table", "unready")

    waiting: FloatArray
    running: FloatArray
    kv_utilization: FloatArray
    block_size_tokens: FloatArray
    num_blocks: FloatArray
    scraped_at_s: FloatArray
    in_flight_requests: FloatArray
    in_flight_tokens: FloatArray
    lora_adapters: FloatArray
    max_lora_adapters: FloatArray
    seen_at_s: FloatArray
    table: FloatArray

    def __init__(self, capacity: int = 16) -> None:
        self._use(self._unknown(capacity))
        self.lora = LoraTable(capacity)
        self.endpoints: tuple[Endpoint | None, ...] = (None,) * capacity
        self.unready: frozenset[int] = frozenset()
        self._label_cache: dict[str, NDArray[np.object_]] = {}

    @property
    def capacity(self) -> int:
        """How many rows there are, used or not."""
        return len(self.endpoints)

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` rows; rows keep their numbers and values."""
        extra = capacity - self.capacity
        self._use(np.concatenate([self.table, self._unknown(extra)], axis=1))
        self.lora.grow(capacity)
        self.replace_endpoints(self.endpoints + (None,) * extra, self.unready)

    def clear_row(self, row: int) -> None:
        """Forget what is known of `row`; called by the one writer when a new life begins there."""
        self.table[:, row] = self._unknown(1)[:, 0]
        self.lora.set(row, None)

    def set_lora(self, row: int, state: LoraState) -> None:
        """`row` said `state`; called by the one writer."""
        if state is self.lora.states[row]:
            return
        self.lora.set(row, state)
        self.lora_adapters[row] = state.in_use
        self.max_lora_adapters[row] = state.max_adapters

    def replace_endpoints(self, endpoints: tuple[Endpoint | None, ...], unready: frozenset[int] = frozenset()) -> None:
        """Change membership; called by the one writer. Earlier candidate sets keep the tuple they saw."""
        self.endpoints, self.unready = endpoints, unready
        self._label_cache.clear()

    def label(self, key: str) -> NDArray[np.object_]:
        """The value of label `key` for every row, None where absent."""
        column = self._label_cache.get(key)
        if column is None:
            column = np.array([None if e is None else e.labels.get(key) for e in self.endpoints], dtype=np.object_)
            self._label_cache[key] = column
        return column

    def _unknown(self, capacity: int) -> FloatArray:
        """A table of rows of which nothing is known: numbers are 0, times are -inf."""
        table = np.zeros((len(self.NAMES) + len(Signal), capacity))
        table[self.NAMES.index("scraped_at_s")] = -np.inf
        table[len(self.NAMES) :] = -np.inf
        return table

    def _use(self, table: FloatArray) -> None:
        self.table = table
        for at, name in enumerate(self.NAMES):
            setattr(self, name, table[at])
        self.seen_at_s = table[len(self.NAMES) :]


def _column(name: str, doc: str) -> Any:
    def read(self: Endpoints) -> FloatArray:
        values: FloatArray = getattr(self.columns, name)[self.rows]
        return values

    read.__doc__ = doc
    return property(read)


class Endpoints:
    """A candidate set: n endpoints, every property an array of shape (n,) in the same order."""

    __slots__ = ("columns", "identities", "now_s", "rows")

    def __init__(self, columns: Columns, rows: IntArray, now_s: float) -> None:
        self.columns = columns
        # The writer replaces the tuple when membership changes, so this reference stays true for a record.
        self.identities = columns.endpoints
        self.rows = rows
        self.now_s = now_s

    waiting: FloatArray = _column("waiting", "Requests in the endpoint's queue, as scraped.")
    running: FloatArray = _column("running", "Requests the endpoint is working on, as scraped.")
    kv_utilization: FloatArray = _column("kv_utilization", "KV cache in use, 0..1, as scraped.")
    block_size_tokens: FloatArray = _column("block_size_tokens", "Cache block size, 0 when unknown.")
    num_blocks: FloatArray = _column("num_blocks", "Cache size in blocks, 0 when unknown.")
    in_flight_requests: FloatArray = _column("in_flight_requests", "Requests we sent that have not ended.")
    in_flight_tokens: FloatArray = _column("in_flight_tokens", "Uncached prompt tokens of those requests.")
    lora_adapters: FloatArray = _column("lora_adapters", "Different LoRA adapters with requests in flight, as scraped.")
    max_lora_adapters: FloatArray = _column("max_lora_adapters", "How many LoRA adapters fit, 0 when unknown.")

    @property
    def age_s(self) -> FloatArray:
        """Seconds since the last good scrape, inf when there was none."""
        age: FloatArray = self.now_s - self.columns.scraped_at_s[self.rows]
        return age

    def runs_adapter(self, name: str) -> BoolArray:
        """Where the LoRA adapter `name` has requests in the batch."""
        running: BoolArray = self.columns.lora.running(name)[self.rows]
        return running

    def awaits_adapter(self, name: str) -> BoolArray:
        """Where requests for the LoRA adapter `name` wait."""
        waiting: BoolArray = self.columns.lora.waiting(name)[self.rows]
        return waiting

    def signal_age_s(self, signal: Signal) -> FloatArray:
        """Seconds since a page last said `signal`, inf when none did."""
        age: FloatArray = self.now_s - self.columns.seen_at_s[signal, self.rows]
        return age

    def label(self, key: str) -> NDArray[np.object_]:
        """The value of label `key` for each candidate, None where absent."""
        return self.columns.label(key)[self.rows]

    def take(self, by_row: NDArray[Any]) -> NDArray[Any]:
        """Pick this set's values out of an array that is indexed by row (what producers publish)."""
        return by_row[self.rows]

    def where(self, mask: BoolArray) -> Endpoints:
        """The candidates for which `mask` (shape (n,)) is true."""
        return Endpoints(self.columns, self.rows[mask], self.now_s)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Endpoint:
        endpoint = self.identities[int(self.rows[position])]
        if endpoint is None:
            raise IndexError(f"row {int(self.rows[position])} holds no endpoint")
        return endpoint

    def __iter__(self) -> Iterator[Endpoint]:
        return (self[i] for i in range(len(self.rows)))


Clock = Callable[[], float]
"""Monotonic seconds."""
