# SPDX-License-Identifier: Apache-2.0
"""Command lines whose mistakes are told in one line, as all errors of this package, instead of a block of usage."""

from __future__ import annotations

import argparse
from typing import NoReturn

from epp.contract.errors import UsageError


class OneLineParser(argparse.ArgumentParser):
    """A mistake raises `UsageError`; its remedy names the command, `prog`, so the text needs no more than `epp: `."""

    def error(self, message: str) -> NoReturn:
        # The message quotes what was typed, line breaks too.
        raise UsageError(f"{' '.join(message.split())}; {self.prog} --help tells the options")
