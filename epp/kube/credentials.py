# SPDX-License-Identifier: Apache-2.0
"""Who we are to the API server: a token or a client certificate, and where it is renewed.

A credential is asked for before every request, so that whatever rotates is used from the next request on. No text of
an error and no `repr` holds a token or a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from epp.contract.errors import StartError

REREAD_S = 60.0
"""How long a token that was read from a file is used before the file is read again."""
_LONGEST_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request shows: a bearer token, or "", and what TLS shows: PEM texts, or b""."""

    token: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)


NOBODY = Credential()


class Credentials(Protocol):
    """A source of credentials."""

    async def current(self) -> Credential:
        """What to show now. Raises `ApiError`."""

    def refused(self, credential: Credential) -> None:
        """The server answered 401 to this one: unless there is another already, the next `current` looks for it."""


class Fixed:
    """Always the same credential."""

    __slots__ = ("_credential",)

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def current(self) -> Credential:
        """The one there is."""
        return self._credential

    def refused(self, credential: Credential) -> None:
        """There is no other."""


class TokenFile:
    """A token in a file that somebody else renews: read again every minute, and at once when it was refused.

    While the file cannot be read, or is empty, the last token is used. `otherwise` is used until one was read.
    """

    __slots__ = ("_clock", "_credential", "_path", "_read_s")

    def __init__(self, path: Path, *, otherwise: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._credential = Credential(otherwise)
        self._read_s = float("-inf")
        self._read()
        if not self._credential.token:
            raise StartError(f"{path} holds no token, or cannot be read; it must hold a bearer token")

    async def current(self) -> Credential:
        """The token as it was read last, at most a minute ago."""
        if self._clock() - self._read_s >= REREAD_S:
            self._read()
        return self._credential

    def refused(self, credential: Credential) -> None:
        """The next `current` reads the file."""
        if credential == self._credential:
            self._read_s = float("-inf")

    def _read(self) -> None:
        self._read_s = self._clock()
        try:
            with self._path.open("rb") as file:
                token = file.read(_LONGEST_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, ValueError):
            return
        if token and token.isprintable() and token != self._credential.token:
            self._credential = Credential(token)
