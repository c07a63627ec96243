# SPDX-License-Identifier: Apache-2.0
"""The second transport, as far as grpcio can be told: its docstring says what it does not hold."""

from __future__ import annotations

import contextlib
import logging

import pytest

from epp.transport import grpcio
from epp.transport.call import Limits
from tests.hostile.server import MIB, attacked, running
from tests.hostile.wire import PING, Peer, data, frame, headers, hung_up, message, request, silent
from tests.transport.support import HOST, Calls, serving

FAULTS = {
    "PING flood": frame(PING, payload=b"12345678") * 5_000,
    "empty DATA flood": data(1) * 100_000,
    "SETTINGS of five bytes": frame(4, 0, 0, b"12345"),
    "HPACK out of range": headers(3, b"\xff\x80\x01"),
    "not HTTP/2": b"GET / HTTP/1.1\r\n\r\n" * 10,
}


def test_faults_and_floods_cost_their_connection() -> None:
    with running(transport="grpcio") as server, attacked(server, 48 * MIB):
        for said in FAULTS.values():
            with Peer(server.port) as peer:
                peer.say(headers(1), data(1, message(b"x")))
                assert peer.until(lambda peer=peer: peer.seen(1).data)
                peer.say(said)
                peer.until(lambda peer=peer: peer.gone or peer.goaway is not None or peer.seen(1).ended)


def test_connections_headers_and_silence_are_bounded() -> None:
    limits = {"connections": 10, "handshake_s": 0.5, "header_list_bytes": 8_192}
    with running(transport="grpcio", limits=limits) as server, attacked(server, 48 * MIB):
        with silent(server.port) as sock:
            hung_up(sock, 10)
        with Peer(server.port) as peer:
            assert peer.settings_known() == 8_192
            peer.say(headers(1, request(("x-long", "x" * 9_000)), end=True))
            assert peer.until(lambda: peer.seen(1).ended)
            assert peer.seen(1).status == "8"
        with contextlib.ExitStack() as crowd:
            answered = 0
            for _ in range(14):
                peer = crowd.enter_context(Peer(server.port))
                peer.say(headers(1), data(1, message(b"x"), end=True))
                answered += peer.until(lambda peer=peer: peer.seen(1).ended or peer.gone) and peer.seen(1).status == "0"
            assert answered == 9  # And the bystander.


async def test_bounds_that_do_not_hold_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving(grpcio.listen, Calls(), limits=Limits(stalled_output_s=5.0, control_frames=10)):
            pass
        async with serving(grpcio.listen, Calls(), host=HOST):
            pass
    assert [record.message for record in caplog.records] == [
        "the grpcio transport does not hold stalled_output_s, control_frames; the one on libnghttp2 does"
    ]
