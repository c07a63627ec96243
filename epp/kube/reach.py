# SPDX-License-Identifier: Apache-2.0
"""Whether the API server answers: one matter for the whole connection, however many kinds are followed over it.

The reason is in our words, not in a library's, so that the same trouble gives the same line each time.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

Reachable = Callable[[str | None], None]
"""Told a line when the API server does not answer, and None when it does again."""

_LONGEST = 300


@dataclass(frozen=True, slots=True)
class Silence:
    """Why a request got no answer, or half of one. `away`: nobody is there, and waiting may help."""

    reason: str
    remedy: str = "check that it runs and that no network policy is in the way"
    away: bool = True

    def line(self, server: str) -> str:
        """What to tell."""
        return f"no answer from {server}: {self.reason}; {self.remedy}"


class Reach:
    """Tells `told` once that the server does not answer, and once that it does again.

    The line stays what it was first, since refusals, resets and timeouts come in any order while a server is away; a
    reason that somebody must mend takes its place.
    """

    def __init__(self, told: Reachable) -> None:
        self._told = told
        self._line: str | None = None

    def answered(self) -> None:
        """The server has answered, whatever it said."""
        if self._line is not None:
            self._line = None
            self._told(None)

    def silent(self, silence: Silence, server: str) -> None:
        """The server has not answered."""
        line = silence.line(server)
        if self._line is None or (not silence.away and line != self._line):
            self._line = line
            self._told(line)


def silence_of(error: BaseException) -> Silence:
    """Why `error`, which aiohttp or the system raised, means that there is no answer."""
    cause = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    if isinstance(cause.__cause__, ssl.SSLError):
        cause = cause.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted: {cause.verify_message}"
        return Silence(reason, "check the certificate authority, and that the certificate names the host", away=False)
    if isinstance(cause, ssl.SSLError):
        return Silence("TLS failed", "check that it speaks TLS on this port, and accepts our client certificate")
    if isinstance(cause, OSError):
        return _of_the_system(cause, connecting=cause is not error)
    from aiohttp import ClientConnectionError, ClientPayloadError, ClientResponseError

    if isinstance(cause, ClientConnectionError | ClientPayloadError):
        return Silence("the connection broke")
    if isinstance(cause, ClientResponseError):
        return Silence("what answers does not speak HTTP", "check the URL", away=False)
    text = " ".join(str(cause).split())[:_LONGEST]
    return Silence(text or type(cause).__name__)


def _of_the_system(error: OSError, *, connecting: bool) -> Silence:
    if isinstance(error, socket.gaierror):
        return Silence("its name cannot be resolved", "check the host name, and the cluster's DNS")
    number = error.errno if error.errno in errno.errorcode else None
    # Of aiohttp's errors the number tells what Python's own tell by their class.
    kind = type(error) if number is None else type(OSError(number, ""))
    if issubclass(kind, TimeoutError):
        return Silence("it took too long")
    if issubclass(kind, ConnectionRefusedError):
        return Silence("connection refused")
    if issubclass(kind, ConnectionError):
        return Silence("the connection broke")
    if number is not None:
        return Silence(os.strerror(number))
    return Silence("no connection could be made" if connecting else "the connection broke")
