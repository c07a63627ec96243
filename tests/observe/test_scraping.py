# SPDX-License-Identifier: Apache-2.0
"""Costs and ages on the metrics page."""

from __future__ import annotations

import math

import numpy as np

from epp.contract.endpoints import Columns, Endpoint
from epp.contract.signals import Signal
from epp.observe.metrics import families
from epp.observe.metrics.families import Family
from epp.observe.metrics.rows import Row
from epp.observe.metrics.scraping import ScrapeFigures, ScrapingCollector

NOW_S = 100.0


def columns_of(*seen_ago_s: dict[Signal, float]) -> Columns:
    """One endpoint each, at every other row; what is not named was never said."""
    columns = Columns(2 * len(seen_ago_s) + 1)
    endpoints: list[Endpoint | None] = [None] * columns.capacity
    for number, ago_s in enumerate(seen_ago_s):
        row = 2 * number + 1
        endpoints[row] = Endpoint("default", f"e{number}", "10.0.0.1", 80, row=row, generation=number)
        for signal, seconds in ago_s.items():
            columns.seen_at_s[signal, row] = NOW_S - seconds
    # A row nobody lives in does not count, whatever is left in it.
    columns.seen_at_s[:, 0] = 1.0
    columns.replace_endpoints(tuple(endpoints))
    return columns


def shown(columns: Columns, figures: ScrapeFigures) -> dict[Family, list[Row]]:
    collector = ScrapingCollector(lambda: columns, lambda: NOW_S, 2.0, "pool")
    collector.figures = lambda: figures
    return dict(collector.families())


def by_label(rows: list[Row], *keys: str) -> dict[tuple[str, ...], float]:
    assert all(labels["name"] == "pool" for labels, _ in rows)
    return {tuple(labels[key] for key in keys): float(value) for labels, value in rows}  # type: ignore[arg-type]


def test_nothing_is_shown_when_nothing_is_scraped() -> None:
    collector = ScrapingCollector(lambda: Columns(1), lambda: NOW_S, 2.0, "pool")
    assert list(collector.families()) == []


def test_ages_are_those_of_the_oldest_and_the_newest_and_stale_ones_are_counted() -> None:
    columns = columns_of(
        {Signal.WAITING: 0.03, Signal.RUNNING: 0.03},
        {Signal.WAITING: 0.01, Signal.RUNNING: 7.5},
        {Signal.WAITING: 2.5},
    )
    told = shown(columns, ScrapeFigures((Signal.WAITING, Signal.RUNNING, Signal.KV_UTILIZATION)))
    assert by_label(told[families.SIGNAL_AGE], "signal", "bound") == {
        ("waiting", "oldest"): 2.5,
        ("waiting", "newest"): 0.01,
        ("running", "oldest"): 7.5,
        ("running", "newest"): 0.03,
    }
    assert by_label(told[families.SIGNAL_STALE], "signal") == {
        ("waiting",): 1.0,
        ("running",): 1.0,
        ("kv_utilization",): 0.0,
    }
    assert by_label(told[families.SIGNAL_MISSING], "signal") == {
        ("waiting",): 0.0,
        ("running",): 1.0,
        ("kv_utilization",): 3.0,
    }


def test_an_idle_endpoint_is_not_stale_before_it_is_asked_again() -> None:
    columns = columns_of({Signal.WAITING: 2.9}, {Signal.WAITING: 3.1})
    told = shown(columns, ScrapeFigures((Signal.WAITING,), idle_interval_s=1.0))
    assert by_label(told[families.SIGNAL_STALE], "signal") == {("waiting",): 1.0}


def test_endpoints_that_must_not_be_chosen_do_not_count() -> None:
    columns = columns_of({Signal.WAITING: 0.5}, {Signal.WAITING: 60.0}, {})
    columns.replace_endpoints(columns.endpoints, frozenset({3, 5}))
    told = shown(columns, ScrapeFigures((Signal.WAITING,)))
    assert by_label(told[families.SIGNAL_AGE], "bound") == {("oldest",): 0.5, ("newest",): 0.5}
    assert by_label(told[families.SIGNAL_STALE], "signal") == {("waiting",): 0.0}
    assert by_label(told[families.SIGNAL_MISSING], "signal") == {("waiting",): 0.0}


def test_an_empty_pool_has_no_ages() -> None:
    told = shown(columns_of(), ScrapeFigures((Signal.WAITING,)))
    assert told[families.SIGNAL_AGE] == []
    assert by_label(told[families.SIGNAL_MISSING], "signal") == {("waiting",): 0.0}


def test_costs() -> None:
    figures = ScrapeFigures((Signal.WAITING,), 0.05, 1.0, True, 1.5, 2e6, 8e7, 12)
    told = shown(columns_of({Signal.WAITING: math.inf}), figures)
    values = {
        families.SCRAPE_INTERVAL: 0.05,
        families.SCRAPE_IDLE: 1.0,
        families.SCRAPE_BUSY: 1.5,
        families.SCRAPE_BYTES: 2e6,
        families.SCRAPE_SAVED_BYTES: 8e7,
        families.SCRAPE_FILTERED: 12.0,
    }
    assert {family: told[family] for family in values} == {f: [({"name": "pool"}, v)] for f, v in values.items()}
    assert np.isfinite(list(values.values())).all()
