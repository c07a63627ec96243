# SPDX-License-Identifier: Apache-2.0
"""Calls that are no good gRPC: each costs its stream, with the status gRPC has for it."""

from __future__ import annotations

import pytest

from tests.hostile.server import MIB, Server, attacked, running
from tests.hostile.wire import DATA, END_STREAM, PADDED, Peer, block, data, frame, headers, message, request

OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = "0", "3", "8", "12", "13"

REFUSED = {
    "no content-type": (request(without="content-type"), "415", INVALID_ARGUMENT),
    "another content-type": (request(("content-type", "application/json")), "415", INVALID_ARGUMENT),
    "gRPC-web": (request(("content-type", "application/grpc-web")), "415", INVALID_ARGUMENT),
    "GET": (request((":method", "GET")), "405", INTERNAL),
    "CONNECT-like": (request((":method", "OPTIONS"), (":path", "*")), "405", INTERNAL),
    "another path": (request((":path", "/no.Such/Thing")), "200", UNIMPLEMENTED),
    "a path that is none": (request((":path", "/" + "../" * 300)), "200", UNIMPLEMENTED),
    "a path of no text": (request((":path", "/\u00ff")), "200", UNIMPLEMENTED),
    "a malformed timeout": (request(("grpc-timeout", "1y")), "200", INTERNAL),
    "a long timeout": (request(("grpc-timeout", "123456789S")), "200", INTERNAL),
}


@pytest.mark.parametrize(("fields", "http", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_a_request_that_is_no_call_is_told_so(server: Server, fields: bytes, http: str, status: str) -> None:
    with Peer(server.port) as peer:
        peer.say(headers(1, fields), data(1, message(b"x"), end=True))
        seen = peer.seen(1)
        assert peer.until(lambda: seen.ended)
        assert (seen.fields[":status"], seen.status) == (http, status)
        assert peer.call(3).status == OK


def test_te_may_be_missing(server: Server) -> None:
    """gRPC asks for it to find proxies that drop it; what works without is answered."""
    with Peer(server.port) as peer:
        peer.say(headers(1, request(without="te")), data(1, message(b"x"), end=True))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).status == OK


BAD_MESSAGES = {
    "an announced length over the limit": (message(b"x", length=64 * MIB + 1), RESOURCE_EXHAUSTED),
    "an announced length of 4 GiB": (message(b"x", length=(1 << 32) - 1), RESOURCE_EXHAUSTED),
    "compressed without an encoding": (message(b"x", flag=1), INTERNAL),
    "an unknown flag": (message(b"x", flag=0x80), INTERNAL),
    "a bad message behind good ones": (message(b"x") * 300 + message(b"x", flag=9), INTERNAL),
}


@pytest.mark.parametrize(("said", "status"), BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
def test_a_bad_message_costs_its_stream(server: Server, said: bytes, status: str) -> None:
    with Peer(server.port) as peer:
        peer.say(headers(1), headers(3), data(1, said))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).status == status
        peer.say(data(3, message(b"y"), end=True))
        assert peer.until(lambda: peer.seen(3).ended)
        assert peer.seen(3).status == OK


def test_an_encoding_we_do_not_speak(server: Server) -> None:
    with Peer(server.port) as peer:
        peer.say(headers(1, request(("grpc-encoding", "gzip"))), data(1, message(b"x", flag=1)))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).status == UNIMPLEMENTED
        assert peer.seen(1).fields["grpc-accept-encoding"] == "identity"


@pytest.mark.parametrize("said", [message(b"xyz")[:3], message(b"xyz")[:6], message(b"x") * 400 + b"\0"])
def test_an_end_within_a_message(server: Server, said: bytes) -> None:
    with Peer(server.port) as peer:
        peer.say(headers(1), data(1, said, end=True))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).status == INTERNAL


def test_messages_in_pieces_of_one_byte(server: Server) -> None:
    with Peer(server.port) as peer:
        whole = message(b"abc") * 500
        peer.say(headers(1), *[data(1, whole[at : at + 1]) for at in range(len(whole))], data(1, end=True))
        assert peer.until(lambda: peer.seen(1).ended)
        assert (bytes(peer.seen(1).data), peer.seen(1).status) == (whole, OK)


def test_a_message_with_padding_everywhere(server: Server) -> None:
    with Peer(server.port) as peer:
        whole = message(b"abc") * 50
        pieces = [frame(DATA, PADDED, 1, b"\xff" + whole[at : at + 1] + bytes(255)) for at in range(len(whole))]
        peer.say(headers(1), *pieces, frame(DATA, PADDED | END_STREAM, 1, b"\0"))
        assert peer.until(lambda: peer.seen(1).ended)
        assert (bytes(peer.seen(1).data), peer.seen(1).status) == (whole, OK)


def test_very_many_tiny_messages_are_answered_in_order(server: Server) -> None:
    """26,000 messages in eight frames; the half-close comes right behind them."""
    with Peer(server.port) as peer:
        assert peer.sync()
        whole = b"".join(message(bytes([number % 251])) for number in range(20_000))
        pieces = [data(1, whole[at : at + 16_000]) for at in range(0, len(whole), 16_000)]
        peer.say(headers(1), *pieces, data(1, end=True))
        seen = peer.seen(1)
        for end in range(60_000, len(whole), 60_000):
            assert peer.until(lambda end=end: len(seen.data) >= end)
            peer.say(_window(0, 60_000), _window(1, 60_000))
        assert peer.until(lambda: seen.ended)
        assert (seen.status, bytes(seen.data)) == (OK, whole)


def _window(stream_id: int, size: int) -> bytes:
    return frame(8, 0, stream_id, size.to_bytes(4, "big"))


def test_a_message_of_the_largest_size_and_one_byte_more() -> None:
    limits = {"message_bytes": 200_000}
    with running(limits=limits) as server, attacked(server, 16 * MIB), Peer(server.port) as peer:
        assert peer.sync()
        for stream_id, size, status in ((1, 200_000, OK), (3, 200_001, RESOURCE_EXHAUSTED)):
            whole = message(b"x" * size)
            peer.say(frame(8, 0, 0, (1 << 20).to_bytes(4, "big")), headers(stream_id), _window(stream_id, 1 << 20))
            peer.say(*[data(stream_id, whole[at : at + 16_000]) for at in range(0, len(whole), 16_000)])
            peer.say(data(stream_id, end=True))
            assert peer.until(lambda stream_id=stream_id: peer.seen(stream_id).ended)
            assert peer.seen(stream_id).status == status


def test_trailers_before_and_after_data(server: Server) -> None:
    with Peer(server.port) as peer:
        peer.say(headers(1), headers(1, block([("x-end", "1")]), end=True))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).status == OK
        peer.say(headers(3), data(3, message(b"x")), headers(3, block([("x-end", "1")]), end=True))
        assert peer.until(lambda: peer.seen(3).ended)
        assert (peer.seen(3).status, bytes(peer.seen(3).data)) == (OK, message(b"x"))
