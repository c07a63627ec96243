# SPDX-License-Identifier: Apache-2.0
"""Takes out of a streamed completion what is there only because we asked for its tokens (`epp.requests.askusage`).

With `stream_options.include_usage` an endpoint adds one event before `[DONE]`, with a `usage` and no `choices`: that
event goes. OpenAI, and some engines, also add `"usage": null` (vLLM with `continuous_usage_stats`: the tokens so far)
to every other event: that member goes, with its comma. An engine that would have said it unasked loses it, too.

Invariants: what comes out does not depend on where the answer was cut; every byte of any other event stays; nothing is
held back but the event that has not ended, and none that is longer than `LIMIT_BYTES`: such a one passes by as it is.
An event ends with an empty line, `\\n` or `\\r\\n`.
"""

from __future__ import annotations

import re

import msgspec

from epp.requests.rewrite import span

LIMIT_BYTES = 1024 * 1024
_KEY = b'"usage"'
_EVENT_END = re.compile(rb"\n\r?\n")
_DATA = re.compile(rb"^data:([^\r\n]*)", re.MULTILINE)
_EMPTY_LIST = re.compile(rb"\[[ \t\r\n]*\]")
_COMMA = re.compile(rb"[ \t]*,[ \t]*")
_BLANK = b" \t"
_ENDED = re.compile(rb"[^\r\n]\r?\n\r?\n\Z")
_ENDED_BYTES = 5


class _Chunk(msgspec.Struct):
    choices: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Chunk).decode


class HideUsage:
    """Feed it the answer's pieces in order; each call returns what to send on in the piece's place."""

    __slots__ = ("_held", "_passing", "_searched")

    def __init__(self) -> None:
        self._held = bytearray()
        """The beginning of an event."""
        self._searched = 0
        """So far there is no end in it."""
        self._passing = False
        """The event is too long, what is held are its last bytes."""

    def feed(self, piece: bytes, end: bool) -> bytes:
        """The next piece of the answer; nothing is held back of the last one."""
        held = self._held
        if _KEY not in piece and not held and not self._passing and _ENDED.search(piece, len(piece) - _ENDED_BYTES):
            # Whole events, as nearly all come.
            return piece
        held += piece
        out: list[bytes] = []
        at = 0
        while (found := _EVENT_END.search(held, max(at, self._searched))) is not None:
            self._out(bytes(held[at : found.end()]), out)
            at = self._searched = found.end()
            self._passing = False
        del held[:at]
        self._searched = max(0, len(held) - 2)
        if end:
            self._out(bytes(held), out)
            held.clear()
        elif self._passing or len(held) > LIMIT_BYTES:
            # An end of up to three bytes may have begun.
            self._passing = True
            out.append(bytes(held[: self._searched]))
            del held[: self._searched]
            self._searched = 0
        return b"".join(out)

    def _out(self, event: bytes, out: list[bytes]) -> None:
        plain = self._passing or len(event) > LIMIT_BYTES or _KEY not in event
        out.append(event if plain else _without_usage(event))


def _without_usage(event: bytes) -> bytes:
    data = _DATA.search(event)
    if data is None or _DATA.search(event, data.end()) is not None:
        return event
    chunk = data[1]
    try:
        read = _decode(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event
    if bytes(read.usage)[:1] == b"{" and _EMPTY_LIST.fullmatch(read.choices):
        return b""
    member = _member(chunk, read.usage)
    if member is None:
        return event
    return b"".join((event[: data.start(1)], chunk[: member[0]], chunk[member[1] :], event[data.end(1) :]))


def _member(chunk: bytes, usage: msgspec.Raw) -> tuple[int, int] | None:
    """Where the member stands whose value is `usage`, with one comma beside it; None when its name is not found."""
    at = span(chunk, usage)
    if at is None:
        return None
    start, stop = chunk.rfind(_KEY, 0, at[0]), at[1]
    if start < 0 or chunk[start + len(_KEY) : at[0]].strip(_BLANK) != b":":
        return None
    before = chunk[:start].rstrip(_BLANK)
    if before.endswith(b","):
        return len(before) - 1, stop
    comma = _COMMA.match(chunk, stop)
    return start, comma.end() if comma is not None else stop
