# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters: what an endpoint says it has in use, and who uses a given adapter, as arrays.

Plugins ask "which candidates run adapter X" once per request, for any of thousands of names. So the question is
answered from an index by name, one boolean array over the rows each, which changes when a scrape brings news and
not when a request comes.

An adapter in use has requests in flight. One that is idle is not named, though the endpoint may still hold its weights.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray


class LoraState(msgspec.Struct, frozen=True, gc=False):
    """What one endpoint said.

    * running, waiting: names of adapters with requests in the batch, in the queue. The newer vLLM names every adapter
      in use in both, so they overlap; `in_use` counts each once
    * max_adapters: how many fit into one batch; 0 when the endpoint does not say
    """

    running: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    max_adapters: int = 0

    @property
    def in_use(self) -> int:
        """How many different adapters are running or waiting."""
        return len(self.running | self.waiting)


class LoraTable:
    """The adapters of all rows, by row and by name. Written by the writer of `Columns` alone."""

    __slots__ = ("_nobody", "_running", "_waiting", "states")

    def __init__(self, capacity: int) -> None:
        self.states: list[LoraState | None] = [None] * capacity
        """By row; None where no page said anything."""
        self._running: dict[str, NDArray[np.bool_]] = {}
        self._waiting: dict[str, NDArray[np.bool_]] = {}
        self._nobody = np.zeros(capacity, dtype=np.bool_)

    def running(self, adapter: str) -> NDArray[np.bool_]:
        """The rows that run `adapter`, shape (capacity,). Do not write to it."""
        return self._running.get(adapter, self._nobody)

    def waiting(self, adapter: str) -> NDArray[np.bool_]:
        """The rows where requests for `adapter` wait, shape (capacity,). Do not write to it."""
        return self._waiting.get(adapter, self._nobody)

    def set(self, row: int, state: LoraState | None) -> None:
        """`row` has `state` from now on."""
        old = self.states[row]
        if state is old:
            return
        self.states[row] = state
        old, new = old or LoraState(), state or LoraState()
        for index, before, after in (
            (self._running, old.running, new.running),
            (self._waiting, old.waiting, new.waiting),
        ):
            for adapter in before - after:
                rows = index[adapter]
                rows[row] = False
                if not rows.any():
                    del index[adapter]
            for adapter in after - before:
                index.setdefault(adapter, np.zeros_like(self._nobody))[row] = True

    def grow(self, capacity: int) -> None:
        """Make room for `capacity` rows; rows keep what they have."""
        more = np.zeros(capacity - len(self.states), dtype=np.bool_)
        self.states += [None] * len(more)
        self._nobody = np.concatenate([self._nobody, more])
        for index in (self._running, self._waiting):
            for adapter, rows in index.items():
                index[adapter] = np.concatenate([rows, more])

    def __len__(self) -> int:
        """How many different names are indexed."""
        return len(self._running.keys() | self._waiting.keys())
