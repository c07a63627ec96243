# SPDX-License-Identifier: Apache-2.0
"""Rows of the benchmarks that also run alone: their results as lines of the table."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import scrape
from benchmarks.rows import BenchmarkError, Row


def scrape_rows(seconds: float) -> list[Row]:
    """100 endpoints at 50 ms, and one page."""
    told = scrape.run(seconds=max(4.0, seconds))
    if told["failures"]:
        raise BenchmarkError(f"{told['failures']:.0f} of the scrapes failed")
    case = f"{told['endpoints']} endpoints, {told['page_bytes'] // 1000} KB, every 50 ms"
    page_case = f"one page of {told['page_bytes'] // 1000} KB"
    return [
        Row("scrape", case, told["cores"], "cores", budget=told["budget_cores"], details=told),
        Row("scrape", page_case, told["scan_us"], "us", told["prometheus_client_us"], "prometheus_client"),
    ]
