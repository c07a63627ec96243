# SPDX-License-Identifier: Apache-2.0
"""The command line of the service, read as Go's pflag reads it and more gently where the eras disagree.

One pass from left to right; the first mistake ends it. `-x` and `--x` are the same, values come as `--x=v` or `--x v`,
a switch takes its value with `=` alone, words that are no flag are skipped, `--` ends the flags. Of a flag given more
than once the last value holds, in whatever spelling; lists add up. Variables of the environment stand beneath the
command line. `--help` answers wherever it stands, also where another flag expects its value.

Standard library only: `epp --FLAG --help` must answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from epp.contract.errors import UsageError
from epp.service.flags.checks import settle
from epp.service.flags.kinds import LISTS, USAGE_WORDS, convert
from epp.service.flags.options import Options
from epp.service.flags.table import FLAGS, VARIABLES, Flag

_BY_SPELLING = {spelling: flag for flag in FLAGS for spelling in flag.spellings}
_HELP_WORDS = frozenset({"-h", "--h", "-help", "--help"})
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")


class HelpRequested(Exception):
    """`--help` or `-h` was on the command line: print `usage()`; what the process exits with is the caller's choice."""


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Options:
    """The options that `argv` (without the program's name) and the environment ask for.

    Pure: reads no file and opens no socket. Raises `UsageError` (one line) for an unknown flag, a missing or bad
    value, or flags that exclude each other; `HelpRequested` when help is asked for before any mistake.
    """
    reader = _Reader()
    reader.read(argv)
    reader.read_environment(environ)
    return settle(reader.given, environ, reader.notes)


def usage() -> str:
    """The help text, in pflag's shape: one line a flag, sorted by name."""
    rows = []
    for flag in sorted(FLAGS, key=lambda flag: flag.name):
        head = f"  -v, --{flag.name}" if flag.name == "v" else f"      --{flag.name}"
        word = USAGE_WORDS.get(flag.kind, "string")
        text = flag.help
        if flag.default not in (None, "", "0", "false"):
            default = f'"{flag.default}"' if word == "string" else flag.default
            text += f" (default {default})"
        if flag.env:
            text += f" (env {flag.env})"
        if not flag.effective:
            text += " (no effect yet)"
        rows.append((f"{head} {word}" if word else head, text))
    width = max(len(head) for head, _ in rows)
    lines = [f"{head:<{width}}   {text}" for head, text in rows]
    return "\n".join(["Usage of epp:", *lines, _FOOTER, ""])


_FOOTER = """
Names may be written in camelCase and with one dash: -grpcPort 9002 is --grpc-port=9002.
Switches take a value with "=" alone: --secure-serving=false. The last value of a flag holds; lists add up.
Durations: 50ms, 1m30s, 1h. Sizes: 65536, 64Mi, 25MB."""


class _Reader:
    """Collects what was given: typed values by canonical name, and notes for the log."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.notes: list[str] = []

    def read(self, argv: Sequence[str]) -> None:
        """Read the command line."""
        words = list(argv)
        switch = ""
        """The switch just before, when it stood without a value."""
        while words:
            word = words.pop(0)
            if word == "--":
                for stray in words:
                    self._skip(stray, "")
                return
            if len(word) < 2 or word[0] != "-":
                self._skip(word, switch)
                switch = ""
                continue
            flag, text = _split(word)
            switch = ""
            if text is None and flag.kind == "bool":
                switch, text = flag.name, "true"
            elif text is None:
                if not words:
                    raise UsageError(f"flag needs an argument: --{flag.name}")
                text = words.pop(0)
                self._doubt(flag, text)
            self._set(flag, text)

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Fill in what the command line left open. An empty variable counts as not set."""
        for flag in (*FLAGS, *VARIABLES):
            variable = flag.env or (flag.name if flag in VARIABLES else "")
            text = environ.get(variable, "") if variable else ""
            if not text or flag.name in self.given:
                continue
            if flag.kind == "int" and _SERVICE_LINK.match(text):
                self.notes.append(
                    f"environment variable {variable}={shown(text)} is a Kubernetes service link, no setting; skipped"
                    " (enableServiceLinks: false in the pod keeps it away)"
                )
                continue
            try:
                self.given[flag.name] = convert(flag, text)
            except ValueError as error:
                raise UsageError(f"invalid value {shown(text)} of environment variable {variable}: {error}") from None

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = convert(flag, text)
        except ValueError as error:
            name = "-v, --v" if flag.name == "v" else f"--{flag.name}"
            raise UsageError(f'invalid argument {shown(text)} for "{name}" flag: {error}') from None
        if flag.kind in LISTS:
            value = self.given.get(flag.name, ()) + value
        elif self.given.get(flag.name, value) != value:
            self.notes.append(f"--{flag.name} is given more than once with different values; the last one holds")
        self.given[flag.name] = value

    def _skip(self, word: str, switch: str) -> None:
        if not word:
            return
        note = f"argument {shown(word)} is no flag and was skipped"
        if switch and word.lower() in ("true", "false", "t", "f", "0", "1"):
            note += f'; a switch takes its value with "=": --{switch}={word}'
        self.notes.append(note)

    def _doubt(self, flag: Flag, text: str) -> None:
        """A value that is itself the name of a flag: taken, as pflag does, but a value was probably forgotten."""
        if text in _HELP_WORDS:
            raise HelpRequested
        if text.startswith("-") and text.lstrip("-").partition("=")[0] in _BY_SPELLING:
            self.notes.append(f"--{flag.name} took {shown(text)} as its value; was its own value left out?")


def _split(word: str) -> tuple[Flag, str | None]:
    """A word that begins with a dash, as the flag it names and the value it carries (None: none)."""
    dashes = 2 if word.startswith("--") else 1
    name, equals, text = word[dashes:].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {shown(word, quote='')}")
    if name in ("h", "help"):
        raise HelpRequested
    flag = _BY_SPELLING.get(name)
    if flag is not None:
        return flag, text if equals else None
    if dashes == 1 and re.fullmatch(r"v[+-]?[0-9]+", name) and not equals:
        return _BY_SPELLING["v"], name[1:]
    raise UsageError(f"unknown flag: --{shown(name, quote='')}{_suggestion(name)}")


def _suggestion(name: str) -> str:
    # Loaded here: only a mistake needs it.
    import difflib

    kebab = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name[:80]).lower().replace("_", "-")
    near = difflib.get_close_matches(kebab, [flag.name for flag in FLAGS], n=1)
    return f"; did you mean --{near[0]}?" if near else "; --help lists all flags"


def shown(text: str, quote: str = '"') -> str:
    """`text` fit for one line of a message: quoted, control and undecodable characters escaped, at most 80 long."""
    cut = text if len(text) <= 80 else text[:77] + "..."
    escaped = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
    return f"{quote}{escaped}{quote}"
