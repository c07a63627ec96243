# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.soak --minutes 10 --seed 1`: everything runs while everything fails; exit code 1 when that shows."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop

from epp.contract.errors import EppError
from tests.soak.run import Settings, Soak


def main() -> int:
    """Run one soak; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="make soak", description="Load through real Envoy, and chaos.")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the run (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="decides what happens when (%(default)s)")
    parser.add_argument("--rate", type=float, default=120.0, help="requests a second, about (%(default)s)")
    parser.add_argument("--connections", type=int, default=48, help="clients (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="do not tell each event")
    args = parser.parse_args()
    settings = Settings(args.minutes * 60, args.seed, connections=args.connections, rate_per_s=args.rate)

    def say(text: str) -> None:
        if not args.quiet:
            print(text, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        try:
            findings = uvloop.run(Soak(settings, Path(folder), say).run())
        except EppError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1
    for line in findings.lines():
        print(line, flush=True)
    return 1 if any(findings.defects()) else 0


if __name__ == "__main__":
    sys.exit(main())
