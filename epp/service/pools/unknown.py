# SPDX-License-Identifier: Apache-2.0
"""The answer to a stream of which nobody can tell for which pool it is: 503, with the remedy in the error envelope."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from epp.contract.errors import ServiceUnavailable
from epp.director.headers import DROPPED_REASON
from epp.extproc import End, HeaderList, HttpRequest, Immediate

log = logging.getLogger("epp.service")

REASON = "rejected-unknown-pool"
_LINES = 100


class UnknownPool:
    """Answers one request with `line`."""

    __slots__ = ("_line",)

    def __init__(self, line: str) -> None:
        self._line = line

    def request(self, request: HttpRequest) -> Immediate:
        """Refuse it."""
        body = f"inference error: {ServiceUnavailable.code} - {self._line}".encode("utf-8", "backslashreplace")
        return Immediate(ServiceUnavailable.status, body, [(DROPPED_REASON, REASON.encode())])

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        """Nothing of ours comes back."""
        return ()

    def response_body(self, chunk: bytes, end: bool) -> None:
        """Nothing of ours comes back."""

    def response_told(self) -> bool:
        """Nothing of ours comes back."""
        return False

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        """Nothing of ours comes back."""
        return {}

    def closed(self, end: End) -> None:
        """Nothing is held."""


class UnknownPools:
    """Opens such handlers. `streams` counts them; what is wrong is logged once, for `_LINES` different reasons."""

    def __init__(self) -> None:
        self.streams = 0
        self._said: set[str] = set()

    def open(self, line: str) -> UnknownPool:
        """The handler of one stream."""
        self.streams += 1
        if line not in self._said and len(self._said) < _LINES:
            self._said.add(line)
            log.warning("a stream is answered with 503: %s", line)
        return UnknownPool(line)
