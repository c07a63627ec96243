# SPDX-License-Identifier: Apache-2.0
"""Label selectors: the whole grammar of the API, with the meaning the API server gives it.

`a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x)`, `a`, `!a`, `a>5`, `a<5`, joined by commas: all must hold. An absent
label satisfies `!=` and `notin` and nothing else. The empty selector holds for everything. Keys and values follow the
same patterns as the check of the flag --endpoint-selector, which may not be imported from here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from epp.contract.errors import EppError

_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}"
_REQUIREMENT = re.compile(
    rf"""\s*(?:
        !\s*(?P<absent>{_KEY})
      | (?P<key>{_KEY})(?:
            \s*(?P<equality>==|=|!=)\s*(?P<value>(?:{_NAME})?)
          | \s+(?P<membership>in|notin)\s*\((?P<values>\s*(?:{_NAME})?(?:\s*,\s*(?:{_NAME})?)*\s*)\)
          | \s*(?P<order>[<>])\s*(?P<bound>-?[0-9]{{1,19}})
        )?
    )\s*(?P<end>,|\Z)""",
    re.VERBOSE,
)
_LABEL_KEY = re.compile(_KEY)
_LABEL_VALUE = re.compile(rf"(?:{_NAME})?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")

_TESTS: dict[str, Callable[[str | None, frozenset[str]], bool]] = {
    "in": lambda label, values: label is not None and label in values,
    "notin": lambda label, values: label is None or label not in values,
    "exists": lambda label, values: label is not None,
    "absent": lambda label, values: label is None,
    ">": lambda label, values: _compare(label, values) > 0,
    "<": lambda label, values: _compare(label, values) < 0,
}


class SelectorError(EppError):
    """A text is no label selector, or a label no label."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. `operator`: in, notin, exists, absent, > or <."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels satisfies it."""
        return _TESTS[self.operator](labels.get(self.key), self.values)

    def __str__(self) -> str:
        if self.operator == "exists":
            return self.key
        if self.operator == "absent":
            return f"!{self.key}"
        if self.operator in ("<", ">"):
            return f"{self.key}{self.operator}{min(self.values)}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.operator == 'in' else '!='}{min(self.values)}"
        return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"


@dataclass(frozen=True, slots=True)
class Selector:
    """Conditions that must all hold. `str()` is the text for a query's `labelSelector`."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """The selector that `text` writes down; empty text selects everything. Raises `SelectorError`."""
    requirements: list[Requirement] = []
    at, more = 0, bool(text.strip())
    while more:
        found = _REQUIREMENT.match(text, at)
        if found is None:
            raise SelectorError(
                f'label selector {_quoted(text)} cannot be read from "{text[at : at + 40].strip()}" on; '
                "write it like app=vllm or app=vllm,role in (decode,both)"
            )
        requirements.append(_requirement(found))
        at, more = found.end(), found["end"] == ","
    return Selector(tuple(requirements))


def match_labels(labels: Mapping[str, str]) -> Selector:
    """The selector of a `matchLabels` map: each label has exactly this value.

    Raises `SelectorError` for a key or a value that no label can have, since the API server would refuse the query.
    """
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise SelectorError(f"label {_quoted(key)}: {_quoted(value)} is no valid label; mend the selector")
    return Selector(tuple(Requirement(key, "in", frozenset((value,))) for key, value in sorted(labels.items())))


def _requirement(found: re.Match[str]) -> Requirement:
    if found["absent"]:
        return Requirement(found["absent"], "absent")
    key = found["key"]
    if found["equality"]:
        return Requirement(key, "notin" if found["equality"] == "!=" else "in", frozenset((found["value"],)))
    if found["membership"]:
        return Requirement(key, found["membership"], frozenset(value.strip() for value in found["values"].split(",")))
    if found["order"]:
        return Requirement(key, found["order"], frozenset((found["bound"],)))
    return Requirement(key, "exists")


def _compare(label: str | None, values: frozenset[str]) -> int:
    """1, 0 or -1 as the label's number is above, at or below the bound; 0, which satisfies neither, for no number."""
    if label is None or not _NUMBER.fullmatch(label):
        return 0
    number, bound = int(label), int(min(values))
    return (number > bound) - (number < bound)


def _quoted(text: str) -> str:
    return '"' + " ".join(text.split())[:120] + '"'
