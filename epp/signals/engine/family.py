# SPDX-License-Identifier: Apache-2.0
"""Finds the lines of one metric family in a Prometheus text page without parsing the page.

A page has thousands of lines of which a handful is wanted. A family is searched by its name, first near the place
where it stood in the page before, then in the whole page. The format promises that all series of a family stand
together, so the first group of lines is the family.

A line without its newline at the end of the page may be cut off in the middle of a number; it does not count.
Whatever a page holds, searching it takes time in proportion to its size and raises nothing.
"""

from __future__ import annotations

import re

Page = bytes | bytearray

# How far a family may have moved, in bytes, and still be found at once: some hundred numbers before it changed length.
_NEAR_BYTES = 1024
# Above any honest page; beyond, a page made to be slow to read is given up on.
_MAX_HITS = 4096
_MAX_SERIES = 1024
_MAX_LINE_BYTES = 65536
_NEWLINE = 10
_BLANKS = b" \t"
_AFTER_NAME = b"{ \t"


class Family:
    """One metric family in the successive pages of one endpoint."""

    __slots__ = ("_group", "_name", "_offset")

    def __init__(self, name: str) -> None:
        self._name = name.encode("ascii")
        self._offset = 0
        self._group: re.Pattern[bytes] | None = None

    def lines(self, page: Page, start: int, end: int) -> list[bytes]:
        """What stands after the name in each line of the family, in `page[start:end]`."""
        at = self._find(page, start, end)
        lines: list[bytes] = []
        while at >= 0:
            newline = page.find(b"\n", at, end)
            if newline < 0:
                break
            if len(lines) == _MAX_SERIES or newline - at > _MAX_LINE_BYTES:
                return []
            lines.append(bytes(page[at + len(self._name) : newline]))
            at = self._line_at(page, newline + 1, end)
        return lines

    def raw_lines(self, page: Page, start: int, end: int) -> list[bytes]:
        """The whole lines of the family, names and all, however many there are: for families with thousands."""
        at = self._find(page, start, end)
        if at < 0:
            return []
        if self._group is None:
            name = re.escape(self._name)
            self._group = re.compile(rb"(?:[ \t]*+" + name + rb"[{ \t][^\n]*+\n)++")
        group = self._group.match(page, at, end)
        return group[0].splitlines() if group else []

    def _find(self, page: Page, start: int, end: int) -> int:
        near = start + self._offset
        at = self._search(page, max(start, near - _NEAR_BYTES), min(end, near + _NEAR_BYTES), start, end)
        if at >= 0:
            at = self._first_of_group(page, at, start, end)
        else:
            at = self._search(page, start, end, start, end)
        if at >= 0:
            self._offset = at - start
        return at

    def _search(self, page: Page, low: int, high: int, start: int, end: int) -> int:
        """The first place in low..high where a line of the family begins, or -1."""
        name = self._name
        at = low - len(name)
        for _ in range(_MAX_HITS):
            at = page.find(name, at + len(name), high)
            if at < 0:
                break
            after = at + len(name)
            if after < end and page[after] in _AFTER_NAME:
                before = at - 1
                while before >= start and page[before] in _BLANKS:
                    before -= 1
                if before < start or page[before] == _NEWLINE:
                    return at
        return -1

    def _first_of_group(self, page: Page, at: int, start: int, end: int) -> int:
        for _ in range(_MAX_SERIES):
            line = max(start, page.rfind(b"\n", start, at) + 1)
            if line == start:
                return at
            previous = self._line_at(page, max(start, page.rfind(b"\n", start, line - 1) + 1), end)
            if previous < 0:
                return at
            at = previous
        return at

    def _line_at(self, page: Page, line: int, end: int) -> int:
        """Where the name begins in the line that begins at `line`, or -1 when it is not of the family."""
        while line < end and page[line] in _BLANKS:
            line += 1
        after = line + len(self._name)
        return line if after < end and page.startswith(self._name, line) and page[after] in _AFTER_NAME else -1
