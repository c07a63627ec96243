# SPDX-License-Identifier: Apache-2.0
"""Texts to pieces that hold one YAML document each, with the number of lines before them.

A line that begins with `---` separates documents wherever it stands (YAML 1.2, 9.1.2). Of Markdown only the fenced
blocks marked yaml, yml or json count, also indented ones (in tabs and lists); their indentation is that of the fence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_SEPARATOR = re.compile(r"---(\s|$)")
_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([A-Za-z]*)(.*)$")
_LANGUAGES = frozenset({"yaml", "yml", "json"})

Piece = tuple[int, str]
"""How many lines come before it, and its text."""


def documents_of(text: str, offset: int = 0) -> Iterator[Piece]:
    """The documents of a YAML text; pieces of nothing but comments and blank lines are left out."""
    begin, lines = 0, text.splitlines(keepends=True)
    for number, line in enumerate([*lines, "---"]):
        if number < len(lines) and not _SEPARATOR.match(line):
            continue
        piece = lines[begin:number]
        if any(line.startswith("%") for line in piece) and not _has_content(piece):
            continue
        if _has_content(piece):
            yield offset + begin, "".join(piece)
        begin = number


def _has_content(lines: list[str]) -> bool:
    for line in lines:
        bare = (line[3:] if _SEPARATOR.match(line) else line).strip()
        if bare and not bare.startswith(("#", "%")) and bare != "...":
            return True
    return False


def blocks_of(text: str) -> Iterator[Piece]:
    """The fenced YAML and JSON blocks of a Markdown text; one that is not closed ends with the text."""
    open_at: int | None = None
    fence = indent = language = ""
    block: list[str] = []
    for number, line in enumerate(text.splitlines(keepends=True)):
        match = _FENCE.match(line.rstrip("\r\n"))
        if open_at is None:
            if match:
                indent, fence, language = match[1], match[2], match[3].lower()
                open_at, block = number + 1, []
        elif match and match[2].startswith(fence) and not match[3] and not match[4].strip():
            if language in _LANGUAGES:
                yield open_at, "".join(block)
            open_at = None
        else:
            block.append(_without(indent, line))
    if open_at is not None and language in _LANGUAGES:
        yield open_at, "".join(block)


def _without(indent: str, line: str) -> str:
    """The line without the indentation of its fence, as far as it has it."""
    if line.startswith(indent):
        return line[len(indent) :]
    return line.lstrip(" \t")
