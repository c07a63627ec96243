# SPDX-License-Identifier: Apache-2.0
"""Which series of a metrics page a signal is read from, and the grammar in which operators name them.

A specification is `name` or `name{label=value,other="value"}`; blanks around its parts do not matter, the quotes are
optional. A series matches when it has every label that is named, with that value; it may have more. As everywhere in
Prometheus, an empty value and no label at all are the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from epp.contract.errors import ConfigError

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_SPEC = re.compile(rf"\s*({_NAME})\s*(?:\{{(.*)\}})?\s*", re.DOTALL)
_MATCHER = re.compile(
    r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^",{}\s]+))\s*(?:,|$)', re.DOTALL
)
_LABEL = re.compile(rb'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"([^"\\]*(?:\\.[^"\\]*)*)"\s*(?:,|$)', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """A metric family's name, and the labels that its series must have."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a series with `labels` is meant."""
        return all(labels.get(key, "") == value for key, value in self.labels)

    def __str__(self) -> str:
        if not self.labels:
            return self.name
        return f"{self.name}{{{','.join(f'{key}={value}' for key, value in self.labels)}}}"


def parse_series_spec(text: str) -> SeriesSpec:
    """Read `name` or `name{label=value,...}`. Raises `ConfigError`."""
    whole = _SPEC.fullmatch(text)
    if whole is None:
        raise _bad_spec(text)
    name, inner = whole.groups()
    labels: list[tuple[str, str]] = []
    at, end = 0, len(inner or "")
    while at < end and inner[at:].strip():
        matcher = _MATCHER.match(inner, at)
        if matcher is None:
            raise _bad_spec(text)
        key, quoted, bare = matcher.groups()
        labels.append((key, _unescape(quoted) if quoted is not None else bare))
        at = matcher.end()
    return SeriesSpec(name, tuple(labels))


def parse_labels(raw: bytes) -> dict[str, str] | None:
    """The labels between the braces of one series line; None when they are malformed."""
    labels: dict[str, str] = {}
    at, end = 0, len(raw.rstrip())
    while at < end:
        label = _LABEL.match(raw, at, end)
        if label is None:
            return None
        labels[label[1].decode("ascii")] = _unescape(label[2].decode("utf-8", "replace"))
        at = label.end()
    return labels


def _unescape(value: str) -> str:
    return _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], value) if "\\" in value else value


def _bad_spec(text: str) -> ConfigError:
    return ConfigError(f"metric {text!r} cannot be read: write name or name{{label=value,...}}, or nothing for none")
