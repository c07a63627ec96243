# SPDX-License-Identifier: Apache-2.0
"""The metrics page over TLS: certificates that are replaced, clients that must show one, clients that say nothing."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from epp.admin import Admin, server
from epp.admin.connections import Connections
from epp.contract.errors import StartError
from epp.observe.metrics.page import MetricsRegistry
from epp.transport.selfsigned import self_signed
from epp.transport.tls import TlsSource
from tests.service.test_admin import HOST, get, reset

PEM = serialization.Encoding.PEM
Pair = tuple[bytes, bytes]


def signed(name: str, by: Pair | None = None, ca: bool = False) -> Pair:
    """A certificate and its key, PEM; signed `by` another one or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = x509.load_pem_x509_certificate(by[0]).subject if by else subject
    signer: Any = serialization.load_pem_private_key(by[1], None) if by else key
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    private = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(PEM), private


def mount(directory: Path, version: str, pair: Pair) -> None:
    """A secret as the kubelet mounts it and replaces it: the link `..data` is turned to a new directory."""
    fresh = directory / f"..{version}"
    fresh.mkdir(parents=True)
    for name, content in zip(("tls.crt", "tls.key"), pair, strict=True):
        (fresh / name).write_bytes(content)
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)
    turned = directory / "..data_tmp"
    turned.symlink_to(fresh.name)
    os.replace(turned, directory / "..data")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_RELOAD_S", 0.0)
    monkeypatch.setattr(server, "_POLL_S", 0.01)


@contextlib.contextmanager
def secure(directory: Path, client_ca_file: Path | None = None) -> Iterator[Admin]:
    tls = TlsSource(directory, protocols=("http/1.1",), client_ca_file=client_ca_file)
    admin = Admin(HOST, 0, MetricsRegistry(), lambda: None, tls=tls)
    try:
        yield admin
    finally:
        admin.close()


def trusting(pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode())
    return context


def fetch(port: int, trusted: bytes, ours: Path | None = None, version: ssl.TLSVersion | None = None) -> int:
    """The status of /metrics; the server must show a certificate that is among `trusted`."""
    context = trusting(trusted)
    if version is not None:
        context.maximum_version = version
    if ours is not None:
        context.load_cert_chain(ours)
    connection = http.client.HTTPSConnection("localhost", port, timeout=10, context=context)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def refused(port: int, trusted: bytes, ours: Path | None = None) -> bool:
    try:
        fetch(port, trusted, ours)
    except (OSError, http.client.HTTPException):
        return True
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never came true")


def test_a_certificate_is_replaced(tmp_path: Path) -> None:
    pairs = [signed("one"), signed("two")]
    mount(tmp_path, "1", pairs[0])
    with secure(tmp_path) as admin:
        assert fetch(admin.port, pairs[0][0]) == 200
        assert refused(admin.port, pairs[1][0])
        mount(tmp_path, "2", pairs[1])
        wait_for(lambda: not refused(admin.port, pairs[1][0]))
        assert refused(admin.port, pairs[0][0])


def test_half_a_certificate_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = signed("old"), signed("new")
    (tmp_path / "tls.crt").write_bytes(old[0])
    (tmp_path / "tls.key").write_bytes(old[1])
    with secure(tmp_path) as admin:
        (tmp_path / "tls.crt").write_bytes(new[0])
        wait_for(lambda: "the last good certificate stays in use" in caplog.text)
        assert fetch(admin.port, old[0]) == 200
        (tmp_path / "tls.key").write_bytes(new[1])
        wait_for(lambda: not refused(admin.port, new[0]))


