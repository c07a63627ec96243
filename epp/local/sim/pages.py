# SPDX-License-Identifier: Apache-2.0
"""What the metrics pages of all simulated engines have in common: they are fed by the engine, and made of families.

A page is the engine's `Observer`. It counts what its engine's page shows, under the names and labels of that engine,
and ignores the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from epp.local.sim.engine import Engine, SequenceState
from epp.local.sim.instruments import Counter, Family, Gauge, Histogram


@dataclass(frozen=True, slots=True)
class PageConfig:
    """What the page says of the pod. `old_kv_name` writes `vllm:gpu_cache_usage_perc`, as vLLM did before 0.10."""

    model: str
    max_model_len: int
    block_size_tokens: int
    num_blocks: int
    max_loras: int = 0
    old_kv_name: bool = False
    created_s: float = 0.0


class EnginePage(ABC):
    """Families whose names begin with `prefix`, all with `labels`. A subclass adds them in the order of its page."""

    prefix = ""

    def __init__(self, config: PageConfig, labels: Mapping[str, str]) -> None:
        self._config = config
        self._labels = dict(labels)
        self._families: list[Family] = []

    @abstractmethod
    def page(self, engine: Engine, now_s: float) -> bytes:
        """The page's body. `now_s` is wall clock time, for engines that write it."""

    def on_step(self, tokens: int, count: int) -> None:
        """See `Observer`."""
        return

    def on_admitted(self, sequence: SequenceState, queried_tokens: int, hit_tokens: int) -> None:
        """See `Observer`."""
        return

    def on_tokens(self, sequence: SequenceState, first_gap_s: float | None, count: int, step_s: float) -> None:
        """See `Observer`."""
        return

    def on_preempted(self, sequence: SequenceState) -> None:
        """See `Observer`."""
        return

    def on_finished(self, sequence: SequenceState, now_s: float) -> None:
        """See `Observer`."""
        return

    def request_ended(self, reason: str, choices: int, max_tokens: int | None) -> None:
        """One HTTP request's generation ended: `stop`, `length` or `abort`."""
        return

    def http_answered(self, handler: str, duration_s: float) -> None:
        """An answer was sent; `handler` is its path."""
        return

    def _gauge(self, name: str, text: str) -> Gauge:
        family = Gauge(f"{self.prefix}{name}", text, self._labels)
        self._families.append(family)
        return family

    def _counter(self, name: str, text: str, label: str = "", values: tuple[str, ...] = ()) -> Counter:
        label_sets = [{**self._labels, label: value} for value in values] or [self._labels]
        family = Counter(f"{self.prefix}{name}", text, label_sets, self._config.created_s)
        self._families.append(family)
        return family

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Histogram:
        family = Histogram(f"{self.prefix}{name}", text, bounds, [self._labels], self._config.created_s)
        self._families.append(family)
        return family
