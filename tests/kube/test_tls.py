# SPDX-License-Identifier: Apache-2.0
"""TLS contexts: renewed with their files, client certificates without a disk, chains that Go would take."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from epp.contract.errors import StartError
from epp.kube.backoff import FIRST_S
from epp.kube.credentials import NOBODY, Credential
from epp.kube.tls import Tls
from tests.apiserver.certificates import Authority, write_pair


def pair(folder: Path, name: str = "client", authority: Authority | None = None) -> tuple[Path, Path]:
    return write_pair(folder, name, (authority or Authority()).client("me", ()))


def test_what_go_takes_is_taken() -> None:
    context = Tls(authority=Authority().pem).context(NOBODY)
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_one_context_until_a_file_changes(tmp_path: Path) -> None:
    now_s = 0.0
    path = tmp_path / "ca.crt"
    path.write_bytes(Authority().pem)
    tls = Tls(authority=path, clock=lambda: now_s)
    first = tls.context(NOBODY)
    now_s += 61
    assert tls.context(NOBODY) is first
    path.write_bytes(Authority().pem + b"# renewed\n")
    assert tls.context(NOBODY) is first
    # Whoever was refused with the old authority has the new one when it tries again.
    now_s += FIRST_S * 2
    second = tls.context(NOBODY)
    assert second is not first
    path.write_text("half writ")
    now_s += 61
    assert tls.context(NOBODY) is second
    path.unlink()
    now_s += 61
    assert tls.context(NOBODY) is second
    path.write_bytes(Authority().pem)
    now_s += 61
    assert tls.context(NOBODY) not in (first, second)


def test_a_client_certificate_as_text_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = (path.read_bytes() for path in pair(tmp_path))

    def no_disk(*args: object, **more: object) -> None:
        raise OSError("Read-only file system")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", no_disk)
    Tls(pair=(certificate, key))


def test_a_client_certificate_where_there_is_no_anonymous_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("os.memfd_create")
    certificate, key = pair(tmp_path)
    Tls(pair=(certificate.read_bytes(), key))


def test_a_certificate_that_comes_with_the_credential(tmp_path: Path) -> None:
    one, two = (tuple(path.read_bytes() for path in pair(tmp_path, name)) for name in ("one", "two"))
    tls = Tls()
    bare = tls.context(NOBODY)
    shown = tls.context(Credential("", *one))
    assert shown is not bare
    assert tls.context(Credential("token", *one)) is shown
    assert tls.context(Credential("", *two)) is not shown
    with pytest.raises(StartError, match="belong together"):
        tls.context(Credential("", one[0], two[1]))


def test_an_encrypted_key_asks_nobody_for_a_password(tmp_path: Path) -> None:
    certificate, key = pair(tmp_path)
    locked = load_pem_private_key(key.read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    key.write_bytes(locked)
    with pytest.raises(StartError, match="must not be encrypted"):
        Tls(pair=(certificate, key))
