# SPDX-License-Identifier: Apache-2.0
"""TLS for https metrics pages."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from epp.contract.errors import ConfigError


def tls_context(verify: bool, ca_file: str = "", client_certificate: tuple[str, str] = ("", "")) -> ssl.SSLContext:
    """For https pages.

    * verify: check the endpoint's certificate and the address in it, against `ca_file` or, without one, the system's
      CAs; when false, `ca_file` is not read
    * client_certificate: files with our own certificate and its key, shown when an endpoint asks; "" for none

    Raises `ConfigError` when a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file:
        _load(lambda: context.load_verify_locations(ca_file), "metrics CA file", ca_file)
    else:
        context.load_default_certs()
    certificate, key = client_certificate
    if certificate:
        _load(lambda: context.load_cert_chain(certificate, key or None), "metrics client certificate", certificate)
    return context


def _load(load: Callable[[], None], what: str, path: str) -> None:
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
