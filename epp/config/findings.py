# SPDX-License-Identifier: Apache-2.0
"""What there is to say about a configuration, collected instead of raised one by one.

A mistake stops the configuration from being used; a warning is probably not what its author meant; a note explains
what was filled in or has no effect. Each is one line of text and knows the line of the document it is about (from 1;
0 when it is about none).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from epp.contract.errors import ConfigError

SHOWN_CHARACTERS = 80
COMPARED_CHARACTERS = 100
MIN_SIMILARITY = 0.7


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One remark about line `line` (0: about none)."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


class ConfigErrors(ConfigError):
    """Everything that is wrong with one configuration.

    `findings` are in the order of their lines; `mistakes` are the same as text. `str()` is one line: the first
    mistake and how many more there are.
    """

    def __init__(self, source: str, findings: Sequence[Finding]) -> None:
        self.source = source
        self.findings = tuple(sorted(findings, key=lambda finding: finding.line))
        more = len(self.findings) - 1
        rest = f" (and {more} more mistake{'s' if more > 1 else ''}; `epp check` lists all)" if more else ""
        super().__init__(f"{source}: {self.findings[0]}{rest}")

    @property
    def mistakes(self) -> tuple[str, ...]:
        """One line each, `line N: ` first where a line is known."""
        return tuple(map(str, self.findings))

    @property
    def log_lines(self) -> tuple[str, ...]:
        """The mistakes, each with its source."""
        return tuple(f"configuration {self.source}: {mistake}" for mistake in self.findings)


class Findings:
    """Collects while a configuration is read."""

    def __init__(self) -> None:
        self.mistakes: list[Finding] = []
        self.warnings: list[Finding] = []
        self.notes: list[Finding] = []

    def mistake(self, line: int, text: str) -> None:
        """The configuration cannot be used as it is."""
        self.mistakes.append(Finding(line, one_line(text)))

    def warn(self, line: int, text: str) -> None:
        """Usable, but probably not meant."""
        self.warnings.append(Finding(line, one_line(text)))

    def note(self, line: int, text: str) -> None:
        """Worth knowing."""
        self.notes.append(Finding(line, one_line(text)))

    def raise_mistakes(self, source: str) -> None:
        """Raise ConfigErrors when there is any mistake."""
        if self.mistakes:
            raise ConfigErrors(source, self.mistakes)


def one_line(text: str) -> str:
    """`text` with every run of white space and line breaks as one space."""
    return " ".join(text.split())


def show(value: Any) -> str:
    """A value from the document as it is quoted in messages: JSON, cut after 80 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` was probably meant to be, ignoring case, or None."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name[:COMPARED_CHARACTERS].casefold(), by_folded, n=1, cutoff=MIN_SIMILARITY)
    return by_folded[close[0]] if close else None


def remedy(name: str, known: Iterable[str]) -> str:
    """The end of a message about the unknown `name`: what was probably meant, and what is allowed."""
    names = list(dict.fromkeys(known))
    meant = nearest(name, names)
    guess = f"; did you mean '{meant}'?" if meant else ";"
    return f"{guess} allowed: {', '.join(names) or 'none'}"
