# SPDX-License-Identifier: Apache-2.0
"""Peers that come and never get anywhere: silent, half way, slow, very many, or with a TLS that is none."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import time
import warnings

import pytest

from tests.hostile.server import MIB, Server, attacked, running
from tests.hostile.wire import HOST, PREFACE, Peer, data, frame, headers, hung_up, message, settings, silent

HANDSHAKE_S = 0.5
SHORT = {"handshake_s": HANDSHAKE_S}

HALF_OPEN = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "a preface alone": PREFACE,
    "half a SETTINGS": PREFACE + settings({4: 1})[:5],
}


def test_half_open_connections_are_closed() -> None:
    with running(limits=SHORT) as server, attacked(server, 4 * MIB), contextlib.ExitStack() as crowd:
        for sock in [crowd.enter_context(silent(server.port, said)) for said in HALF_OPEN.values()]:
            hung_up(sock, 10)


def test_a_slow_connection_has_no_more_time_than_a_silent_one() -> None:
    """One byte of the preface every 50 ms would take 1.2 s."""
    with running(limits=SHORT) as server, attacked(server, 4 * MIB), silent(server.port) as sock:
        said = 0
        with contextlib.suppress(OSError):
            for byte in PREFACE:
                sock.sendall(bytes([byte]))
                said += 1
                time.sleep(0.05)
        assert said < len(PREFACE)
        hung_up(sock, 10)


def test_half_a_frame_holds_up_nobody(server: Server) -> None:
    with Peer(server.port) as half, Peer(server.port) as other:
        half.say(headers(1)[:20])
        assert other.call(1).status == "0"
        half.say(headers(1)[20:], data(1, message(b"x"), end=True))
        assert half.until(lambda: half.seen(1).ended)
        assert half.seen(1).status == "0"


def test_a_crowd_that_asks_nothing_makes_room() -> None:
    """Of 40 places 39 are silent or idle; 100 more come; one that means it gets in every time."""
    with running(limits={"connections": 40}) as server, attacked(server, 16 * MIB), contextlib.ExitStack() as crowd:
        for number in range(140):
            said = (b"", PREFACE, PREFACE + settings({}))[number % 3]
            crowd.enter_context(silent(server.port, said))
            if number % 20 == 19:
                with Peer(server.port) as peer:
                    assert peer.call(1).status == "0"
        assert server.figures()["connections"] <= 40


def test_connections_that_all_asked_are_bounded() -> None:
    with running(limits={"connections": 20}) as server, attacked(server, 16 * MIB), contextlib.ExitStack() as crowd:
        for _ in range(19):
            assert crowd.enter_context(Peer(server.port)).call(1).status == "0"
        for _ in range(5):
            with Peer(server.port) as peer:
                assert peer.until_gone() is None
        crowd.close()
        deadline_s = time.monotonic() + 10
        while server.figures()["connections"] > 1:
            assert time.monotonic() < deadline_s
        with Peer(server.port) as peer:
            assert peer.call(1).status == "0"


def test_five_hundred_connections_that_hang_up_at_once(server: Server) -> None:
    for _ in range(500):
        socket.create_connection((HOST, server.port), 10).close()
    with Peer(server.port) as peer:
        assert peer.call(1).status == "0"


# TLS.


def client(*, alpn: tuple[str, ...] = ("h2",), least: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client that trusts everyone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if least is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.minimum_version = context.maximum_version = least
    return context


NO_TLS = {
    "HTTP/2 without TLS": PREFACE + settings({}) + headers(1),
    "HTTP/1 without TLS": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "noise": os.urandom(4_096),
    "a hello of noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(508),
    "a record too long": b"\x16\x03\x01\xff\xff" + bytes(1_000),
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "application data first": b"\x17\x03\x03\x00\x10" + bytes(16),
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_what_is_no_tls_is_hung_up_on(loop: str) -> None:
    with running(tls=True, loop=loop) as server, attacked(server, 16 * MIB, tls=client()):
        for said in NO_TLS.values():
            with silent(server.port, said) as sock:
                hung_up(sock, 10)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_handshake_that_is_never_finished(loop: str) -> None:
    hello = _hello()
    with (
        running(tls=True, loop=loop, limits=SHORT) as server,
        attacked(server, 16 * MIB, tls=client()),
        contextlib.ExitStack() as crowd,
    ):
        for sock in [crowd.enter_context(silent(server.port, said)) for said in (b"", hello[:100], hello)]:
            hung_up(sock, 10)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_handshakes_under_way_count_and_make_room(loop: str) -> None:
    hello = _hello()
    limits = {"connections": 60}
    with (
        running(tls=True, loop=loop, limits=limits) as server,
        attacked(server, 48 * MIB, tls=client()),
        contextlib.ExitStack() as crowd,
    ):
        for number in range(200):
            crowd.enter_context(silent(server.port, (b"", hello)[number % 2]))
        for _ in range(3):
            with Peer(server.port, tls=client()) as peer:
                assert peer.call(1).status == "0"


def test_tls_before_1_2_is_refused() -> None:
    with running(tls=True) as server, attacked(server, 16 * MIB, tls=client()):
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                Peer(server.port, tls=client(least=version))


def test_alpn_is_offered_and_http2_spoken_in_any_case() -> None:
    """A client that names another protocol still gets HTTP/2 or nothing: there is no other here."""
    with running(tls=True) as server, attacked(server, 16 * MIB, tls=client()):
        for alpn in ((), ("http/1.1",), ("h2", "http/1.1")):
            with Peer(server.port, tls=client(alpn=alpn)) as peer:
                assert isinstance(peer.sock, ssl.SSLSocket)
                assert peer.sock.selected_alpn_protocol() == ("h2" if "h2" in alpn else None)
                assert peer.call(1).status == "0"
            with Peer(server.port, tls=client(alpn=alpn), greet=False) as peer:
                peer.say(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                peer.until_gone()


def test_tls_1_2_is_not_renegotiated() -> None:
    """OpenSSL's command-line client asks for it with a line `R`."""
    found = shutil.which("openssl")
    if found is None:
        pytest.skip("needs the command `openssl`")
    with running(tls=True) as server, attacked(server, 16 * MIB, tls=client()):
        asked = subprocess.run(
            [found, "s_client", "-connect", f"{HOST}:{server.port}", "-tls1_2", "-alpn", "h2"],
            input=b"R\n", capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        assert b"RENEGOTIATING" in asked.stdout + asked.stderr
        assert b"no renegotiation" in asked.stderr


def test_records_of_one_byte_are_read(server: Server) -> None:
    with running(tls=True) as secure, attacked(secure, 16 * MIB, tls=client()), Peer(secure.port, tls=client()) as peer:
        for byte in headers(1) + data(1, message(b"x"), end=True) + frame(6, 0, 0, b"12345678"):
            peer.say(bytes([byte]))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).status == "0"


def _hello() -> bytes:
    """A whole and good ClientHello."""
    out = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()
