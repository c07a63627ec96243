# SPDX-License-Identifier: Apache-2.0
"""Token usage out of a response as its bytes pass by: JSON or SSE, however the chunks are cut.

The key `"usage"` followed by a colon can stand in JSON only as a member name (inside a string its quotes would be
escaped), so a byte search finds it without parsing the rest; the object after it is collected up to its closing
brace. `null` is skipped. Only the first and the latest object are kept, so memory is bounded by three times
`LIMIT_BYTES`.

Which object counts: the latest that says anything. A stream may tell its tokens in parts (Anthropic's message_start and
message_delta): what the latest object leaves open is taken from the first one, unless the latest says a total, as
OpenAI's always do. In a single JSON document nothing is put together, so that an object named "usage" which a client
had the model write into a tool's input, or which is echoed from the request's tools, does not mix with the real one
behind it.

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


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Count | None = None


class _Plain(msgspec.Struct):
    """What nearly all usage objects are."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_decode = msgspec.json.Decoder(dict[str, Any]).decode
_decode_plain = msgspec.json.Decoder(_Plain).decode
_COUNT_DIGITS = 16
_BLANK = b" \t\r\n"
_OPENING = ord("{")
_FOLLOWS_KEY = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(.?)", re.DOTALL)
_TO_BRACE = re.compile(rb'(?:[^{}"]++|"(?:[^"\\]++|\\.)*+")*+[{}]', re.DOTALL)
"""Up to the next brace that is in no string."""
_PROMPT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_COMPLETION_DETAILS = ("completion_tokens_details", "output_tokens_details")


class UsageReader:
    """Feed it the body's chunks in order, then ask `result`."""

    __slots__ = ("_begins", "_collecting", "_first", "_latest", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._collecting = False
        self._begins = b""
        self._first: bytes | None = None
        self._latest: bytes | None = None

    def feed(self, chunk: bytes) -> None:
        """The next chunk, of any length."""
        if not self._begins:
            self._begins = chunk.lstrip(_BLANK)[:1]
        if not self._collecting and KEY not in chunk:
            # The fast path of nearly every streamed chunk: a key cut by the border is the only thing left to find.
            border = self._tail + chunk[: len(KEY) - 1]
            if KEY not in border:
                self._tail = (self._tail + chunk[1 - len(KEY) :])[1 - len(KEY) :]
                return
        self._search(self._tail + chunk)

    def result(self) -> Usage | None:
        """What the response said of its tokens, None when it said nothing readable."""
        raw, first = self._latest, self._first
        if raw is None:
            raw, first = first, None
        if raw is None:
            return None
        usage = _plain(raw)
        if usage is not None:
            return usage
        members = _members(raw)
        if first is not None and self._begins != b"{" and _count(members, "total_tokens") is None:
            members = _members(first) | members
        elif first is not None and not _says(members):
            members = _members(first)
        return _usage(members) if members else None

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
    depth = 0
    while (part := _TO_BRACE.match(data, at)) is not None:
        at = part.end()
        depth += 1 if data[at - 1] == _OPENING else -1
        if not depth:
            return at
    return None


def _plain(raw: bytes) -> Usage | None:
    """A usage object in OpenAI's form; None for every other, which is read member by member."""
    try:
        plain = _decode_plain(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    prompt, completion = plain.prompt_tokens_details, plain.completion_tokens_details
    cached = prompt.cached_tokens if prompt is not None else None
    reasoning = completion.reasoning_tokens if completion is not None else None
    if b"\\" in raw or b"creation" in raw:
        return None
    if (cached is None and b"cache" in raw) or (reasoning is None and b"reasoning" in raw):
        return None
    return Usage(plain.prompt_tokens, plain.completion_tokens, plain.total_tokens, cached, None, reasoning)


def _members(raw: bytes) -> dict[str, Any]:
    try:
        return {name: value for name, value in _decode(raw).items() if value is not None}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _says(members: dict[str, Any]) -> bool:
    names = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens")
    return any(_count(members, name) is not None for name in names)


def _usage(members: dict[str, Any]) -> Usage:
    prompt = _count(members, "prompt_tokens", "input_tokens")
    completion = _count(members, "completion_tokens", "output_tokens")
    total = _count(members, "total_tokens")
    cached, creation = _count(members, "cache_read_input_tokens"), _count(members, "cache_creation_input_tokens")
    apart = None
    # Anthropic's input_tokens leave the cached ones out; who says details or a total counts them in, as OpenAI does.
    if total is None and _count(members, "prompt_tokens") is None and "input_tokens_details" not in members:
        apart = None if cached is None and creation is None else (cached or 0) + (creation or 0)
    inner = _detail(members, _PROMPT_DETAILS, "cached_tokens")
    if creation is None:
        creation = _detail(members, _PROMPT_DETAILS, "cache_creation_tokens")
    reasoning = _detail(members, _COMPLETION_DETAILS, "reasoning_tokens")
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    return Usage(prompt, completion, total, cached if inner is None else inner, creation, reasoning, apart)


def _count(members: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, str) and len(value) <= _COUNT_DIGITS and value.isdecimal():
            value = int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53:
            return int(value)
    return None


def _detail(members: dict[str, Any], objects: tuple[str, ...], name: str) -> int | None:
    for object_name in objects:
        details = members.get(object_name)
        if isinstance(details, dict):
            count = _count(details, name)
            if count is not None:
                return count
    return None
