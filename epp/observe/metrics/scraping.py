# SPDX-License-Identifier: Apache-2.0
"""What reading the endpoints' metrics pages costs, and how old each signal is, computed when somebody scrapes.

Ages are of the pool, not of single endpoints: the oldest and the newest, and how many endpoints are stale or have never
said a signal. Endpoints that must not be chosen do not count. Scorers named by the Go EPP go on with the last value of
a stale endpoint, so this is where it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from epp.contract.endpoints import Clock, Columns
from epp.contract.signals import Signal
from epp.observe.metrics import families
from epp.observe.metrics.families import Family
from epp.observe.metrics.rows import FamilyCollector, Row


@dataclass(frozen=True, slots=True)
class ScrapeFigures:
    """How scraping goes.

    * signals: those that the configuration reads
    * interval_s: between two polls of one endpoint while requests are routed, idle_interval_s: when idle
    * idle: whether the slow pace is in force
    * busy_s: of the event loop, spent on reading since the start
    * page_bytes, saved_bytes: received, and by how much more whole pages would have been
    * filtered: endpoints that are asked for the families in use alone
    """

    signals: Sequence[Signal] = ()
    interval_s: float = 0.0
    idle_interval_s: float = 0.0
    idle: bool = False
    busy_s: float = 0.0
    page_bytes: float = 0.0
    saved_bytes: float = 0.0
    filtered: int = 0


class ScrapingCollector(FamilyCollector):
    """Costs and ages. `figures` is to be set to what gives the figures, from any thread; nothing is shown before.

    * columns, clock: as for `PoolCollector`
    * staleness_s: a signal is stale that was not said for longer, the idle interval added
    """

    def __init__(self, columns: Callable[[], Columns], clock: Clock, staleness_s: float, pool_name: str) -> None:
        self.figures: Callable[[], ScrapeFigures] = ScrapeFigures
        self._columns = columns
        self._clock = clock
        self._staleness_s = staleness_s
        self._labels = {"name": pool_name}

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Nothing when nothing is scraped."""
        figures = self.figures()
        if not figures.signals:
            return
        for family, value in (
            (families.SCRAPE_INTERVAL, figures.interval_s),
            (families.SCRAPE_IDLE, float(figures.idle)),
            (families.SCRAPE_BUSY, figures.busy_s),
            (families.SCRAPE_BYTES, figures.page_bytes),
            (families.SCRAPE_SAVED_BYTES, figures.saved_bytes),
            (families.SCRAPE_FILTERED, float(figures.filtered)),
        ):
            yield family, [(self._labels, value)]
        yield from self._ages(figures)

    def _ages(self, figures: ScrapeFigures) -> Iterator[tuple[Family, list[Row]]]:
        table = self._columns()
        endpoints = table.endpoints
        unready = table.unready
        live = np.flatnonzero([endpoint is not None and row not in unready for row, endpoint in enumerate(endpoints)])
        age_s = self._clock() - table.seen_at_s[:, live]
        ages: list[Row] = []
        stale: list[Row] = []
        missing: list[Row] = []
        for signal in figures.signals:
            labels = {**self._labels, "signal": signal.name.lower()}
            said = age_s[signal][np.isfinite(age_s[signal])]
            if len(said):
                ages.append(({**labels, "bound": "oldest"}, round(float(said.max()), 3)))
                ages.append(({**labels, "bound": "newest"}, round(float(said.min()), 3)))
            old = np.count_nonzero(said > self._staleness_s + figures.idle_interval_s)
            stale.append((labels, float(old)))
            missing.append((labels, float(len(live) - len(said))))
        yield families.SIGNAL_AGE, ages
        yield families.SIGNAL_STALE, stale
        yield families.SIGNAL_MISSING, missing