def test_clients_must_show_a_certificate(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, ca, other = signed("us"), signed("ca", ca=True), signed("other", ca=True)
    mount(tmp_path / "tls", "1", ours)
    pairs = {"good": signed("client", ca), "bad": signed("client", other), "itself": signed("itself")}
    files = {name: tmp_path / f"{name}.pem" for name in pairs}
    for name, file in files.items():
        file.write_bytes(b"".join(pairs[name]))
    ca_file = tmp_path / "clients.crt"
    ca_file.write_bytes("# our scrapers, für uns\n".encode() + ca[0] + pairs["itself"][0])
    with secure(tmp_path / "tls", ca_file) as admin:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert fetch(admin.port, ours[0], files["good"], version) == 200
        assert fetch(admin.port, ours[0], files["itself"]) == 200
        assert refused(admin.port, ours[0])
        assert refused(admin.port, ours[0], files["bad"])
        # Other clients are let in from now on, and none of the old ones.
        ca_file.write_bytes(other[0])
        wait_for(lambda: not refused(admin.port, ours[0], files["bad"]))
        assert refused(admin.port, ours[0], files["good"])
        ca_file.write_bytes(b"nothing")
        wait_for(lambda: "fit in PEM form; the last good certificate stays" in caplog.text)
        assert fetch(admin.port, ours[0], files["bad"]) == 200


def test_files_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    mount(tmp_path / "tls", "1", self_signed())
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk")
    for file, reason in ((tmp_path / "missing", "No such file"), (junk, "no certificates that fit in PEM form")):
        with pytest.raises(StartError, match=f"client CA file {file}.*{reason}"), secure(tmp_path / "tls", file):
            pass
    with pytest.raises(StartError, match=r"cannot read .*/tls.crt"), secure(tmp_path / "nowhere"):
        pass


RUDE = {
    "says nothing": b"",
    "plain HTTP": b"GET /metrics HTTP/1.1\r\n\r\n",
    "half a hello": b"\x16\x03\x01\x02\x00\x01",
}


@pytest.mark.parametrize("data", RUDE.values(), ids=RUDE)
def test_a_client_that_does_not_shake_hands_stops_nobody(tmp_path: Path, data: bytes, capfd: Any) -> None:
    pair = signed("us")
    mount(tmp_path, "1", pair)
    with secure(tmp_path) as admin, contextlib.ExitStack() as stack:
        for _ in range(10):
            silent = stack.enter_context(socket.create_connection((HOST, admin.port)))
            silent.sendall(data)
        assert fetch(admin.port, pair[0]) == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("data", [b"", RUDE["half a hello"]])
@pytest.mark.parametrize("leave", [reset, socket.socket.close])
def test_a_client_that_leaves_in_the_handshake(tmp_path: Path, data: bytes, leave: Any, capfd: Any) -> None:
    pair = signed("us")
    mount(tmp_path, "1", pair)
    with secure(tmp_path) as admin:
        gone = socket.create_connection((HOST, admin.port))
        gone.sendall(data)
        wait_for(lambda: len(admin._server.connections) == 1)
        leave(gone)
        wait_for(lambda: len(admin._server.connections) == 0)
        assert fetch(admin.port, pair[0]) == 200
    assert capfd.readouterr().err == ""


def test_a_handshake_has_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_S", 0.05)
    mount(tmp_path, "1", signed("us"))
    with secure(tmp_path) as admin, socket.create_connection((HOST, admin.port), timeout=10) as silent:
        assert silent.recv(1) == b""
        assert len(admin._server.connections) == 0


def test_the_end_is_told(tmp_path: Path) -> None:
    """A client that insists on TLS's own end of the stream sees it."""
    pair = signed("us")
    mount(tmp_path, "1", pair)
    with (
        secure(tmp_path) as admin,
        socket.create_connection((HOST, admin.port), timeout=10) as raw,
        trusting(pair[0]).wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as client,
    ):
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        while client.recv(1000):
            pass


@pytest.mark.parametrize("encrypted", [False, True], ids=["http", "https"])
def test_idle_connections_give_way(tmp_path: Path, encrypted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times as many as there are places; the oldest are closed, and who asks is answered."""
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 8)
    pair = signed("us")
    mount(tmp_path, "1", pair)
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        if encrypted:
            admin = stack.enter_context(secure(tmp_path))
        else:
            admin = Admin(HOST, 0, MetricsRegistry(), lambda: None)
            stack.callback(admin.close)
        idle = [stack.enter_context(socket.create_connection((HOST, admin.port), timeout=10)) for _ in range(24)]
        for connection in idle[:16]:
            assert connection.recv(1) == b""
        for _ in range(3):
            assert (fetch(admin.port, pair[0]) if encrypted else get(admin.port, "/metrics")[0]) == 200
        assert len(admin._server.connections) <= 8
        assert threading.active_count() <= before + 9


def test_what_is_being_answered_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 4)
    go_on = threading.Event()
    began = threading.Semaphore(0)

    def ready() -> str | None:
        began.release()
        go_on.wait(10)
        return None

    statuses: list[int] = []
    admin = Admin(HOST, 0, MetricsRegistry(), ready)
    asking = [threading.Thread(target=lambda: statuses.append(get(admin.port, "/readyz")[0])) for _ in range(3)]
    for thread in asking:
        thread.start()
        assert began.acquire(timeout=10)
    with contextlib.closing(admin):
        idle = [socket.create_connection((HOST, admin.port), timeout=10) for _ in range(3)]
        for connection in idle[:2]:
            assert connection.recv(1) == b""
        assert get(admin.port, "/healthz")[0] == 200
        go_on.set()
        for thread in asking:
            thread.join(10)
        assert statuses == [200] * 3
        for connection in idle:
            connection.close()


def test_when_all_are_being_answered_a_new_one_waits_a_moment() -> None:
    places = Connections(1, patience_s=0.01)
    (one, peer), (two, other) = socket.socketpair(), socket.socketpair()
    with one, peer, two, other:
        assert places.admit(one)
        with places.answering(one):
            assert not places.admit(two)
        waiting = threading.Thread(target=lambda: (peer.recv(1), places.left(one)))
        waiting.start()
        # `one` waits for its client again: it is cut, its thread leaves, and there is a place.
        places._patience_s = 10.0
        assert places.admit(two)
        waiting.join()
        assert len(places) == 1
        places.left(two)
        places.left(two)
        assert len(places) == 0
