# SPDX-License-Identifier: Apache-2.0
"""TLS for https metrics pages, and the roots that verified ones are checked against.

Roots are files that are replaced while we run: a secret with the endpoints' own certificate, which is another one after
every scale-up. They are read again when an endpoint's certificate was not accepted. A root stays trusted until we end,
as in Go, where roots are read once: endpoints take up a new certificate at different times, and until the last one has,
old and new are both right.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from epp.contract.endpoints import Clock
from epp.contract.errors import ConfigError
from epp.signals.poll.roots import file_roots, system_roots

log = logging.getLogger("epp.signals")

ReadRoots = Callable[[], Iterable[bytes]]
"""Reads certificates, DER; blocks; raises nothing."""

_AGAIN_S = 3.0
"""Roots are not read more often than this."""

_NO_ROOTS = (
    "no root certificate was found, so no endpoint's https metrics page is accepted: name one with SSL_CERT_FILE, "
    "SSL_CERT_DIR or caCertPath of metrics-data-source, or switch verification off"
)


class PageTls:
    """What https pages are read with. Used on the loop's thread; roots are read in another one.

    * context: for connections; its roots grow in place
    * read_roots: None when nothing is verified
    * missing: what to warn of when there is no root at all; "" for nothing
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        read_roots: ReadRoots | None = None,
        *,
        missing: str = "",
        clock: Clock = time.monotonic,
    ) -> None:
        self.context = context
        self._read_roots = read_roots
        self._missing = missing
        self._clock = clock
        self._known: set[bytes] = set()
        self._loaded = read_roots is None
        self._loading = asyncio.Lock()
        self._again_s = 0.0

    async def ready(self) -> None:
        """Wait until the roots have been read once."""
        if self._loaded:
            return
        async with self._loading:
            if not self._loaded:
                self._again_s = self._clock() + _AGAIN_S
                await asyncio.to_thread(self._load)

    def doubt(self) -> None:
        """An endpoint's certificate was not accepted: read the roots again, for the next connection."""
        now_s = self._clock()
        if self._read_roots is None or now_s < self._again_s:
            return
        self._again_s = now_s + _AGAIN_S
        asyncio.get_running_loop().run_in_executor(None, self._load)

    def _load(self) -> None:
        assert self._read_roots is not None
        added = 0
        for der in self._read_roots():
            if der in self._known:
                continue
            self._known.add(der)
            try:
                self.context.load_verify_locations(cadata=der)
            except (ssl.SSLError, ValueError):
                continue
            added += 1
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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As in Go, whatever is among the roots is trusted as it is: also a certificate that may sign no other one, and
    # one of two that have the same name.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    read_roots: ReadRoots | None = None
    missing = ""
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        _use(lambda: context.load_verify_locations(ca_file), "metrics CA file", ca_file)
        read_roots = partial(file_roots, ca_file)
    else:
        read_roots, missing = partial(system_roots, environ), _NO_ROOTS
    certificate, key = client_certificate
    if certificate:
        _use(lambda: context.load_cert_chain(certificate, key or None), "metrics client certificate", certificate)
    return PageTls(context, read_roots, missing=missing)


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
