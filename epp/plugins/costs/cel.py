# SPDX-License-Identifier: Apache-2.0
"""A cost as an expression of CEL, the Common Expression Language, evaluated by the package of that name.

In Envoy AI Gateway the counts are unsigned: `input_tokens * 2u` is right, `input_tokens - output_tokens` fails below
zero, and `input_tokens * 2` is refused there. Here an expression is first tried like that. Where its types do not fit
together it is tried with signed counts, and then with signed literals too, so that plain integers do as well. The
package takes Python's integers as signed ones; a macro around the expression makes unsigned ones of them.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from typing import Any

from epp.api import ConfigError

log = logging.getLogger("epp.plugins.costs")

COUNTS = (
    "input_tokens", "cached_input_tokens", "cache_creation_input_tokens", "output_tokens", "total_tokens",
    "reasoning_tokens",
)  # fmt: skip
"""The variables that are numbers of tokens."""
VARIABLES = ("model", "backend", *COUNTS)
LIMIT_CHARACTERS = 2048
"""The package recurses into what it parses; far longer expressions would overflow its stack."""

_TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
_BOUND_BY_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|filter|map)\s*\(\s*(\w+)\s*,")
_UNSIGNED = re.compile(
    r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|//[^\n]*|[A-Za-z_]\w*)|\b(0x[0-9a-f]+|[0-9]+)u\b""", re.IGNORECASE
)
"""An unsigned literal, second group; strings, comments and names, which may hold what looks like one, are the first."""
_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_SHOWN_CHARACTERS = 120
_SAMPLES = (
    {"model": "dummy", "backend": "dummy", **dict.fromkeys(COUNTS, 0)},
    {"model": "dummy", "backend": "dummy", **dict(zip(COUNTS, (1000, 300, 100, 500, 1500, 200), strict=True))},
)
"""As Envoy AI Gateway does, an expression is evaluated when it is loaded; zeros alone would refuse a division."""


class CelError(Exception):
    """An expression has no cost for these values; says why in one line."""


class CelCost:
    """One expression. `where` names it in messages. Raises ConfigError when it cannot be a cost."""

    def __init__(self, expression: str, where: str) -> None:
        self._expression = expression
        self._where = where
        self._told = False
        programs = self._compiled()
        failures = [self._check(program) for program in programs]
        if None not in failures:
            raise self._refusal(failures[0] or "")
        fit = failures.index(None)
        self._programs = (programs[fit], *programs[:fit], *programs[fit + 1 :])

    def of(self, variables: Mapping[str, Any]) -> float | None:
        """What `VARIABLES` with these values cost; None where the expression fails, which is told once."""
        try:
            return float(_evaluated(self._programs, variables))
        except CelError as error:
            if not self._told:
                self._told = True
                log.warning("%s failed for an answer: %s; later failures are only counted", self._where, error)
            return None

    def _compiled(self) -> list[Any]:
        """The programs, from the strictest to the most lenient."""
        try:
            import cel  # Takes half a second: only those pay it who use it.
        except ImportError as error:
            package = f"type CEL needs the package common-expression-language ({_one_line(error)})"
            raise ConfigError(f"{self._where}: {package}; run `pip install '.[cel]'` in the source folder") from None
        if len(self._expression) > LIMIT_CHARACTERS:
            raise ConfigError(f"{self._where}: longer than {LIMIT_CHARACTERS} characters; write a shorter expression")
        try:
            signed = cel.compile(self._expression)
            used = set(signed.variables())
            self._refuse_unknown(used)
            unsigned = f"(\n{self._expression}\n)"
            for name in COUNTS:
                if name in used:
                    unsigned = f"[uint({name})].map({name}, {unsigned})[0]"
            programs = [cel.compile(unsigned), signed]
        except ConfigError:
            raise
        except Exception as error:
            raise self._refusal(_one_line(error)) from None
        lenient = _UNSIGNED.sub(lambda found: found[1] or found[2], self._expression)
        if lenient != self._expression:
            with contextlib.suppress(ValueError):  # A literal beyond what is signed.
                programs.append(cel.compile(lenient))
        return programs

    def _refuse_unknown(self, names: set[str]) -> None:
        unknown = names - set(VARIABLES) - _TYPES - set(_BOUND_BY_MACRO.findall(self._expression))
        if unknown:
            raise self._refusal(f"{', '.join(sorted(unknown))} is not known")

    def _refusal(self, why: str) -> ConfigError:
        shown = self._expression
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
        return ConfigError(
            f"{self._where}: {shown!r} is no cost: {why}; allowed: an expression of {', '.join(VARIABLES)} "
            "with a result that is an integer, not negative"
        )

    def _check(self, program: Any) -> str | None:
        """What is wrong with it, None when nothing is: an integer for one sample, and nothing else for any."""
        why = []
        for sample in _SAMPLES:
            try:
                value = _execute(program, sample)
            except (CelError, TypeError) as error:
                why.append(str(error))
                continue
            if type(value) is not int:
                return f"its result {value!r} is not an integer"
            if value < 0:
                why.append(f"its result {value} is negative")
        return why[-1] if len(why) == len(_SAMPLES) else None


def _evaluated(programs: tuple[Any, ...], variables: Mapping[str, Any]) -> int:
    failure = ""
    for program in programs:
        try:
            value = _execute(program, variables)
        except TypeError as error:
            failure = failure or str(error)
            continue
        if type(value) is not int:
            raise CelError(f"the result {value!r} is not an integer")
        if value < 0:
            raise CelError(f"the result {value} is negative")
        return value
    raise CelError(failure)


def _execute(program: Any, variables: Mapping[str, Any]) -> Any:
    """The result. Raises TypeError, where types do not fit together, and CelError for everything else."""
    try:
        return program.execute(variables)
    except (KeyboardInterrupt, SystemExit):
        raise
    except TypeError as error:
        raise TypeError(_one_line(error)) from None
    except BaseException as error:  # A panic of the package is no Exception.
        raise CelError(_one_line(error)) from None


def _one_line(error: BaseException) -> str:
    """The package's message, shortened: of a parser's the first mistake, without all that it had expected."""
    text = str(error)
    place = _PLACE.search(text)
    if place is None:
        return " ".join(text.split()).partition(". ")[0].rstrip(".") or type(error).__name__
    return f"line {place[1]}, column {place[2]}: {place[3].partition(' expecting ')[0]}"
