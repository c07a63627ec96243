# SPDX-License-Identifier: Apache-2.0
"""Token usage out of a response as its bytes pass by: JSON or SSE, however the chunks are cut.

The key `"usage"` followed by a colon can stand in JSON only as a member name (inside a string its quotes would be
escaped), so a byte search finds it without parsing the rest; the object after it is collected up to its closing
brace. `null` is skipped. Several usage objects (one per event, or Anthropic's start and delta) are merged at the end,
later values over earlier ones; only the first and the latest object are kept, so memory is bounded by `LIMIT_BYTES`.

Invariant: the result does not depend on where the response was cut into chunks.
"""

from __future__ import annotations

from typing import Any

import msgspec

from epp.contract.requests import Usage

KEY = b'"usage"'
LIMIT_BYTES = 4096
"""A usage object longer than this is given up."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_BLANK = b" \t\r\n"


class UsageReader:
    """Feed it the body's chunks in order, then ask `result`."""

    __slots__ = ("_collecting", "_first", "_latest", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._collecting = False
        self._first: bytes | None = None
        self._latest: bytes | None = None

    def feed(self, chunk: bytes) -> None:
        """The next chunk, of any length."""
        if not self._collecting and KEY not in chunk:
            # The fast path of nearly every streamed chunk: a key cut by the border is the only thing left to find.
            border = self._tail + chunk[: len(KEY) - 1]
            if KEY not in border:
                self._tail = (self._tail + chunk[1 - len(KEY) :])[1 - len(KEY) :]
                return
        self._search(self._tail + chunk)

    def result(self) -> Usage | None:
        """What the response said of its tokens, None when it said nothing readable."""
        merged: dict[str, Any] = {}
        for raw in (self._first, self._latest):
            if raw is not None:
                merged.update({k: v for k, v in _members(raw).items() if v is not None})
        if not merged:
            return None
        prompt = _count(merged, "prompt_tokens", "input_tokens")
        completion = _count(merged, "completion_tokens", "output_tokens")
        total = _count(merged, "total_tokens")
        if total is None and prompt is not None and completion is not None:
            total = prompt + completion
        return Usage(prompt, completion, total, _cached(merged))

    def _search(self, data: bytes) -> None:
        start = 0
        self._collecting = False
        while True:
            found = data.find(KEY, start)
            if found < 0:
                self._tail = data[max(start, len(data) - len(KEY) + 1) :]
                return
            end = self._object_end(data, found + len(KEY))
            if end is None:
                self._tail = data[found:]
                self._collecting = len(self._tail) <= LIMIT_BYTES
                if not self._collecting:
                    self._tail = b""
                return
            start = end

    def _object_end(self, data: bytes, at: int) -> int | None:
        """Where to search on after the value at `at`; None when the value is not complete yet."""
        at = _skip_blank(data, at)
        if at >= len(data):
            return None
        if data[at : at + 1] != b":":
            return at
        at = _skip_blank(data, at + 1)
        if at >= len(data):
            return None
        if data[at : at + 1] != b"{":
            return at
        end = _closing_brace(data, at)
        if end is None:
            return None
        raw = data[at:end]
        if self._first is None:
            self._first = raw
        else:
            self._latest = raw
        return end


def _skip_blank(data: bytes, at: int) -> int:
    while at < len(data) and data[at] in _BLANK:
        at += 1
    return at


def _closing_brace(data: bytes, at: int) -> int | None:
    # Counting braces takes a string that holds one for structure; such an object then fails to decode and is ignored.
    end = data.find(b"}", at) + 1
    while end:
        if data.count(b"{", at, end) == data.count(b"}", at, end):
            return end
        end = data.find(b"}", end) + 1
    return None


def _members(raw: bytes) -> dict[str, Any]:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _count(members: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53:
            return int(value)
    return None


def _cached(members: dict[str, Any]) -> int | None:
    for name in ("prompt_tokens_details", "input_tokens_details"):
        details = members.get(name)
        if isinstance(details, dict):
            cached = _count(details, "cached_tokens")
            if cached is not None:
                return cached
    return _count(members, "cache_read_input_tokens")
