# SPDX-License-Identifier: Apache-2.0
"""What is seen of an endpoint's answer while it passes by. Times are seconds since the request arrived."""

from __future__ import annotations

from collections.abc import Mapping

from epp.contract.requests import Usage
from epp.observe.recorder import Series
from epp.requests.encoding import is_encoded
from epp.requests.usage import UsageReader

_NEW_LINE = (b"", b"\n")
_LAST_EVENTS = (
    b"data: [DONE]", b"data:[DONE]", b"event: message_stop", b"event: response.completed", b"event: response.incomplete"
)  # fmt: skip
"""How the last events of streams begin. Within an event's JSON no line begins."""
IN_HEADER = "metadata"
"""Where vLLM tells the tokens of embeddings that it sends as bytes (`encoding_format: bytes`), as JSON."""


class Response:
    """One answer, from its headers on.

    * encoded: it has a content-encoding; readable: it has none, and is JSON or a stream of events
    * status: None when it is none of three digits; streaming: whether it is a stream of events
    * first_byte_s: when its body began, None before that; body_bytes: what has passed
    """

    __slots__ = (
        "_before", "_last", "_last_s", "_usage", "body_bytes", "encoded", "first_byte_s", "readable", "status",
        "streaming",
    )  # fmt: skip

    def __init__(self, headers: Mapping[str, str]) -> None:
        status = headers.get(":status", "")
        self.status = int(status) if len(status) == 3 and status.isascii() and status.isdigit() else None
        kind = headers.get("content-type", "")
        self.streaming = "text/event-stream" in kind
        self.encoded = is_encoded(headers.get("content-encoding"))
        self.readable = (self.streaming or "json" in kind) and not self.encoded
        self._usage = UsageReader() if self.readable else None
        if "octet-stream" in kind:
            self._usage = UsageReader()
            self._usage.feed(headers.get(IN_HEADER, "").encode(errors="surrogateescape"))
        self.first_byte_s: float | None = None
        self._last_s = 0.0
        self._before = self._last = b""
        self.body_bytes = 0

    def piece(self, chunk: bytes, at_s: float, series: Series | None) -> bool:
        """A piece of its body, not empty; true for the first one."""
        first = self.first_byte_s is None
        if first:
            self.first_byte_s = at_s
            if series is not None:
                series.first_byte(at_s, self.streaming)
        elif self.streaming and series is not None:
            series.inter_token(at_s - self._last_s)
        self._last_s = at_s
        self.body_bytes += len(chunk)
        if self.readable and self._usage is not None:
            self._usage.feed(chunk)
            self._before, self._last = self._last, chunk
        return first

    def told(self) -> bool:
        """Whether the last piece has the beginning of the last event of a stream, and the tokens are told.

        Clients leave there and then, before the end of the answer comes by.
        """
        chunk = self._last
        if not self.streaming or not any(mark in chunk for mark in _LAST_EVENTS):
            return False
        begins = b"\n" + chunk if self._before[-1:] in _NEW_LINE else chunk
        return any(b"\n" + mark in begins for mark in _LAST_EVENTS) and self.usage() is not None

    def usage(self) -> Usage | None:
        """The tokens it told of so far."""
        return self._usage.result() if self._usage is not None else None
