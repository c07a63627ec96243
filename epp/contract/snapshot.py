# SPDX-License-Identifier: Apache-2.0
"""What was known of the candidates at the moment of a choice, kept after the pool's columns have gone on.

Taking one is on a request's path: a few candidates are picked out of the pool's table, many are copied with the whole
table, which is then the cheaper way. Everything else is done when somebody asks.
"""

from __future__ import annotations

import msgspec

from epp.contract.endpoints import Columns, Endpoints, FloatArray, IntArray
from epp.contract.signals import Signal

MOST_PICKED_OUT = 32
"""Up to so many candidates their columns are picked out one by one."""

SHOWN = ("waiting", "running", "kv_utilization", "in_flight_requests", "in_flight_tokens")
"""The columns that change from moment to moment, by their names in `Columns`."""


class Snapshot(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A copy of `Columns.table` for `endpoints`: shape (signals, n) in their order, or (signals, capacity) `by_row`."""

    endpoints: Endpoints
    table: FloatArray
    by_row: bool

    def column(self, name: str) -> FloatArray:
        """The values of one of `Columns.NAMES`, shape (n,), in the order of `endpoints`."""
        return self._line(Columns.NAMES.index(name))

    def age_s(self, signal: Signal) -> FloatArray:
        """Seconds since a page had said `signal`, inf when none had; shape (n,)."""
        age: FloatArray = self.endpoints.now_s - self._line(len(Columns.NAMES) + signal)
        return age

    def only(self, rows: IntArray) -> Snapshot:
        """The same moment, but of the candidates in `rows` alone; they must be among `endpoints`."""
        if self.by_row:
            table = self.table.take(rows, 1)
        else:
            where = {row: at for at, row in enumerate(self.endpoints.rows.tolist())}
            table = self.table.take([where[row] for row in rows.tolist()], 1)
        return Snapshot(same_moment(self.endpoints, rows), table, False)

    def _line(self, at: int) -> FloatArray:
        line: FloatArray = self.table[at]
        return line.take(self.endpoints.rows) if self.by_row else line


def snapshot(endpoints: Endpoints) -> Snapshot:
    """What is known of `endpoints` now."""
    rows, table = endpoints.rows, endpoints.columns.table
    if len(rows) <= MOST_PICKED_OUT:
        return Snapshot(endpoints, table.take(rows, 1), False)
    return Snapshot(endpoints, table.copy(), True)


def same_moment(endpoints: Endpoints, rows: IntArray) -> Endpoints:
    """Those in `rows` as they were when `endpoints` was made, whoever lives there since."""
    others = Endpoints(endpoints.columns, rows, endpoints.now_s)
    others.identities = endpoints.identities
    return others
