# SPDX-License-Identifier: Apache-2.0
"""What an unquoted scalar means, as the Go EPP's YAML library reads it.

YAML 1.1 booleans (`yes`, `on`, `y`), octal `010`, `1_000`, floats without a dot (`1e3`), and, as values end up as
JSON, 2.0 is the integer 2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_INT64 = 1 << 63
_EXACT_FLOAT = 2.0**53
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INT = re.compile(r"[-+]?(0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)")

Scalar = str | int | float | bool | None

_WORDS: Mapping[str, Scalar] = {
    word: value
    for words, value in (
        ("y yes true on", True),
        ("n no false off", False),
        ("null", None),
        (".nan", math.nan),
        (".inf +.inf", math.inf),
        ("-.inf", -math.inf),
    )
    for plain in words.split()
    for word in (plain, plain.capitalize(), plain.upper())
} | {"": None, "~": None, ".NaN": math.nan, ".Inf": math.inf, "+.Inf": math.inf, "-.Inf": -math.inf}


def resolve(text: str) -> Scalar:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if not text[:1] or text[0] not in "+-.0123456789":
        return text
    digits = text.replace("_", "")
    if _INT.fullmatch(digits) and len(digits) <= 66:
        number = _integer(digits)
        if -_INT64 <= number < _INT64 * 2:
            return number
    if _FLOAT.fullmatch(digits):
        value = float(digits)
        # JSON has one kind of number: 2.0 fits wherever 2 does.
        return int(value) if value.is_integer() and abs(value) <= _EXACT_FLOAT else value
    return text


def _integer(digits: str) -> int:
    body = digits.lstrip("+-").lower()
    octal = len(body) > 1 and body[0] == "0" and body[1].isdigit()
    number = int(body, 8 if octal else 0)
    return -number if digits.startswith("-") else number
