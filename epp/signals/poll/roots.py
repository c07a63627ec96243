# SPDX-License-Identifier: Apache-2.0
"""The system's root certificates, as Go's crypto/x509 finds them on Linux.

One file, $SSL_CERT_FILE or the first of the known bundles that can be read, and besides it every file in every
directory of $SSL_CERT_DIR (separated by colons) or of the known ones. OpenSSL takes $SSL_CERT_DIR for directories of
files named by hashes, and so finds nothing in a mounted secret. What holds no certificate (a token, a key) is skipped.

Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
from collections.abc import Iterator, Mapping

BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")

_MOST_BYTES = 16 << 20
"""A larger file is no file of certificates."""
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")


def system_roots(environ: Mapping[str, str]) -> Iterator[bytes]:
    """Certificates, DER, some perhaps more than once. What cannot be read is skipped."""
    file = environ.get("SSL_CERT_FILE")
    for path in (file,) if file else BUNDLES:
        content = _content(path)
        if content is not None:
            yield from certificates(content)
            break
    directories = environ.get("SSL_CERT_DIR")
    for directory in directories.split(":") if directories else DIRECTORIES:
        for path in _entries(directory):
            yield from certificates(_content(path) or b"")


def file_roots(path: str) -> Iterator[bytes]:
    """The certificates of one file, DER; none when it cannot be read."""
    yield from certificates(_content(path) or b"")


def certificates(pem: bytes) -> Iterator[bytes]:
    """What stands in `pem` as certificates, DER; what is no base64 is skipped."""
    for block in _BLOCK.finditer(pem):
        try:
            yield binascii.a2b_base64(block[1])
        except binascii.Error:
            continue


def _entries(directory: str) -> list[str]:
    # A link to a name in the same directory is another name of a file that is read anyway (OpenSSL's hashes), or
    # the `..data` of a mounted secret, whose files have links of their own.
    try:
        with os.scandir(directory) as found:
            return sorted(entry.path for entry in found if not (entry.is_symlink() and "/" not in os.readlink(entry)))
    except OSError:
        return []


def _content(path: str) -> bytes | None:
    try:
        # Opening a pipe would wait for its other end.
        kind = os.stat(path)
        if not stat.S_ISREG(kind.st_mode) or kind.st_size > _MOST_BYTES:
            return None
        with open(path, "rb") as file:
            return file.read(_MOST_BYTES)
    except (OSError, ValueError):
        return None
