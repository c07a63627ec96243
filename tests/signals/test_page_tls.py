# SPDX-License-Identifier: Apache-2.0
"""Which roots verified metrics pages are checked against, and how they follow files that are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from epp.signals.poll import roots
from epp.signals.poll.buffers import BufferPool
from epp.signals.poll.http1 import PageError
from epp.signals.poll.reader import PageReader, PageSource
from epp.signals.poll.roots import certificates, system_roots
from epp.signals.poll.tls import PageTls, page_tls
from epp.testing import FakeClock

PEM = serialization.Encoding.PEM
Run = Callable[[Any], Any]


def make_pair(address: str = "127.0.0.1") -> tuple[bytes, bytes]:
    """As KServe makes them: self-signed, always the same name, may sign nothing. Certificate and key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "KServe Self Signed")])
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        ("content_commitment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"), False
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_encipherment=True, encipher_only=False, decipher_only=False, **usage
            ),
            critical=True,
        )
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(PEM), private


def mount(directory: Path, version: str, **files: bytes) -> None:
    """As the kubelet mounts a secret, and replaces it: a new directory, then the link `..data` turned to it."""
    fresh = directory / f"..{version}"
    fresh.mkdir(parents=True)
    for name, content in files.items():
        file = name.replace("_", ".")
        (fresh / file).write_bytes(content)
        if not (directory / file).is_symlink():
            (directory / file).symlink_to(Path("..data") / file)
    turned = directory / "..data_tmp"
    turned.symlink_to(fresh.name)
    os.replace(turned, directory / "..data")


