# SPDX-License-Identifier: Apache-2.0
"""Token usage out of a response as its bytes pass by: JSON or SSE, however the chunks are cut.

The key `"usage"` followed by a colon can stand in JSON only as a member name (inside a string its quotes would be
escaped), so a byte search finds it without parsing the rest; the object after it is collected up to its closing
brace. `null` is skipped. Several usage objects (one per event, or Anthropic's start and delta) are merged at the end,
later values over earlier ones; only the first and the latest object are kept, so memory is bounded by three times
`LIMIT_BYTES`.

Invariant: the result does not depend on where the response was cut into chunks.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec

from epp.contract.requests import Usage

KEY = b'"usage"'
LIMIT_BYTES = 4096
"""A usage object that reaches further than this from its key is given up, and the search goes on behind."""

_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Details(msgspec.Struct):
    cached_tokens: _Count


class _Plain(msgspec.Struct):
    """What nearly all usage objects are."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _Details | None = None


_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_plain = msgspec.json.Decoder(_Plain).decode
_COUNT_DIGITS = 16
_BLANK = b" \t\r\n"
_FOLLOWS_KEY = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(.?)", re.DOTALL)
_BRACE = re.compile(rb"[{}]")


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
        if self._first is not None and self._latest is None:
            usage = _plain(self._first)
            if usage is not None:
                return usage
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
            # What a key stands for is decided by the bytes within the limit alone, so no cut can make a difference.
            limit = found + LIMIT_BYTES
            end = self._object_end(data[found:limit])
            if end is None:
                if len(data) < limit:
                    self._tail = data[found:]
                    self._collecting = True
                    return
                end = LIMIT_BYTES
            start = found + end

    def _object_end(self, data: bytes) -> int | None:
        """Where to search on after the value of the key that begins `data`; None when it is not complete yet."""
        colon = _FOLLOWS_KEY.match(data, len(KEY))
        if colon is None:
            return len(KEY) if data[len(KEY) :].strip(_BLANK) else None
        if colon[1] != b"{":
            return colon.start(1) if colon[1] else None
        end = _closing_brace(data, colon.start(1))
        if end is None:
            return None
        raw = data[colon.start(1) : end]
        if self._first is None:
            self._first = raw
        else:
            self._latest = raw
        return end


def _closing_brace(data: bytes, at: int) -> int | None:
    # Counting braces takes a string that holds one for structure; such an object then fails to decode and is ignored.
    depth = 0
    for brace in _BRACE.finditer(data, at):
        depth += 1 if brace[0] == b"{" else -1
        if not depth:
            return brace.end()
    return None


def _plain(raw: bytes) -> Usage | None:
    """A usage object in OpenAI's form; None for every other, which is read member by member."""
    try:
        plain = _decode_plain(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    details = plain.prompt_tokens_details
    if details is None and (b"cache" in raw or b"\\" in raw):
        return None
    cached = details.cached_tokens if details is not None else None
    return Usage(plain.prompt_tokens, plain.completion_tokens, plain.total_tokens, cached)


def _members(raw: bytes) -> dict[str, Any]:
    try:
        return _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _count(members: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and len(value) <= _COUNT_DIGITS and value.isdecimal():
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
