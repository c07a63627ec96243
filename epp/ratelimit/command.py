# SPDX-License-Identifier: Apache-2.0
"""`epp ratelimit`: the command line of the rate limit service, to its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from epp.ratelimit.options import Options, parse


def main(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Parse, then serve until told to stop. Raises `EppError`, whose text is the one line to show."""
    options = parse(argv, environ)
    if options.check:
        return _check(options)
    from epp.ratelimit.process import run

    return run(options)


def _check(options: Options) -> int:
    """Print the rules and what is not done of the configuration."""
    from epp.ratelimit.pages import rules_of, text_of
    from epp.ratelimit.sources import Sources

    loaded = Sources(options.config).load()
    sys.stdout.write(text_of(rules_of(loaded.book)))
    for note in loaded.notes:
        print(note, file=sys.stderr)
    return 0
