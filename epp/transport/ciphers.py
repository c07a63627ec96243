# SPDX-License-Identifier: Apache-2.0
"""TLS versions and cipher suites by the names Go uses in flags, as OpenSSL knows them."""

from __future__ import annotations

import difflib
import logging
import ssl
from collections.abc import Sequence

from epp.contract.errors import StartError

log = logging.getLogger("epp.transport")

VERSIONS = {
    "VersionTLS10": ssl.TLSVersion.TLSv1_2,
    "VersionTLS11": ssl.TLSVersion.TLSv1_2,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}
"""TLS 1.0 and 1.1 are accepted as values and raised to 1.2: OpenSSL 3 refuses them at its default security level, and
HTTP/2 does not allow them."""

_TLS13 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
"""Not configurable in Go either: with TLS 1.3 these three are always on."""

_OPENSSL = {
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
    "TLS_RSA_WITH_RC4_128_SHA": "RC4-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA": "ECDHE-ECDSA-RC4-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA": "ECDHE-RSA-RC4-SHA",
}


def minimum_version(name: str) -> ssl.TLSVersion:
    """The version a Go name stands for; "" is TLS 1.2, as in Go. Raises StartError."""
    version = VERSIONS.get(name or "VersionTLS12")
    if version is None:
        raise StartError(f"TLS minimum version {name!r} is unknown; use one of {', '.join(VERSIONS)}")
    if name in ("VersionTLS10", "VersionTLS11"):
        log.warning("TLS minimum version %s is raised to VersionTLS12, the oldest one HTTP/2 allows", name)
    return version


def openssl_ciphers(names: Sequence[str]) -> str:
    """The OpenSSL cipher string for TLS 1.2 of suites by their Go names; "" for OpenSSL's own choice.

    Suites this OpenSSL was built without are left out with a warning. Raises StartError for an unknown name, and when
    none is left.
    """
    chosen = []
    for name in names:
        if name in _TLS13:
            continue
        cipher = _OPENSSL.get(name)
        if cipher is None:
            near = difflib.get_close_matches(name, [*_OPENSSL, *_TLS13], n=1)
            hint = f"; the nearest one is {near[0]}" if near else ""
            raise StartError(f"TLS cipher suite {name!r} is unknown{hint}")
        if _available(cipher):
            chosen.append(cipher)
        else:
            log.warning("TLS cipher suite %s is left out: OpenSSL does not offer it here", name)
    if names and not chosen and not any(name in _TLS13 for name in names):
        raise StartError(f"none of the TLS cipher suites is available here: {', '.join(names)}; choose others")
    return ":".join(chosen)


def _available(cipher: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(cipher)
    except ssl.SSLError:
        return False
    return True
