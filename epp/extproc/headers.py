# SPDX-License-Identifier: Apache-2.0
"""The headers of one message, read out of its bytes as they are asked for: of some twenty, routing asks for a few.

A header lies on the wire as `\\n SIZE \\n SIZE name \\x1a SIZE value`, in a run of its like. No byte below a blank but
the tab can stand in a name or a value, so a name with its tag and size is found by a byte search, and the sizes around
it prove what was found. Names come in lower case, as the protocol promises. Whatever is not written in this plain
form, and whoever walks through all headers, gets them from the parsed message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar, overload

T = TypeVar("T")

_TAG = 0x0A
_VALUE = 0x12
_RAW_VALUE = 0x1A
_LONG = 0x80
_HEADS = tuple(bytes((_TAG, size)) for size in range(_LONG))
"""What stands before a name, by its size."""


class WireHeaders(Mapping[str, str]):
    """Headers by name in lower case, the last of several equal names; bytes that are no UTF-8 as surrogate escapes.

    `data` holds them between `start` and `end`; `parse` gives all of them, when that is needed.
    """

    __slots__ = ("_all", "_data", "_end", "_parse", "_start")

    def __init__(self, data: bytes, start: int, end: int, parse: Callable[[], dict[str, str]]) -> None:
        self._data = data
        self._start = start
        self._end = end
        self._parse = parse
        self._all: dict[str, str] | None = None

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str | T) -> str | T: ...
    def get(self, name: str, default: object = None) -> object:
        """The value, or `default`."""
        size = len(name)
        if self._all is None and size < _LONG:
            data = self._data
            at = data.rfind(_HEADS[size] + name.encode("utf-8", "surrogateescape"), self._start, self._end)
            if at < 0:
                return default
            value = self._value(at, at + 2 + size)
            if value is not None:
                return value
        return self._whole().get(name, default)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

    def __repr__(self) -> str:
        return repr(self._whole())

    def _whole(self) -> dict[str, str]:
        if self._all is None:
            self._all = self._parse()
        return self._all

    def _value(self, at: int, after: int) -> str | None:
        """The value of the header whose name, with tag and size, stands from `at` to `after`; None when this is no
        header in plain form."""
        data = self._data
        entry = data[at - 1]
        start = at
        if entry < _LONG and data[at - 2] == _TAG:
            end = at + entry
        elif data[at - 2] >= _LONG and data[at - 3] == _TAG and entry < _LONG:
            end = at + (data[at - 2] & 0x7F | entry << 7)
        else:
            return None
        if after >= end or end > self._end or at - 2 < self._start:
            return None
        size = data[after + 1]
        start = after + 2
        if size >= _LONG:
            size = size & 0x7F | data[start] << 7
            start += 1
        # A value in the older field, or in both, is left to the parser; so is one of 16 KiB and more.
        if data[after] != _RAW_VALUE or start + size != end or not size:
            return None
        try:
            return data[start:end].decode()
        except UnicodeDecodeError:
            return data[start:end].decode("utf-8", "surrogateescape")
