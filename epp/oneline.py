# SPDX-License-Identifier: Apache-2.0
"""Command lines whose mistakes are told in one line, as all errors of this package, instead of a block of usage; and
what several of them have: types of arguments, flags."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from epp.contract.errors import UsageError
from epp.contract.units import parse_duration_s

_MOST_DIGITS = 20


class OneLineParser(argparse.ArgumentParser):
    """A mistake raises `UsageError`; its remedy names the command, `prog`, so the text needs no more than `epp: `."""

    def error(self, message: str) -> NoReturn:
        # The message quotes what was typed, line breaks too.
        raise UsageError(f"{' '.join(message.split())}; {self.prog} --help tells the options")


def whole(what: str, low: int, high: int) -> Callable[[str], int]:
    """The type of a whole number from `low`, at least 0, to `high`, called `what` in mistakes."""

    def read(text: str) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else -1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no {what}; allowed: {low} to {high}")
        return value

    return read


port = whole("port", 0, 65_535)
verbosity = whole("verbosity", 0, 5)


def duration_s(allowed: str = "0s or more", most_s: float = math.inf) -> Callable[[str], float]:
    """The type of a duration of 0 to `most_s`, in seconds; `allowed` says so in mistakes."""

    def read(text: str) -> float:
        try:
            seconds = parse_duration_s(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= most_s:
            raise argparse.ArgumentTypeError(f"{text!r} is no duration; allowed: {allowed}, such as 50ms, 30s or 1m30s")
        return seconds

    return read


def add_log_encoder(parser: argparse.ArgumentParser) -> None:
    """The flag for the form of log lines, with the name that it has for `epp serve` as another one."""
    add = partial(parser.add_argument, choices=("json", "console"), dest="log_encoder", default="json")
    add("--log-encoder", help="form of log lines (json)")
    add("--zap-encoder", help=argparse.SUPPRESS)
