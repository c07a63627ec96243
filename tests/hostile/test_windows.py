# SPDX-License-Identifier: Apache-2.0
"""Games with flow control: what a peer can make the server hold is bounded, whichever window it keeps shut."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.hostile.server import MIB, Server, attacked, running
from tests.hostile.target import OPEN_PATH
from tests.hostile.wire import (
    CANCEL,
    DATA,
    FLOW_CONTROL_ERROR,
    PING,
    PREFACE,
    WINDOW_UPDATE,
    Peer,
    data,
    frame,
    headers,
    message,
    request,
    settings,
    window_update,
)

MOST_WINDOW = (1 << 31) - 1


class Spender(Peer):
    """Keeps to the windows it is given, and uses them up."""

    def __init__(self, port: int, streams: int, window_bytes: int = 0, path: str = "") -> None:
        super().__init__(port, greet=False)
        self.left: dict[int, int] = {}
        self.left_bytes = 65_535
        self.spent_bytes = 0
        self.say(PREFACE, settings({4: window_bytes}))
        assert self.sync()
        self.left = dict.fromkeys(range(1, 2 * streams, 2), self.settings[4])
        fields = [(":path", path)] if path else []
        self.say(*[headers(number, request(*fields)) for number in self.left])

    def _note(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        super()._note(kind, flags, stream_id, payload)
        if kind == WINDOW_UPDATE:
            if stream_id in self.left:
                self.left[stream_id] += int.from_bytes(payload, "big")
            elif not stream_id:
                self.left_bytes += int.from_bytes(payload, "big")

    def spend(self, chunk: bytes, most_bytes: int, wait_s: float = 6.0) -> None:
        """Send `chunk` wherever a window allows, until none does or `most_bytes` are sent."""
        deadline_s = time.monotonic() + wait_s
        size = len(chunk)
        while self.spent_bytes < most_bytes and time.monotonic() < deadline_s:
            before = self.spent_bytes
            for number, left in self.left.items():
                if left >= size and self.left_bytes >= size and not self.seen(number).ended:
                    self.say(data(number, chunk))
                    self.left[number] -= size
                    self.left_bytes -= size
                    self.spent_bytes += size
            if not self.sync() or before == self.spent_bytes:
                return


def test_output_nobody_takes_is_bounded_over_all_streams() -> None:
    """200 calls whose stream windows are shut send what they are allowed to; each is echoed."""
    with running() as server, attacked(server, 48 * MIB), Spender(server.port, 200) as peer:
        peer.spend(message(b"x" * 15_995), 1_000 * MIB)
        assert 16 * MIB < peer.spent_bytes < 40 * MIB
        assert peer.goaway is None


def test_tiny_messages_nobody_takes_are_bounded() -> None:
    """An empty message costs far more to hold than its five bytes on the wire, so the bound is coarser."""
    limits = {"connection_output_bytes": 1 * MIB, "connection_window_bytes": 1 * MIB}
    with running(limits=limits) as server, attacked(server, 48 * MIB), Spender(server.port, 50) as peer:
        peer.spend(message(b"") * 1_000, 1_000 * MIB)
        assert peer.spent_bytes < 4 * MIB
        assert peer.goaway is None


def test_the_only_connections_window_shut_is_bounded() -> None:
    """The connection's window stays at 65,535 bytes and is never opened; the streams' are large."""
    with running() as server, attacked(server, 48 * MIB), Spender(server.port, 100, MOST_WINDOW) as peer:
        peer.spend(message(b"x" * 15_995), 1_000 * MIB)
        assert peer.spent_bytes < 40 * MIB
        assert peer.goaway is None


def test_a_peer_that_never_reads_its_socket_is_bounded_and_dropped() -> None:
    limits = {"stalled_output_s": 1.0}
    with running(limits=limits) as server, attacked(server, 24 * MIB), Peer(server.port, buffer_bytes=4_096) as peer:
        peer.say(settings({4: MOST_WINDOW}), window_update(0, 1 << 30))
        assert peer.sync()
        peer.say(headers(1))
        peer.sock.settimeout(6.0)
        said = 0
        while peer.say(data(1, message(b"x" * 15_000)) * 10):
            said += 150_000
        assert said < 100 * MIB


def test_pings_nobody_reads_the_answers_of_are_bounded(server: Server) -> None:
    with Peer(server.port, buffer_bytes=4_096) as peer:
        with contextlib.suppress(TimeoutError):
            peer.sock.settimeout(2.0)
            for _ in range(300):
                if not peer.say(frame(PING, payload=b"12345678") * 1_000):
                    return
        pytest.fail("300,000 pings are too many")


def test_a_stream_that_takes_nothing_is_reset_and_the_others_are_not() -> None:
    limits = {"stalled_output_s": 0.5}
    with running(limits=limits) as server, attacked(server, 16 * MIB), Spender(server.port, 2) as peer:
        peer.say(window_update(3, 1_000), data(1, message(b"x" * 5_000)), data(3, message(b"x")))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).reset == CANCEL
        peer.say(data(3, message(b"y"), end=True))
        assert peer.until(lambda: peer.seen(3).ended)
        assert peer.seen(3).status == "0"


def test_windows_of_one_byte_are_served(server: Server) -> None:
    with Peer(server.port) as peer:
        peer.say(settings({4: 1}))
        assert peer.sync()
        peer.say(headers(1), data(1, message(b"x" * 995), end=True))
        seen = peer.seen(1)
        for have in range(1, 1_000):
            assert peer.until(lambda have=have: len(seen.data) >= have)
            peer.say(window_update(1, 1))
        assert peer.until(lambda: seen.ended)
        assert (len(seen.data), seen.status) == (1_000, "0")
        assert peer.count[DATA] == 1_000


def test_a_window_that_shrinks_below_zero_recovers(server: Server) -> None:
    with Spender(server.port, 1, 50_000) as peer:
        peer.say(data(1, message(b"x" * 14_995)) * 4)
        seen = peer.seen(1)
        assert peer.until(lambda: len(seen.data) == 50_000)
        peer.say(settings({4: 1}), window_update(1, 40_000))
        assert peer.sync()
        assert len(seen.data) == 50_000
        peer.say(window_update(1, 20_010), data(1, message(b""), end=True))
        assert peer.until(lambda: seen.ended)
        assert (len(seen.data), seen.status) == (60_005, "0")


def test_more_than_the_window_costs_the_connection(server: Server) -> None:
    with Spender(server.port, 1) as peer:
        peer.say(*[data(1, message(b"x" * 15_995))] * 100)
        assert peer.until_gone() == FLOW_CONTROL_ERROR


def test_messages_that_never_arrive_whole_are_bounded_over_all_connections() -> None:
    limits = {"incomplete_bytes": 24 * MIB, "all_incomplete_bytes": 48 * MIB}
    with running(limits=limits) as server, attacked(server, 80 * MIB), contextlib.ExitStack() as open_peers:
        started = message(b"x" * 15_995, length=60 * MIB)
        refused = 0
        for _ in range(4):
            peer = open_peers.enter_context(Spender(server.port, 150, path=OPEN_PATH))
            peer.spend(started, 30 * MIB)
            refused += sum(seen.status == "8" for seen in peer.streams.values())
        assert refused > 100
