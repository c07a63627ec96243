# SPDX-License-Identifier: Apache-2.0
"""The model's name in an answer, put back to what the client asked for, while the answer's bytes pass by.

Every member `"model"` of JSON or of events whose value is the name that the endpoint was asked for gets the client's:
also those within `message` and `response`, where the events of some APIs have it, as the Go EPP does. `"model"`
followed by a colon can stand in JSON only as a member's name (inside a string its quotes would be escaped), so a byte
search finds it without parsing the rest.

Invariants: what comes out does not depend on where the answer was cut; only (part of) the value of such a member is
ever held back, so a complete document leaves nothing behind.
"""

from __future__ import annotations

import re

import msgspec

_KEY = b'"model"'
_BLANKS = 16
"""More blanks than this beside the colon, and the member is left as it is."""
_MEMBER = re.compile(rb'"model"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"')
_BEGUN = re.compile(rb'"(?:m(?:o(?:d(?:e(?:l(?:"[ \t\r\n]{0,16}(?::[ \t\r\n]{0,16})?)?)?)?)?)?)?\Z')
"""The beginning of a member at the end of a piece."""
_BEGUN_BYTES = len(_KEY) + 2 * _BLANKS + 1
_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ESCAPED_BYTES = 6
"""What a UTF-16 unit takes at most, as an escape."""
_decode = msgspec.json.Decoder(str).decode


class ModelNames:
    """Feed it the answer's pieces in order; each call returns what to send on in the piece's place."""

    __slots__ = ("_asked", "_before", "_held", "_plain", "_value_bytes", "_wanted")

    def __init__(self, asked: str, wanted: str) -> None:
        """`asked`: the name the endpoint was asked for; `wanted`: the client's."""
        self._asked = asked
        self._plain = msgspec.json.encode(asked)
        self._wanted = msgspec.json.encode(wanted)
        self._value_bytes = 2 + _ESCAPED_BYTES * (len(asked.encode("utf-16-le")) // 2)
        self._before = b""
        """What was sent already of a member whose value is still to come."""
        self._held = b""
        """The beginning of its value, not sent yet."""

    def feed(self, piece: bytes, end: bool) -> bytes:
        """The next piece of the answer; nothing is held back of the last one."""
        data, sent = self._before + self._held + piece, len(self._before)
        self._before = self._held = b""
        out: list[bytes] = []
        at = 0
        while (member := _MEMBER.search(data, at)) is not None:
            start = member.end() - 1
            value = _VALUE.match(data, start, start + self._value_bytes)
            if value is None:
                if len(data) - start < self._value_bytes and not end:
                    self._before, self._held = data[member.start() : start], data[start:]
                    out.append(data[sent:start])
                    return b"".join(out)
                at = start + 1
                continue
            at = value.end()
            if self._is_asked(value[0]):
                out += (data[sent:start], self._wanted)
                sent = at
        begun = _BEGUN.search(data, max(at, len(data) - _BEGUN_BYTES))
        if begun is not None:
            self._before = data[begun.start() :]
        out.append(data[sent:])
        return b"".join(out)

    def _is_asked(self, value: bytes) -> bool:
        if value == self._plain:
            return True
        try:
            return b"\\" in value and _decode(value) == self._asked
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
