# SPDX-License-Identifier: Apache-2.0
"""`epp gateway`: the command line of the process, to its exit code."""

from __future__ import annotations

from collections.abc import Sequence

from epp.gateway.options import parse


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop. Raises `EppError`, whose text is the one line to show."""
    options = parse(argv)
    from epp.gateway.process import run

    return run(options)
