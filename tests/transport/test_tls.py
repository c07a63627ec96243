# SPDX-License-Identifier: Apache-2.0
"""Certificates: self-signed, from a directory, replaced while connections live on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from epp.contract.errors import StartError
from epp.transport import h2
from epp.transport.call import Limits
from epp.transport.selfsigned import self_signed
from epp.transport.tls import TlsSource
from tests.transport.support import HOST, Calls, raw, serving, until, unverified, write_pair

Factory = Callable[[], asyncio.AbstractEventLoop]
Listen = Callable[..., Any]
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def rsa_pair() -> tuple[bytes, bytes]:
    """As `self_signed`, with another kind of key."""
    key = rsa.generate_private_key(65_537, 2_048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "rsa")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return builder.sign(key, hashes.SHA256()).public_bytes(pem), private


def served(client: Any) -> bytes:
    """The certificate a connection got, PEM."""
    der = client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return ssl.DER_cert_to_PEM_cert(der).encode()


def test_the_self_signed_certificate() -> None:
    certificate = x509.load_pem_x509_certificate(self_signed()[0])
    assert certificate.subject.rfc4514_string() == "O=Inference Ext"
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    assert certificate.public_key().curve.name == "secp256r1"
    now = datetime.now(UTC)
    assert certificate.not_valid_before_utc < now
    assert certificate.not_valid_after_utc > now + timedelta(days=3_649)
    assert self_signed() != self_signed()


@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("name", ["localhost", None])
async def test_a_new_handshake_sees_the_new_certificate(
    listen: Listen, loop_factory: Factory, tmp_path: Path, version: ssl.TLSVersion, name: str | None
) -> None:
    """With and without a server name; the new key may be of another kind. Old connections live on."""
    pairs = [self_signed(), rsa_pair(), self_signed()]
    write_pair(tmp_path, pairs[0])
    tls = TlsSource(tmp_path)
    calls = Calls()
    async with contextlib.AsyncExitStack() as stack:
        listener = await stack.enter_async_context(serving(listen, calls, tls=tls))
        clients = []
        for pair in pairs:
            write_pair(tmp_path, pair)
            assert tls.reload_if_changed() == (pair is not pairs[0])
            client = await stack.enter_async_context(raw(listener.port, unverified(version), server_name=name))
            assert served(client) == pair[0]
            clients.append(client)
        for client in clients:
            assert (await client.call(b"x")).status == b"0"


async def test_a_replacement_that_cannot_be_used_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "epp.transport")
    good, other = self_signed(), self_signed()
    write_pair(tmp_path, good)
    tls = TlsSource(tmp_path)
    assert not tls.reload_if_changed()
    for bad in ((other[0], good[1]), (b"nothing", good[1]), (b"", b"")):
        write_pair(tmp_path, bad)
        assert not tls.reload_if_changed()
        assert not tls.reload_if_changed()
        assert tls.pem() == good
    (tmp_path / "tls.key").unlink()
    assert not tls.reload_if_changed()
    assert not tls.reload_if_changed()
    complaints = [record.getMessage() for record in caplog.records]
    assert len(complaints) == 3  # The same complaint is made once.
    assert all(str(tmp_path) in line and "last good certificate stays" in line for line in complaints)
    assert all("\n" not in line for line in complaints)
    write_pair(tmp_path, other)
    assert tls.reload_if_changed()
    assert tls.pem() == other


async def test_a_kubernetes_secret_is_replaced_by_one_symlink(tmp_path: Path) -> None:
    pairs = [self_signed(), self_signed()]
    for number, pair in enumerate(pairs):
        write_pair(tmp_path / f"..{number}", pair)
    (tmp_path / "..data").symlink_to("..0")
    for file in ("tls.crt", "tls.key"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    tls = TlsSource(tmp_path)
    assert tls.pem() == pairs[0]
    (tmp_path / "..next").symlink_to("..1")
    (tmp_path / "..next").rename(tmp_path / "..data")
    assert tls.reload_if_changed()
    assert tls.pem() == pairs[1]


async def test_watching(tmp_path: Path) -> None:
    write_pair(tmp_path, self_signed())
    tls = TlsSource(tmp_path)
    replaced = self_signed()
    task = asyncio.ensure_future(tls.watch(0.01))
    write_pair(tmp_path, replaced)
    await until(lambda: tls.pem() == replaced)
    task.cancel()
    assert (await asyncio.gather(task, return_exceptions=True))[0] is not None


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, r"cannot read .*/tls\.crt: No such file.* holds tls\.crt and tls\.key"),
        ({"tls.crt": b"x"}, r"cannot read .*/tls\.key"),
        ({"tls.crt": b"x", "tls.key": b"y"}, r"cannot use tls\.crt and tls\.key in .*PEM"),
        ({"tls.crt": self_signed()[0], "tls.key": self_signed()[1]}, "KEY_VALUES_MISMATCH"),
    ],
)
def test_a_bad_directory_stops_the_start(tmp_path: Path, files: dict[str, bytes], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StartError, match=says) as caught:
        TlsSource(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_an_encrypted_key_stops_the_start_instead_of_asking(tmp_path: Path) -> None:
    certificate, key = self_signed()
    locked = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    write_pair(tmp_path, (certificate, locked))
    with pytest.raises(StartError, match="encrypted"):
        TlsSource(tmp_path)


def test_a_source_works_without_memfd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.memfd_create")
    assert TlsSource().context()


@pytest.mark.parametrize(("name", "minimum"), [("TLSv1.2", TLS12), ("TLSv1.3", TLS13)])
async def test_minimum_versions(listen: Listen, name: Literal["TLSv1.2", "TLSv1.3"], minimum: ssl.TLSVersion) -> None:
    tls = TlsSource(min_version=name)
    if not tls.plain and "grpcio" in listen.__module__:
        with pytest.raises(StartError, match="libnghttp2"):
            await listen({}, HOST, 0, tls=tls)
        return
    async with serving(listen, Calls(), tls=tls) as listener:
        for version in (TLS12, TLS13):
            if version < minimum:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await asyncio.open_connection(HOST, listener.port, ssl=unverified(version))
            else:
                async with raw(listener.port, unverified(version)) as client:
                    assert (await client.call(b"x")).status == b"0"


async def test_cipher_suites(listen: Listen) -> None:
    suite = "ECDHE-ECDSA-AES256-GCM-SHA384"
    tls = TlsSource(cipher_suites=[suite, "NO-SUCH-SUITE"])
    if "grpcio" in listen.__module__:
        with pytest.raises(StartError, match="libnghttp2"):
            await listen({}, HOST, 0, tls=tls)
        return
    async with serving(listen, Calls(), tls=tls) as listener:
        async with raw(listener.port, unverified(TLS12)) as client:
            assert client.writer.get_extra_info("cipher")[0] == suite
        async with raw(listener.port, unverified(TLS13)) as client:
            assert (await client.call(b"x")).status == b"0"


def test_no_cipher_suite_left() -> None:
    with pytest.raises(StartError, match="none of the TLS cipher suites is available here: NO-SUCH-SUITE"):
        TlsSource(cipher_suites=["NO-SUCH-SUITE"])


async def test_a_silent_tls_handshake_ends(loop_factory: Factory) -> None:
    async with serving(h2.listen, Calls(), tls=TlsSource(), limits=Limits(handshake_s=0.2)) as listener:
        reader, writer = await asyncio.open_connection(HOST, listener.port)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.transport.abort()
        async with raw(listener.port, unverified()) as client:
            assert (await client.call(b"x")).status == b"0"
