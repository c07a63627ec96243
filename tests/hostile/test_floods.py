# SPDX-License-Identifier: Apache-2.0
"""Floods: who sends frames of no use faster than `Limits.control_frames` a second loses the connection, and only that.

Whatever is sent, and however much of it in one write, others are answered all the while (`attacked`) and the server's
memory stays where the test says.
"""

from __future__ import annotations

import itertools

import pytest

from tests.hostile.server import MIB, Server, attacked, running
from tests.hostile.wire import (
    DATA,
    ENHANCE_YOUR_CALM,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_UPDATE,
    REQUEST,
    Peer,
    block,
    data,
    frame,
    headers,
    literal,
    message,
    request,
    rst_stream,
    settings,
    window_update,
)

FRAMES = 300_000
MOST = 24 * MIB

FLOODS = {
    "PING": frame(PING, payload=b"12345678"),
    "SETTINGS": settings({}),
    "SETTINGS that change the window": settings({4: 1}) + settings({4: 65_535}),
    "empty DATA": data(1),
    "DATA of padding alone": frame(DATA, PADDED, 1, b"\x05" + bytes(5)),
    "PRIORITY": frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"),
    "PRIORITY_UPDATE": frame(PRIORITY_UPDATE, payload=b"\0\0\0\1u=1"),
    "WINDOW_UPDATE of the connection": window_update(0, 1),
    "WINDOW_UPDATE of a stream": window_update(1, 1),
    "unknown frames": frame(0x77),
    "RST_STREAM of a closed stream": rst_stream(3),
}


def expelled(peer: Peer) -> bool:
    """Whether the server hung up, with ENHANCE_YOUR_CALM unless the reset overtook it."""
    return peer.until_gone() in (ENHANCE_YOUR_CALM, None)


@pytest.mark.parametrize("said", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_of_useless_frames_costs_its_connection(server: Server, said: bytes) -> None:
    with Peer(server.port) as peer:
        peer.say(headers(1), data(1, message(b"x")), headers(3), rst_stream(3))
        assert peer.until(lambda: peer.seen(1).data)
        for _ in range(10):
            if not peer.say(said * (FRAMES // 10)):
                break
        assert expelled(peer)


def teach(peer: Peer, stream_id: int = 1) -> None:
    """A first request that puts everything into the dynamic table."""
    fields = [literal(name.encode(), value.encode(), indexed=True) for name, value in REQUEST[2:]]
    peer.say(headers(stream_id, b"\x83\x86" + b"".join(fields)), data(stream_id, message(b"x")))
    assert peer.until(lambda: peer.seen(stream_id).data)


# Each is what is said for one stream. The bad ones make the server reset it.
RESETS = {
    "opened and reset": lambda number: headers(number) + rst_stream(number),
    "opened and reset, HPACK-indexed": lambda number: headers(number, b"\x83\x86\xc1\xc0\xbf\xbe") + rst_stream(number),
    "opened and reset with a message": lambda number: headers(number) + data(number, b"\0") + rst_stream(number),
    "headers twice": lambda number: headers(number) + headers(number, block([("a", "b")])),
    "malformed headers": lambda number: headers(number, request(("Bad", "x"))),
    "content-length not kept": lambda number: (
        headers(number, request(("content-length", "1"))) + data(number, message(b"xyz"))
    ),
    "gRPC frames of no kind": lambda number: headers(number) + data(number, message(b"x", flag=7)),
}


@pytest.mark.parametrize("kind", RESETS)
def test_rapid_resets_cost_their_connection(kind: str) -> None:
    """CVE-2023-44487: the peer resets; the other way (MadeYouReset): it makes the server reset."""
    limits = {"control_frames": 1_000}
    with running(limits=limits) as server, attacked(server, MOST), Peer(server.port) as peer:
        teach(peer)
        numbers = itertools.count(3, 2)
        for _ in range(10):
            if not peer.say(*[RESETS[kind](next(numbers)) for _ in range(2_000)]):
                break
        assert peer.until(lambda: peer.goaway is not None or peer.gone)
        peer.close()
        assert server.figures()["open"] <= 1


def test_a_read_full_of_requests_is_answered_in_turns(server: Server) -> None:
    """9,000 calls in one write: all are answered, and nobody waits for them (`attacked`)."""
    with Peer(server.port) as peer:
        teach(peer)
        numbers = range(3, 18_003, 2)
        peer.say(*[headers(number, b"\x83\x86\xc1\xc0\xbf\xbe", end=True) for number in numbers])
        assert peer.until(lambda: all(peer.seen(number).ended for number in numbers))
        assert {peer.seen(number).status for number in numbers} == {"0"}
        assert peer.goaway is None


def test_ten_thousand_streams_stay_open_and_the_next_is_refused() -> None:
    with running() as server, attacked(server, MOST), Peer(server.port) as peer:
        assert peer.sync()
        assert peer.settings[3] == 10_000
        peer.say(*[headers(number) for number in range(1, 20_000, 2)])
        assert peer.sync()
        assert peer.until(lambda: server.figures()["open"] >= 10_000)
        for number in (20_001, 20_003):
            peer.say(headers(number), data(number, message(b"x")))
            assert peer.until(lambda number=number: peer.seen(number).ended)
            assert peer.seen(number).reset == 7
        peer.say(data(1, message(b"x"), end=True))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.call(20_005).status == "0"
        assert peer.goaway is None


def test_headers_that_unpack_to_a_thousand_times_their_size_are_not_kept() -> None:
    """Every request is 20 bytes and unpacks to 12 KB; 9,000 of them are open at once."""
    with running() as server, attacked(server, 40 * MIB), Peer(server.port) as peer:
        fields = [(name, value) for name, value in REQUEST[2:]] + [("x-large", "x" * 3_000)]
        learnt = [literal(name.encode(), value.encode(), indexed=True) for name, value in fields]
        peer.say(headers(1, b"\x83\x86" + b"".join(learnt)))
        repeated = b"\x83\x86\xc2\xc1\xc0\xbf" + b"\xbe" * 4
        for first in range(3, 18_003, 2_000):
            peer.say(*[headers(number, repeated) for number in range(first, first + 2_000, 2)])
        assert peer.sync()
        assert peer.until(lambda: server.figures()["open"] >= 9_001)
        assert peer.goaway is None


def test_refusals_are_shorter_than_what_is_refused() -> None:
    """A path of percent-encoded length costs 20 bytes to repeat; its answer is bounded, also when none is read."""
    with running() as server, attacked(server, MOST):
        with Peer(server.port, buffer_bytes=4_096) as peer:
            path = literal(b":path", b"/" + b"\xff" * 3_000, indexed=True)
            peer.say(headers(1, b"\x83\x86" + path + block(REQUEST[3:])))
            peer.sock.settimeout(1.0)
            try:
                for first in range(3, 100_003, 2_000):
                    numbers = range(first, first + 2_000, 2)
                    if not peer.say(*[headers(n, b"\x83\x86\xbe" + block(REQUEST[3:]), end=True) for n in numbers]):
                        break
            except TimeoutError:
                pass
        with Peer(server.port) as peer:
            path = literal(b":path", b"/" + b"\xff" * 3_000)
            peer.say(headers(1, b"\x83\x86" + path + block(REQUEST[3:])))
            assert peer.until(lambda: peer.seen(1).ended)
            assert peer.seen(1).status == "12"
            assert len(peer.seen(1).fields["grpc-message"]) < 2_000
