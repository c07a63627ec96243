# SPDX-License-Identifier: Apache-2.0
"""What a routed request holds on an endpoint.

A lease is bound to one request's stream and to the endpoint generation it charged, and is released exactly once,
whatever way the request ends; nothing else cleans up. The tokens are given back early, with the first byte of the
response: by then the prompt has been computed.
"""

from __future__ import annotations

from collections.abc import Callable

from epp.contract.endpoints import Endpoint

Book = Callable[[Endpoint, float, float], None]


class Lease:
    """One request and its uncached prompt tokens, booked on `endpoint`."""

    __slots__ = ("_book", "_open", "_tokens", "endpoint")

    def __init__(self, book: Book, endpoint: Endpoint, tokens: float) -> None:
        self._book = book
        self._tokens = tokens
        self._open = True
        self.endpoint = endpoint

    def first_byte(self) -> None:
        """The prompt is computed: give the tokens back. Further calls do nothing."""
        if self._tokens:
            self._book(self.endpoint, 0.0, -self._tokens)
            self._tokens = 0.0

    def release(self) -> None:
        """The request ended: give everything back. Further calls do nothing."""
        if self._open:
            self._open = False
            self._book(self.endpoint, -1.0, -self._tokens)
            self._tokens = 0.0
