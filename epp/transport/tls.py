# SPDX-License-Identifier: Apache-2.0
"""Where a listener's certificate comes from, and how it is replaced while connections live on.

A `TlsSource` holds a certificate and its key: read from a directory (`tls.crt`, `tls.key`, as Kubernetes mounts a
secret) or self-signed in memory. `reload_if_changed` reads the directory again and keeps the last good pair when the
new one cannot be used. Every handshake gets a context of its own time: the context a listener was given hands over to
the newest one when a handshake starts, so a replacement may also change the kind of key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from epp.contract.errors import StartError
from epp.transport.selfsigned import self_signed

log = logging.getLogger("epp.transport")

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

CERTIFICATE = "tls.crt"
KEY = "tls.key"


class TlsSource:
    """A certificate for listeners.

    * directory: holds `tls.crt` (the chain) and `tls.key`; None makes a self-signed certificate in memory
    * min_version: "TLSv1.2" or "TLSv1.3"; HTTP/2 allows nothing older
    * cipher_suites: OpenSSL's names, for TLS 1.2; none for OpenSSL's own choice. What this OpenSSL was built without
      is left out with a warning
    * protocols: for ALPN
    * client_ca_file: certificates, PEM; a client must show one that they sign or that is among them. None: no client is
      asked

    Raises StartError when anything of it cannot be used.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        min_version: Literal["TLSv1.2", "TLSv1.3"] = "TLSv1.2",
        cipher_suites: Sequence[str] = (),
        protocols: Sequence[str] = ("h2",),
        client_ca_file: Path | None = None,
    ) -> None:
        self._protocols = list(protocols)
        self._client_ca_file = client_ca_file
        self._directory = None if directory is None else Path(directory)
        self._minimum = _VERSIONS[min_version]
        self._ciphers = _offered(cipher_suites)
        self._parts = self._read_parts()
        self._digest = _digest(*self._parts)
        try:
            self._newest = self._build(*self._parts)
        except (ssl.SSLError, ValueError) as error:
            raise StartError(_unusable(self._directory, error)) from error
        self._tried = self._digest
        self._complaint = ""
        self._given: ssl.SSLContext | None = None

    @property
    def plain(self) -> bool:
        """Whether version and cipher suites are the defaults, the only ones gRPC's own TLS can do."""
        return self._minimum == ssl.TLSVersion.TLSv1_2 and not self._ciphers

    def pem(self) -> tuple[bytes, bytes]:
        """The certificate chain and the key in use, PEM."""
        return self._parts[:2]

    def context(self) -> ssl.SSLContext:
        """The server context of a listener. Stays right over reloads."""
        if self._given is None:
            self._given = self._build(*self._parts)
            # OpenSSL asks this for every ClientHello, whether it names a server or not.
            self._given.sni_callback = self._hand_over
        return self._given

    @property
    def newest(self) -> ssl.SSLContext:
        """The server context for a connection that begins now."""
        return self._newest

    def reload_if_changed(self) -> bool:
        """Read the files again; true when others are in use now. Blocks for two or three small reads.

        What cannot be used is logged once and not used; the last good certificate stays.
        """
        if self._directory is None:
            return False
        try:
            parts = self._read_parts()
            digest = _digest(*parts)
            if digest in (self._digest, self._tried):
                if digest == self._digest:
                    self._complaint = ""
                return False
            self._tried = digest
            self._newest = self._build(*parts)
        except (StartError, ssl.SSLError, ValueError) as error:
            self._complain(str(error) if isinstance(error, StartError) else _unusable(self._directory, error))
            return False
        self._parts, self._digest = parts, digest
        self._complaint = ""
        log.info("the certificate in %s was replaced, new connections get it", self._directory)
        return True

    async def watch(self, interval_s: float = 1.0) -> None:
        """Call `reload_if_changed` every `interval_s`, in a thread, until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await asyncio.to_thread(self.reload_if_changed)

    def _hand_over(self, connection: ssl.SSLObject, server_name: str | None, context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _read_parts(self) -> tuple[bytes, bytes, bytes]:
        certificate, key = self_signed() if self._directory is None else _read(self._directory)
        if self._client_ca_file is None:
            return certificate, key, b""
        try:
            return certificate, key, self._client_ca_file.read_bytes()
        except OSError as error:
            raise StartError(f"cannot read the client CA file {self._client_ca_file}: {error.strerror}") from error

    def _build(self, certificate: bytes, key: bytes, client_ca: bytes) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._minimum
        if self._ciphers:
            context.set_ciphers(self._ciphers)
        context.set_alpn_protocols(self._protocols)
        if self._client_ca_file is not None:
            _ask_clients(context, client_ca, self._client_ca_file)
        # Two files, so that a key where the certificate should be is a mistake here as it is for gRPC.
        with _as_file(certificate) as certificate_path, _as_file(key) as key_path:
            context.load_cert_chain(certificate_path, key_path, password=_no_password)
        return context

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            log.error("%s; the last good certificate stays in use", complaint)


def _ask_clients(context: ssl.SSLContext, client_ca: bytes, path: Path) -> None:
    context.verify_mode = ssl.CERT_REQUIRED
    # As in Go, each certificate of the file is trusted as it is, whatever it may sign.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError) as error:
        raise StartError(
            f"cannot use the client CA file {path}: it holds no certificates that fit in PEM form"
        ) from error


def _offered(cipher_suites: Sequence[str]) -> str:
    """Those of the suites that this OpenSSL has, as it wants them. Raises StartError when none is left."""
    chosen = []
    for cipher in cipher_suites:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(cipher)
        except ssl.SSLError:
            log.warning("TLS cipher suite %s is left out: OpenSSL does not offer it here", cipher)
        else:
            chosen.append(cipher)
    if cipher_suites and not chosen:
        raise StartError(f"none of the TLS cipher suites is available here: {', '.join(cipher_suites)}; choose others")
    return ":".join(chosen)


def _read(directory: Path) -> tuple[bytes, bytes]:
    # A secret is replaced by turning the symlink ..data; resolved once, both files are of the same secret.
    version = directory / "..data"
    if version.is_symlink():
        directory = version.resolve()
    found = []
    for name in (CERTIFICATE, KEY):
        path = directory / name
        try:
            found.append(path.read_bytes())
        except OSError as error:
            raise StartError(
                f"cannot read {path}: {error.strerror}; a certificate directory holds {CERTIFICATE} and {KEY}"
            ) from error
    return found[0], found[1]


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def _unusable(directory: Path | None, error: Exception) -> str:
    reason = getattr(error, "reason", None) or str(error)
    return (
        f"cannot use {CERTIFICATE} and {KEY} in {directory}: {reason}; "
        f"they must be a PEM certificate chain and its own key without a password"
    )


def _no_password() -> str:
    raise ValueError("the key is encrypted")


@contextlib.contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path to `content` for libraries that only read files; in memory, so that no file system need be writable."""
    try:
        descriptor = os.memfd_create("certificate")
    except (AttributeError, OSError):
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"
