# SPDX-License-Identifier: Apache-2.0
"""Rows of the benchmarks that also run alone (`prefix`, `scrape`): their results as lines of the table.

Each runs in a process of its own, so that the memory it measures was nobody's before.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks import prefix, scrape
from benchmarks.rows import BenchmarkError, Row

REFERENCE = "dicts and sets"
HASH, INDEX = "hash", "index"
_SCRAPES = {
    "whole": "100 endpoints, {}, every 50 ms",
    "filtered": "100 endpoints that filter {}, every 50 ms",
    "idle": "100 idle endpoints, {}, every 1 s",
    "large": "1,000 endpoints, {}, as often as the loop allows",
}


def measure_prefix(wanted: Sequence[str]) -> list[Row]:
    """The wanted ones of `hash` and `index`."""
    return [row for row in prefix_rows(_alone(prefix.run)) if row.name in wanted]


def measure_scrape(seconds: float) -> list[Row]:
    """The rows `scrape`."""
    return scrape_rows(_alone(scrape.run, seconds=max(4.0, seconds)))


def prefix_rows(told: dict[str, Any]) -> list[Row]:
    """Time to hash and match one long prompt; memory of one (block, endpoint) entry."""
    case = f"{told['prompt_tokens'] // 1000}k tokens, {told['endpoints']} endpoints, index full"
    ms, dict_ms = told["hash_and_match_ms"], told["dict_hash_and_match_ms"]
    entry, dict_entry = told["bytes_per_entry"], told["dict_bytes_per_entry"]
    return [
        Row(HASH, case, ms, "ms", dict_ms, REFERENCE, told["budget_ms"], details=told),
        Row(INDEX, f"{told['entries']:,} entries, each", entry, "bytes", dict_entry, REFERENCE, told["budget_bytes"]),
    ]


def scrape_rows(told: dict[str, Any]) -> list[Row]:
    """Cores for the whole pool; hold of the loop; time for one page. Raises BenchmarkError when a scrape failed."""
    failed = sum(case["failures"] for case in told["cases"].values())
    if failed:
        raise BenchmarkError(f"{failed:.0f} of the scrapes failed")
    size = f"{told['page_bytes'] // 1000} KB"
    rows = [
        Row("scrape", _SCRAPES[name].format(size), case["cores"], "cores", budget=case["budget_cores"], details=case)
        for name, case in told["cases"].items()
    ]
    large = told["cases"]["large"]
    held = f"longest hold of the loop, {large['endpoints']} endpoints"
    scan_us, parser_us = told["scan_us"], told["prometheus_client_us"]
    return [
        *rows,
        Row("scrape", held, large["hold_longest_ms"], "ms"),
        Row("scrape", f"one page of {size}", scan_us, "us", parser_us, "prometheus_client"),
    ]


def _alone(run: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        try:
            return executor.submit(run, **arguments).result()
        except RuntimeError as error:
            raise BenchmarkError(str(error)) from error
