# SPDX-License-Identifier: Apache-2.0
"""The parts of one series line: labels, value. Nothing here raises, whatever the bytes are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from epp.signals.engine.series import parse_labels

_MAX_NUMBER_BYTES = 64
_LARGEST = 2.0**53
_BLANKS = b" \t"


def split_line(line: bytes) -> tuple[bytes, bytes]:
    """What stands after the name, as (labels without braces, value and timestamp); both empty when malformed."""
    line = line.lstrip(_BLANKS)
    if not line.startswith(b"{"):
        return b"", line
    # Neither value nor timestamp holds a brace, so the last one closes the labels, unless an exemplar follows.
    close = line.rfind(b"}") if b"#" not in line else _closing_brace(line)
    return (line[1:close], line[close + 1 :]) if close >= 0 else (b"", b"")


def value_of(rest: bytes) -> float | None:
    """The value in what follows the labels, when it is a number from 0 to 2**53."""
    fields = rest.split()
    if not fields or (len(fields) > 2 and b"#" not in fields[1:3]):
        return None
    return number(fields[0].decode("ascii", "replace"))


def labels_of(line: bytes) -> dict[str, str] | None:
    """The labels of a line, None when they are malformed."""
    return parse_labels(split_line(line)[0])


def number(text: str) -> float | None:
    """A number from 0 to `_LARGEST`, or None: sums of it are exact enough, and finite."""
    if len(text) > _MAX_NUMBER_BYTES:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    # Python's floats may have underscores between digits, the format's may not.
    return value if 0 <= value <= _LARGEST and "_" not in text else None


def positive(texts: Iterable[str | None]) -> Iterator[float]:
    """Those of `texts` that are numbers above 0."""
    for text in texts:
        value = None if text is None else number(text)
        if value:
            yield value


def _closing_brace(line: bytes) -> int:
    quoted = escaped = False
    for position, byte in enumerate(line):
        if escaped:
            escaped = False
        elif byte == 0x5C:
            escaped = True
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x7D and not quoted:
            return position
    return -1
