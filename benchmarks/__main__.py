# SPDX-License-Identifier: Apache-2.0
"""`python -m benchmarks`: measure, print the table, say whether the budgets hold.

Exit code 0 also when a budget does not hold: the machine may be busy. 1 when something could not be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import decision, gateway, memory, modules, phases, proxied, ratelimit, report, start
from benchmarks.rows import BenchmarkError, Row
from epp.contract.errors import EppError

NOTE = (
    "CPU and times are medians; ours and the reference take turns. Scraping runs every 10 s while requests are "
    "measured, and has its own row."
)
Measure = Callable[[Path, Sequence[str], float], list[Row]]

# Processes first: their children start from a parent that is still small.
STEPS: tuple[tuple[tuple[str, ...], Measure], ...] = (
    (("request", "chunk"), lambda folder, wanted, seconds: asyncio.run(proxied.measure(folder, wanted, seconds))),
    (("phase",), lambda folder, wanted, seconds: asyncio.run(phases.measure(folder, seconds))),
    (("ratelimit",), lambda folder, wanted, seconds: asyncio.run(ratelimit.measure(folder, seconds))),
    (("gateway",), lambda folder, wanted, seconds: asyncio.run(gateway.measure(folder, seconds))),
    (("start",), lambda folder, wanted, seconds: asyncio.run(start.measure(folder))),
    (("memory",), lambda folder, wanted, seconds: asyncio.run(memory.measure(folder))),
    (("decision",), lambda folder, wanted, seconds: decision.run()),
    (("hash", "index"), lambda folder, wanted, seconds: modules.measure_prefix(wanted)),
    (("scrape",), lambda folder, wanted, seconds: modules.measure_scrape(seconds)),
)
NAMES = tuple(name for names, _ in STEPS for name in names)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = _arguments(argv)
    began_s = time.monotonic()
    rows: list[Row] = []
    failures: list[str] = []
    for names, measure in STEPS:
        wanted = [name for name in names if name in options.rows]
        if not wanted:
            continue
        _progress(f"measuring {', '.join(wanted)} ({time.monotonic() - began_s:.0f} s so far)")
        try:
            with tempfile.TemporaryDirectory(prefix="epp-benchmarks-") as folder:
                rows += measure(Path(folder), wanted, options.seconds)
        except (BenchmarkError, EppError) as error:
            failures.append(f"{', '.join(wanted)}: {error}")
    _progress("")
    facts = report.machine_facts()
    seconds = time.monotonic() - began_s
    print(f"{report.facts_text(facts)}\n\n{report.table(rows)}\n\n{NOTE} Took {seconds:.0f} s.")
    for failure in failures:
        print(f"not measured: {failure}", file=sys.stderr)
    if options.json:
        document = {"machine": facts, "seconds": round(seconds), "rows": [row.as_json() for row in rows]}
        options.json.write_text(json.dumps({**document, "not_measured": failures}, indent=2) + "\n")
    return 1 if failures else 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="what the endpoint picker costs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there as JSON")
    parser.add_argument("--rows", type=_rows, default=NAMES, help=f"comma separated, of {','.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a stretch of load")
    options = parser.parse_args(argv)
    if not 0.5 <= options.seconds <= 60:
        parser.error(f"--seconds {options.seconds:g} is out of range; allowed: 0.5 to 60")
    return options


def _rows(text: str) -> tuple[str, ...]:
    rows = tuple(text.split(","))
    for row in rows:
        if row not in NAMES:
            raise argparse.ArgumentTypeError(f"'{row}' is no row; allowed: {', '.join(NAMES)}")
    return rows


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
