# SPDX-License-Identifier: Apache-2.0
"""The kinds of flags: how the text of each becomes a value, and the word that stands for it in the help text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from epp.service.flags import values
from epp.service.flags.table import Flag, Kind

LISTS: frozenset[Kind] = frozenset({"choices", "ints", "paths", "addresses", "names"})
"""Kinds whose values are tuples, and add up when a flag is repeated."""

USAGE_WORDS: dict[Kind, str] = {
    "bool": "",
    "int": "int",
    "fraction": "float",
    "duration": "duration",
    "choices": "strings",
    "addresses": "strings",
    "names": "strings",
    "ints": "ints",
    "paths": "stringArray",
}
"""pflag's word for a kind's values; "string" where none is named."""


def convert(flag: Flag, text: str) -> Any:
    """The value of `text` for `flag`: its kind's type, in range. Raises `ValueError` that says what is allowed."""
    return _CONVERTERS[flag.kind](flag, text)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _int(flag: Flag, text: str) -> int:
    low, high = flag.low, flag.high
    allowed = "must be a whole number"
    if low is not None:
        allowed += f" from {low:g} to {high:g}" if high is not None else f" of at least {low:g}"
    try:
        value = values.parse_int(text)
    except ValueError:
        raise ValueError(allowed) from None
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(allowed)
    return value


def _fraction(flag: Flag, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise ValueError("must be a number above 0 and at most 1")
    return value


def _duration(flag: Flag, text: str) -> float:
    value = values.parse_duration_s(text)
    if flag.low is not None and value < flag.low:
        raise ValueError(f"must be a duration of at least {flag.low:g}s")
    if flag.high is not None and value > flag.high:
        raise ValueError(f"must be a duration of at most {flag.high:g}s")
    return value


def _size(flag: Flag, text: str) -> int | None:
    if not text and flag.default == "":
        return None
    value = values.parse_size_bytes(text)
    if flag.low is not None and value < flag.low:
        raise ValueError(f"must be a size of at least {flag.low:g} B")
    return value


def _choice(flag: Flag, text: str) -> str:
    """Exact, or else the one choice that differs in case alone."""
    if text in flag.choices:
        return text
    for choice in flag.choices:
        if choice and choice.lower() == text.lower():
            return choice
    raise ValueError(f"must be one of {', '.join(choice for choice in flag.choices if choice)}")


_CONVERTERS: dict[Kind, Callable[[Flag, str], Any]] = {
    "bool": lambda flag, text: values.parse_bool(text),
    "int": _int,
    "fraction": _fraction,
    "duration": _duration,
    "size": _size,
    "string": lambda flag, text: text,
    "choice": _choice,
    "path": lambda flag, text: Path(text) if text else None,
    "header": lambda flag, text: values.parse_header_name(text),
    "url-path": lambda flag, text: values.parse_url_path(text),
    "metric": lambda flag, text: values.parse_metric(text),
    "selector": lambda flag, text: values.parse_selector(text),
    "level": lambda flag, text: values.parse_log_level(text),
    "bind-ip": lambda flag, text: values.parse_bind_ip(text),
    "choices": lambda flag, text: tuple(_choice(flag, item) for item in _items(text)),
    "ints": lambda flag, text: tuple(_int(flag, item) for item in _items(text)),
    "paths": lambda flag, text: (Path(text),) if text else (),
    "names": lambda flag, text: tuple(_items(text)),
    "ports": lambda flag, text: values.parse_port_range(text) if text else None,
    "addresses": lambda flag, text: tuple(values.parse_address(item) for item in _items(text)),
}
