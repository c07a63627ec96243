# SPDX-License-Identifier: Apache-2.0
"""Certificates that are replaced as a kubelet does it, by swapping the symlink `..data`, while requests come."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from epp.transport.selfsigned import self_signed
from tests.e2e.client import JSON, Load, chat, head, post
from tests.e2e.stack import Stack, envoy, stack

pytestmark = pytest.mark.envoy

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


class Secret:
    """A mounted secret."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0
        self.put(*self_signed())
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(Path("..data") / name)

    def put(self, certificate: bytes, key: bytes) -> bytes:
        """Replace both files in one step; the new certificate as DER."""
        self._count += 1
        version = self.folder / f"..2026_{self._count}"
        version.mkdir()
        (version / "tls.crt").write_bytes(certificate)
        (version / "tls.key").write_bytes(key)
        (self.folder / "..data_tmp").symlink_to(version.name)
        os.replace(self.folder / "..data_tmp", self.folder / "..data")
        self.der = ssl.PEM_cert_to_DER_cert(certificate.decode()) if b"BEGIN" in certificate else b""
        return self.der


def handshake(port: int, version: ssl.TLSVersion) -> bytes:
    """Connect with exactly `version`; the certificate that was shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, context.wrap_socket(raw) as sock:
        assert sock.selected_alpn_protocol() == "h2"
        assert sock.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]
        shown = sock.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def request(number: int) -> bytes:
    body = chat(f"request {number}")
    return head("POST", "/v1/chat/completions", {**JSON, "content-length": str(len(body))}) + body


def shown_within(port: int, der: bytes, seconds: float) -> None:
    """Both versions show `der` within `seconds`."""
    deadline_s = time.monotonic() + seconds
    for version in VERSIONS:
        while handshake(port, version) != der:
            assert time.monotonic() < deadline_s, f"{version.name} still shows another certificate"
            time.sleep(0.05)


@pytest.fixture(params=["ngh2", "grpcio"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Stack, Secret]]:
    secret = Secret(tmp_path)
    flags = (f"--certPath={tmp_path}", "--enable-cert-reload", f"--transport={request.param}")
    with stack(*flags) as started:
        yield started, secret


def test_a_new_certificate_costs_no_request(running: tuple[Stack, Secret]) -> None:
    stack_, secret = running
    port = stack_.epp.port
    first = secret.der
    shown_within(port, first, 0)
    load = Load(stack_.port, request, connections=32)

    async def disturb() -> None:
        work = asyncio.ensure_future(load.run())
        await asyncio.sleep(0.3)
        for _ in range(2):
            new = secret.put(*self_signed())
            assert new != first
            await asyncio.to_thread(shown_within, port, new, 8.0)
            # A gateway that connects now gets the new one, and its requests are served.
            await asyncio.to_thread(through_a_new_gateway, port)
        load.stop()
        await work

    uvloop.run(disturb())
    assert (load.failed, set(load.answers)) == ({}, {200})
    stack_.epp.settled()
    assert stack_.epp.complaints() == []


def through_a_new_gateway(port: int) -> None:
    with envoy(port) as gateway:
        assert post(gateway.port, chat("hello")).status == 200


def test_a_pair_that_cannot_be_used_changes_nothing(running: tuple[Stack, Secret]) -> None:
    stack_, secret = running
    good = secret.der
    (_, other_key), (certificate, _) = self_signed(), self_signed()
    for pair in ((b"garbage", b"garbage"), (certificate, other_key)):
        since = len(stack_.epp.lines)
        secret.put(*pair)
        line = stack_.epp.say("the last good certificate stays in use", since)
        assert line["level"] == "error"
        assert line["msg"].startswith("cannot use tls.crt and tls.key in ")
        shown_within(stack_.epp.port, good, 0)
        assert post(stack_.port, chat("hello")).status == 200
    assert len(stack_.epp.complaints()) == 2
    shown_within(stack_.epp.port, secret.put(*self_signed()), 8.0)
