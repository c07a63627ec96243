# SPDX-License-Identifier: Apache-2.0
"""The two kinds of text that mean a number: Go durations ("1m30s") and Kubernetes quantities ("1Gi").

`Duration` and `Quantity` annotate fields: the value stays text, and the reader checks it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

_DURATION = re.compile(r"[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")
_PART = re.compile(r"([0-9]*\.?[0-9]*)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,3})?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_MAX_CHARACTERS = 64


def parse_duration_s(text: str) -> float:
    """Seconds of a Go duration such as `1m30s`, `250ms` or `0`. Raises ValueError."""
    if len(text) > _MAX_CHARACTERS or not _DURATION.fullmatch(text):
        raise ValueError(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
    return -seconds if text.startswith("-") else seconds


def parse_quantity(text: str) -> Decimal:
    """The number that a Kubernetes quantity such as `500`, `2k` or `1Gi` stands for. Raises ValueError."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if match is None:
        raise ValueError(text)
    number, suffix = Decimal(match[1]), match[2] or ""
    if suffix.endswith("i"):
        return number * Decimal(1024) ** ("KMGTPE".index(suffix[0]) + 1)
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix])
    return number.scaleb(int(suffix[1:]))


def _positive_duration(text: str) -> None:
    if parse_duration_s(text) < 0:
        raise ValueError(text)


def _positive_quantity(text: str) -> None:
    if parse_quantity(text) < 0:
        raise ValueError(text)


Duration = Annotated[
    str, Meta(extra={"check": _positive_duration, "allowed": 'a duration, not negative, such as "500ms" or "1m30s"'})
]
Quantity = Annotated[
    str | int | float,
    Meta(extra={"check": _positive_quantity, "allowed": 'a quantity, not negative, such as 5000, "2k" or "1Gi"'}),
]
