# SPDX-License-Identifier: Apache-2.0
"""`epp serve`: the command line of the service, to its exit code. Help costs no import of the service."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from epp.service.flags.parsing import HelpRequested, parse, usage


def main(argv: Sequence[str]) -> int:
    """Parse, then serve until told to stop. Raises `EppError`, whose text is the one line to show."""
    try:
        options = parse(argv, os.environ)
    except HelpRequested:
        sys.stdout.write(usage())
        return 0
    from epp.service.process import run

    return run(options)
