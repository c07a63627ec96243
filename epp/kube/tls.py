# SPDX-License-Identifier: Apache-2.0
"""TLS to the API server: which authorities are trusted, which certificate is shown, and both anew when files change.

Certificates come as files or as PEM texts. OpenSSL takes a client certificate from a file alone; texts are therefore
handed over in anonymous memory, which needs no writable disk.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from epp.contract.errors import StartError
from epp.kube.credentials import NOBODY, Credential

Pem = Path | bytes
_LOOK_AGAIN_S = 1.0
"""How long a context is used before the files are looked at again: who was refused tries the new ones next."""


class Tls:
    """Makes the `ssl.SSLContext` for a connection, and keeps it for as long as nothing it was made of changes.

    * authority: trusted certificates; None for those of the system
    * pair: client certificate and key
    * server_name: what the server's certificate must be made out to, "" for the host of the URL
    """

    def __init__(
        self,
        *,
        authority: Pem | None = None,
        pair: tuple[Pem, Pem] | None = None,
        insecure: bool = False,
        server_name: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server_name = server_name
        self._authority = authority
        self._pair = pair
        self._insecure = insecure
        self._clock = clock
        self._files = [pem for pem in (authority, *(pair or ())) if isinstance(pem, Path)]
        self._stamps = self._look()
        self._looked_s = clock()
        self._shown = NOBODY
        self._context = self._make(NOBODY)

    def context(self, credential: Credential) -> ssl.SSLContext:
        """The context to connect with as `credential` (its token is none of TLS' business).

        Files that were renewed and cannot be used, half written maybe, leave the old context in use.
        """
        if self._clock() - self._looked_s >= _LOOK_AGAIN_S:
            self._looked_s = self._clock()
            stamps = self._look()
            if stamps != self._stamps:
                self._renew(self._shown, stamps)
        if (credential.certificate, credential.key) != (self._shown.certificate, self._shown.key):
            self._context = self._make(credential)
            self._shown = credential
        return self._context

    def _renew(self, credential: Credential, stamps: list[tuple[int, int, int]]) -> None:
        try:
            self._context = self._make(credential)
        except StartError:
            return
        self._stamps = stamps

    def _look(self) -> list[tuple[int, int, int]]:
        found = []
        for path in self._files:
            try:
                stat = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return found

    def _make(self, credential: Credential) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cadata=_text(self._authority) if self._authority is not None else None)
        except (OSError, ValueError) as error:
            where = self._authority if isinstance(self._authority, Path) else "the certificate authority's data"
            raise StartError(f"{where} cannot be used ({_reason(error)}); it must hold certificates in PEM") from None
        # As Go's verifier: old clusters' authorities lack extensions that the strict mode of OpenSSL asks for, and any
        # certificate that is trusted ends a chain.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self._insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        pair = (credential.certificate, credential.key) if credential.certificate else self._pair
        if pair is not None:
            _show(context, *pair)
        return context


def _text(pem: Pem) -> str:
    text = (pem.read_bytes() if isinstance(pem, Path) else pem).decode("ascii", "ignore")
    if not text:
        # OpenSSL would be asked for the system's authorities instead.
        raise ValueError("it is empty")
    return text


def _show(context: ssl.SSLContext, certificate: Pem, key: Pem) -> None:
    names = " and ".join(str(pem) if isinstance(pem, Path) else "the data given" for pem in (certificate, key))
    try:
        with _file(certificate) as certificate_file, _file(key) as key_file:
            # The password is for a key that is encrypted: nobody is there to type one.
            context.load_cert_chain(certificate_file, key_file, password="")
    except (OSError, ValueError) as error:
        raise StartError(
            f"the client certificate and key ({names}) cannot be used ({_reason(error)}); "
            "both must be PEM, belong together, and the key must not be encrypted"
        ) from None


@contextmanager
def _file(pem: Pem) -> Iterator[str]:
    """The path of a file with this content, as long as the context lasts."""
    if isinstance(pem, Path):
        yield str(pem)
    elif hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("pem")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(pem)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile("wb") as file:
            file.write(pem)
            file.flush()
            yield file.name


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate found").replace("_", " ").lower()
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
