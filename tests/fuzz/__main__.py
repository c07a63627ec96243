# SPDX-License-Identifier: Apache-2.0
"""Fuzzes the targets one after another: `python -m tests.fuzz [--target T] [--seconds N] [--seed S]`.

With atheris (the extra `fuzz`) by coverage, else by random mutation, and it says which. A failing input is written to
`--failures`, and the line that runs it again is printed: `python -m tests.fuzz --target T --input FILE`. Exit code 1
when anything failed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.harness import MOST_BYTES
from tests.fuzz.mutating import fuzz
from tests.fuzz.registry import NAMES, load

_RUNS = re.compile(r"stat::number_of_executed_units:\s*([0-9]+)")
_SLOWEST_S = 25
_RSS_LIMIT_MB = 2048


def main(argv: Sequence[str]) -> int:
    """The runner."""
    options = _options(argv)
    if options.input is not None:
        for name in options.target:
            load(name).make()(options.input.read_bytes())
            print(f"{name}: {options.input} runs without a fault")
        return 0
    guided = not options.plain and importlib.util.find_spec("atheris") is not None
    print("guided by coverage (atheris)" if guided else _why_plain(options.plain), flush=True)
    options.failures.mkdir(parents=True, exist_ok=True)
    failures = 0
    for name in options.target:
        failures += _guided(name, options) if guided else _mutated(name, options)
    return 1 if failures else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--target", action="append", choices=NAMES, help="repeatable; default: all")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target; default: 60")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations; default: 1")
    parser.add_argument("--input", type=Path, help="run this one input, and nothing else")
    parser.add_argument("--plain", action="store_true", help="random mutation, also where atheris is installed")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="where failing inputs go")
    parser.add_argument("--corpus", type=Path, help="where inputs of new coverage are kept from run to run")
    options = parser.parse_args(argv)
    options.target = options.target or list(NAMES)
    return options


def _why_plain(asked: bool) -> str:
    return "by random mutation" if asked else "by random mutation: atheris is not installed (pip install '.[fuzz]')"


def _mutated(name: str, options: argparse.Namespace) -> int:
    outcome = fuzz(load(name), options.seconds, options.seed)
    print(
        f"{name}: {outcome.executions} executions in {outcome.seconds:.0f} s, the slowest took"
        f" {outcome.slowest_s * 1e3:.0f} ms, {len(outcome.failures)} failures",
        flush=True,
    )
    for data, told in outcome.failures.values():
        path = options.failures / f"{name}-{hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]}"
        path.write_bytes(data)
        print(told, end="")
        print(_reproducer(name, path), flush=True)
    return len(outcome.failures)


def _guided(name: str, options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        corpus = (options.corpus or Path(scratch)) / name
        prefix = options.failures / f"{name}-"
        command = [
            sys.executable, "-m", "tests.fuzz.guided", name, str(corpus), f"-max_total_time={round(options.seconds)}",
            f"-seed={options.seed}", f"-max_len={MOST_BYTES}", f"-timeout={_SLOWEST_S}", f"-rss_limit_mb={_RSS_LIMIT_MB}",
            f"-artifact_prefix={prefix}", "-print_final_stats=1", "-verbosity=0",
        ]  # fmt: skip
        before = set(options.failures.iterdir())
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        runs = _RUNS.search(ran.stderr)
        # libFuzzer also writes inputs that are merely slow; only a process that ended badly has failed.
        failed = sorted(set(options.failures.iterdir()) - before) if ran.returncode else []
        told = runs[1] if runs else "an unknown number of"
        print(f"{name}: {told} executions, {'a failure' if ran.returncode else 'no failure'}", flush=True)
    if ran.returncode:
        print((ran.stdout + ran.stderr)[-4000:])
    for path in failed:
        print(_reproducer(name, path), flush=True)
    return int(ran.returncode != 0)


def _reproducer(name: str, path: Path) -> str:
    return f"to run it again: python -m tests.fuzz --target {name} --input {path}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