def names(environ: dict[str, str]) -> list[bytes]:
    return [ssl.DER_cert_to_PEM_cert(der).encode() for der in system_roots(environ)]


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without roots."""
    monkeypatch.setattr(roots, "BUNDLES", ())
    monkeypatch.setattr(roots, "DIRECTORIES", ())


@pytest.mark.usefixtures("nowhere")
def test_every_file_of_every_directory(tmp_path: Path) -> None:
    """KServe's SSL_CERT_DIR: a mounted secret, the service account's directory, one that does not exist."""
    (ours, key), (cluster, _), (third, _) = make_pair(), make_pair(), make_pair()
    secret, account = tmp_path / "tls", tmp_path / "account"
    mount(secret, "1", tls_crt=ours, tls_key=key, ca_crt=ours)
    mount(account, "1", ca_crt=cluster + third, token=b"eyJ", namespace=b"default")
    found = names({"SSL_CERT_DIR": f"{secret}:{account}:{tmp_path}/missing:"})
    assert found == [ours, ours, cluster, third]


def test_links_within_a_directory_are_other_names(tmp_path: Path) -> None:
    (one, _), (other, _) = make_pair(), make_pair()
    elsewhere = tmp_path / "elsewhere.pem"
    elsewhere.write_bytes(other)
    store = tmp_path / "certs"
    store.mkdir()
    (store / "one.crt").write_bytes(one)
    (store / "5ad8a5d6.0").symlink_to("one.crt")
    (store / "other.pem").symlink_to(elsewhere)
    (store / "dangling.pem").symlink_to(tmp_path / "nothing")
    (store / "sub").mkdir()
    os.mkfifo(store / "pipe")
    assert names({"SSL_CERT_FILE": "/nothing", "SSL_CERT_DIR": str(store)}) == [one, other]


def test_the_bundle_is_the_first_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pems = [make_pair()[0] for _ in range(4)]
    paths = [tmp_path / f"{number}.pem" for number in range(4)]
    for path, pem in zip(paths, pems, strict=True):
        path.write_bytes(pem)
    directory = tmp_path / "directory"
    directory.mkdir()
    (directory / "x").write_bytes(pems[3])
    monkeypatch.setattr(roots, "BUNDLES", (str(tmp_path / "missing"), str(paths[0]), str(paths[1])))
    monkeypatch.setattr(roots, "DIRECTORIES", (str(tmp_path / "missing"), str(directory)))
    assert names({}) == [pems[0], pems[3]]
    assert names({"SSL_CERT_FILE": str(paths[2])}) == [pems[2], pems[3]]
    assert names({"SSL_CERT_FILE": str(tmp_path / "missing")}) == [pems[3]]
    assert names({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""}) == [pems[0], pems[3]]
    # A file that can be read ends the search, also when it holds nothing.
    paths[0].write_bytes(b"nothing")
    assert names({}) == [pems[3]]


def test_what_is_no_certificate_is_skipped() -> None:
    pem = make_pair()[0]
    der = ssl.PEM_cert_to_DER_cert(pem.decode())
    begin, end = b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n"
    junk = begin + b"A\n" + end + b"hello " + begin + b"###\n" + end
    assert list(certificates(junk + b"text before\n" + pem.replace(b"\n", b"\r\n") + junk)) == [der]
    assert list(certificates(b"")) == []
    assert list(certificates(begin * 1000)) == []


class Asker:
    """Reads a page, a new connection each time."""

    def __init__(self, port: int, tls: PageTls) -> None:
        self._source = PageSource("127.0.0.1", port, "/metrics", tls)
        self._answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def get(self) -> str:
        """The page, or why there is none."""
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        reader = PageReader(self._source, self, loop=loop, buffers=BufferPool(), timeout_s=10)
        reader.fetch()
        try:
            return await self._answer
        finally:
            reader.close()

    def on_page(self, buffer: bytearray, start: int, end: int) -> None:
        self._answer.set_result(buffer[start:end].decode())

    def on_page_error(self, error: PageError) -> None:
        self._answer.set_result(error.reason)

    def on_idle_close(self) -> None:
        pass

    def on_reconnect(self) -> None:
        pass


@contextlib.asynccontextmanager
async def pod(pair: tuple[bytes, bytes], directory: Path, client: bytes = b"") -> AsyncIterator[int]:
    """A metrics page over https; yields its port. With `client`, who asks must show that certificate."""
    path = directory / f"pod-{pair[0][60:70].hex()}.pem"
    path.write_bytes(b"".join(pair))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=client.decode())

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def idle_executor() -> None:
    """Until what runs in threads now has ended."""
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return asyncio.run if request.param == "asyncio" else uvloop.run


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("named", ["SSL_CERT_DIR", "SSL_CERT_FILE", "caCertPath"])
def test_a_rotated_certificate_is_taken_up(run: Run, tmp_path: Path, named: str) -> None:
    old, new, stranger = make_pair(), make_pair(), make_pair()
    secret, pods = tmp_path / "tls", tmp_path / "pods"
    pods.mkdir()
    mount(secret, "1", tls_crt=old[0], tls_key=old[1], ca_crt=old[0])
    file = str(secret / "ca.crt")
    environ = {"SSL_CERT_DIR": str(secret)} if named == "SSL_CERT_DIR" else {"SSL_CERT_FILE": file}

    async def main() -> None:
        tls = page_tls(True, file if named == "caCertPath" else "", environ=environ)
        clock = tls._clock = FakeClock()
        async with pod(old, pods) as before, pod(new, pods) as after, pod(stranger, pods) as wrong:
            assert await Asker(before, tls).get() == "page"
            mount(secret, "2", tls_crt=new[0], tls_key=new[1], ca_crt=new[0])
            clock.advance(10.0)
            assert await Asker(after, tls).get() == "tls"
            await asyncio.to_thread(wait_for, lambda: len(tls._known) == 2)
            assert await Asker(after, tls).get() == "page"
            # Pods that have not been told yet go on with the old one.
            assert await Asker(before, tls).get() == "page"
            assert await Asker(wrong, tls).get() == "tls"

    run(main())


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("it never came true")


@pytest.mark.usefixtures("nowhere")
async def test_roots_are_read_at_most_every_few_seconds(tmp_path: Path) -> None:
    reads: list[int] = []

    def read() -> list[bytes]:
        reads.append(threading.get_ident())
        return []

    clock = FakeClock()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = PageTls(lambda: context, read, clock=clock)
    await asyncio.gather(*(tls.ready() for _ in range(10)))
    assert len(reads) == 1
    for _ in range(10):
        tls.doubt()
    clock.advance(2.9)
    tls.doubt()
    clock.advance(0.2)
    for _ in range(10):
        tls.doubt()
    await idle_executor()
    assert len(reads) == 2
    assert threading.get_ident() not in reads
    PageTls(lambda: context).doubt()


@pytest.mark.usefixtures("nowhere")
async def test_no_root_at_all_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "epp.signals"):
        tls = page_tls(True, environ={})
        await tls.ready()
        await tls.ready()
        unverified = page_tls(False)
        await unverified.ready()
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("no root certificate was found")


@pytest.mark.usefixtures("nowhere")
async def test_a_root_that_openssl_refuses_harms_no_other(tmp_path: Path) -> None:
    good = make_pair()
    bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "ca.crt").write_bytes(bad + good[0] + bad)
    tls = page_tls(True, environ={"SSL_CERT_DIR": str(tmp_path)})
    await tls.ready()
    assert tls.context.cert_store_stats()["x509"] == 1


def test_our_own_certificate_is_replaced(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An endpoint that asks for one, and trusts another one of us after a while."""
    ours, others = make_pair(), [make_pair(), make_pair()]
    secret = tmp_path / "tls"
    mount(secret, "1", tls_crt=others[0][0], tls_key=others[0][1])
    own = tmp_path / "pod.pem"
    own.write_bytes(b"".join(ours))

    async def main() -> None:
        files = (str(secret / "tls.crt"), str(secret / "tls.key"))
        tls = page_tls(True, str(own), files)
        clock = tls._clock = FakeClock()
        tls._look_s = clock() + 3.0
        async with pod(ours, tmp_path, others[0][0]) as before, pod(ours, tmp_path, others[1][0]) as after:
            assert await Asker(before, tls).get() == "page"
            assert await Asker(after, tls).get() != "page"
            # First a certificate with another one's key, then its own.
            mount(secret, "2", tls_crt=others[1][0], tls_key=others[0][1])
            for _ in range(2):
                clock.advance(3.5)
                assert await Asker(before, tls).get() == "page"
            mount(secret, "3", tls_crt=others[1][0], tls_key=others[1][1])
            assert await Asker(after, tls).get() != "page"
            clock.advance(3.5)
            assert await Asker(after, tls).get() == "page"
            assert await Asker(before, tls).get() != "page"

    with caplog.at_level(logging.INFO, "epp.signals"):
        run(main())
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].endswith(
        "cannot be used: it, or its key, holds nothing that fits in PEM form; the last good one stays in use"
    )
    assert lines[1].endswith("was replaced, new connections show it")
