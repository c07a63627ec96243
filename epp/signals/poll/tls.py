# SPDX-License-Identifier: Apache-2.0
"""TLS for https metrics pages: the roots that verified ones are checked against, and our own certificate.

Roots are files that are replaced while we run: a secret with the endpoints' own certificate, which is another one after
every scale-up. They are read again when an endpoint's certificate was not accepted. A root stays trusted until we end,
as in Go, where roots are read once: endpoints take up a new certificate at different times, and until the last one has,
old and new are both right. Our own certificate is looked at before a connection is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from epp.contract.endpoints import Clock
from epp.contract.errors import ConfigError
from epp.signals.poll.roots import file_roots, system_roots

log = logging.getLogger("epp.signals")

ReadRoots = Callable[[], Iterable[bytes]]
"""Reads certificates, DER; blocks; raises nothing."""

_AGAIN_S = 3.0
"""Files are not read more often than this."""

_NO_ROOTS = (
    "no root certificate was found, so no endpoint's https metrics page is accepted: name one with SSL_CERT_FILE, "
    "SSL_CERT_DIR or caCertPath of metrics-data-source, or switch verification off"
)


class PageTls:
    """What https pages are read with. Used on the loop's thread; roots are read in another one.

    * make: makes the context for connections, without what `read_roots` reads; raises `ConfigError`
    * read_roots: None when nothing is verified
    * files: those that `make` shows to endpoints; when they change, it is called again
    * missing: what to warn of when there is no root at all; "" for nothing
    """

    def __init__(
        self,
        make: Callable[[], ssl.SSLContext],
        read_roots: ReadRoots | None = None,
        *,
        files: Sequence[str] = (),
        missing: str = "",
        clock: Clock = time.monotonic,
    ) -> None:
        self._make = make
        self._files = files
        self._shown = _contents(files)
        self.context = make()
        """For a connection that begins now; its roots grow in place."""
        self._read_roots = read_roots
        self._missing = missing
        self._clock = clock
        self._known: set[bytes] = set()
        self._loaded = read_roots is None
        self._complaint = ""
        self._reading = asyncio.Lock()
        self._changing = threading.Lock()
        self._again_s = 0.0
        self._look_s = clock() + _AGAIN_S

    async def ready(self) -> None:
        """Wait until the roots have been read once, and our own certificate not long ago."""
        if self._loaded and not self._due:
            return
        async with self._reading:
            if not self._loaded:
                self._again_s = self._clock() + _AGAIN_S
                await asyncio.to_thread(self._load)
            if self._due:
                self._look_s = self._clock() + _AGAIN_S
                await asyncio.to_thread(self._renew)

    @property
    def _due(self) -> bool:
        return bool(self._files) and self._clock() >= self._look_s

    def doubt(self) -> None:
        """An endpoint's certificate was not accepted: read the roots again, for the next connection."""
        now_s = self._clock()
        if self._read_roots is None or now_s < self._again_s:
            return
        self._again_s = now_s + _AGAIN_S
        asyncio.get_running_loop().run_in_executor(None, self._load)

    def _renew(self) -> None:
        shown = _contents(self._files)
        if shown == self._shown:
            return
        try:
            context = self._make()
        except ConfigError as error:
            # Half of it may be new and the other half not yet: the next look sees both.
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("%s; the last good one stays in use", error)
            return
        with self._changing:
            _trust(context, self._known)
            self.context = context
        self._shown, self._complaint = shown, ""
        log.info("the metrics client certificate %s was replaced, new connections show it", self._files[0])

    def _load(self) -> None:
        assert self._read_roots is not None
        found = set(self._read_roots())
        with self._changing:
            added = _trust(self.context, found - self._known)
            self._known |= found
        if self._loaded and added:
            log.info("certificates that are trusted for metrics pages since now: %d", added)
        elif not self._loaded and not added and self._missing:
            log.warning("%s", self._missing)
        self._loaded = True


def page_tls(
    verify: bool,
    ca_file: str = "",
    client_certificate: tuple[str, str] = ("", ""),
    environ: Mapping[str, str] = os.environ,
) -> PageTls:
    """For https pages.

    * verify: check the endpoint's certificate and the address in it, against `ca_file` or, without one, the system's
      roots (`epp.signals.poll.roots`); when false, `ca_file` is not read
    * client_certificate: files with our own certificate and its key, shown when an endpoint asks; "" for none
    * environ: where SSL_CERT_FILE and SSL_CERT_DIR are looked for

    Raises `ConfigError` when a named file cannot be used. The system's roots are read later, when they are needed.
    """
    certificate, key = client_certificate

    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # As in Go, whatever is among the roots is trusted as it is: also a certificate that may sign no other one,
        # and one of two that have the same name.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            _use(lambda: context.load_cert_chain(certificate, key or None), "metrics client certificate", certificate)
        return context

    files = [file for file in client_certificate if file] if certificate else []
    if not verify:
        return PageTls(make, files=files)
    if not ca_file:
        return PageTls(make, partial(system_roots, environ), files=files, missing=_NO_ROOTS)
    _use(lambda: make().load_verify_locations(ca_file), "metrics CA file", ca_file)
    missing = f"metrics CA file {ca_file} holds no PEM block CERTIFICATE, so no endpoint's page is accepted"
    return PageTls(make, partial(file_roots, ca_file), files=files, missing=missing)


def _trust(context: ssl.SSLContext, roots: Iterable[bytes]) -> int:
    """How many of these certificates, DER, could be added."""
    added = 0
    for der in roots:
        with contextlib.suppress(ssl.SSLError, ValueError):
            context.load_verify_locations(cadata=der)
            added += 1
    return added


def _contents(files: Sequence[str]) -> list[bytes]:
    found = []
    for file in files:
        try:
            found.append(Path(file).read_bytes())
        except OSError:
            found.append(b"")
    return found


def _use(load: Callable[[], None], what: str, path: str) -> None:
    try:
        load()
    except (OSError, ValueError) as error:
        reason = str(error)
        if isinstance(error, ssl.SSLError):
            # OpenSSL's own words for this would not help anyone.
            reason = "it, or its key, holds nothing that fits in PEM form"
        elif isinstance(error, OSError):
            reason = error.strerror or reason
        raise ConfigError(f"{what} {path} cannot be used: {reason}") from None
