# SPDX-License-Identifier: Apache-2.0
"""Malformed frames of every type: a stream's fault costs that stream, a connection's fault that connection.

Where RFC 9113 leaves a choice, or asks for a stream error and libnghttp2 takes the connection (5.4 allows it), the
table says what it does, so that a change of it is seen.
"""

from __future__ import annotations

import pytest

from tests.hostile import wire
from tests.hostile.server import Server
from tests.hostile.wire import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PRIORITY_UPDATE,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Peer,
    block,
    data,
    frame,
    headers,
    message,
    request,
    rst_stream,
    settings,
    window_update,
)

RESERVED = 1 << 31
UNKNOWN = 0x77
MOST = (1 << 31) - 1
FRAGMENT = headers(3, request()[:20], flags=0)

# Stream 1 is open and has been answered a message when these are said.
CONNECTION_FAULTS = {
    "DATA on stream 0": (data(0, b"x"), PROTOCOL_ERROR),
    "DATA on an idle stream": (data(99, b"x"), PROTOCOL_ERROR),
    "DATA padded with more than it has": (frame(DATA, PADDED, 1, b"\x05abc"), PROTOCOL_ERROR),
    "DATA padded without a length": (frame(DATA, PADDED, 1), PROTOCOL_ERROR),
    "DATA after END_STREAM": (data(1, end=True) + data(1, b"x"), STREAM_CLOSED),
    "DATA over the frame size": (data(1, bytes(16_385)), FRAME_SIZE_ERROR),
    "DATA of 16 MiB announced": (frame(DATA, 0, 1, b"x", length=(1 << 24) - 1), FRAME_SIZE_ERROR),
    "HEADERS on stream 0": (headers(0), PROTOCOL_ERROR),
    "HEADERS on an even stream": (headers(2), PROTOCOL_ERROR),
    "HEADERS padded with more than it has": (
        frame(HEADERS, END_HEADERS | PADDED, 3, b"\xff" + request()),
        PROTOCOL_ERROR,
    ),
    "HEADERS too short for its priority": (frame(HEADERS, END_HEADERS | PRIORITIZED, 3, b"\0\0"), FRAME_SIZE_ERROR),
    "HEADERS that depends on itself": (
        frame(HEADERS, END_HEADERS | PRIORITIZED, 3, b"\0\0\0\3\x10" + request()),
        PROTOCOL_ERROR,
    ),
    "HEADERS over the frame size": (headers(3, bytes(16_385)), FRAME_SIZE_ERROR),
    "HEADERS after END_STREAM": (data(1, end=True) + headers(1), STREAM_CLOSED),
    "PRIORITY of four bytes": (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "RST_STREAM of three bytes": (frame(RST_STREAM, 0, 1, b"abc"), FRAME_SIZE_ERROR),
    "RST_STREAM on stream 0": (rst_stream(0), PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (rst_stream(99), PROTOCOL_ERROR),
    "SETTINGS of five bytes": (frame(SETTINGS, 0, 0, b"12345"), FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "SETTINGS acknowledged with content": (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    "SETTINGS acknowledged more than sent": (frame(SETTINGS, ACK) * 3, PROTOCOL_ERROR),
    "SETTINGS with a window of 2^31": (settings({4: 1 << 31}), FLOW_CONTROL_ERROR),
    "SETTINGS with a small frame size": (settings({5: 100}), PROTOCOL_ERROR),
    "SETTINGS with a large frame size": (settings({5: 1 << 24}), PROTOCOL_ERROR),
    "SETTINGS with ENABLE_PUSH 2": (settings({2: 2}), PROTOCOL_ERROR),
    "SETTINGS with 33 entries": (settings({100 + name: 1 for name in range(33)}), ENHANCE_YOUR_CALM),
    "PUSH_PROMISE of a client": (frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + request()), PROTOCOL_ERROR),
    "PING of seven bytes": (frame(PING, 0, 0, b"1234567"), FRAME_SIZE_ERROR),
    "PING on a stream": (frame(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
    "GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "GOAWAY of seven bytes": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of three bytes": (frame(WINDOW_UPDATE, 0, 0, b"abc"), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": (window_update(99, 1), PROTOCOL_ERROR),
    "WINDOW_UPDATE of zero": (window_update(0, 0), PROTOCOL_ERROR),
    "WINDOW_UPDATE of zero for a stream": (window_update(1, 0), PROTOCOL_ERROR),
    "a window above 2^31 - 1": (window_update(0, MOST), FLOW_CONTROL_ERROR),
    "a stream's window above 2^31 - 1": (window_update(1, MOST), FLOW_CONTROL_ERROR),
    "CONTINUATION out of nothing": (frame(CONTINUATION, END_HEADERS, 1, b"\x83"), PROTOCOL_ERROR),
    "CONTINUATION of another stream": (FRAGMENT + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL_ERROR),
    "DATA within a header block": (FRAGMENT + data(1, message(b"y")), PROTOCOL_ERROR),
    "an unknown frame within a header block": (FRAGMENT + frame(UNKNOWN, payload=b"x"), PROTOCOL_ERROR),
    "PRIORITY_UPDATE of one byte": (frame(PRIORITY_UPDATE, payload=b"\0"), FRAME_SIZE_ERROR),
    "an unknown frame over the frame size": (frame(UNKNOWN, payload=bytes(16_385)), FRAME_SIZE_ERROR),
}

# What is said, which stream is reset for it.
STREAM_FAULTS = {
    "an empty header block": (headers(3, b""), 3),
    "headers again without an end": (headers(1, block([("a", "b")])), 1),
    "pseudo headers in trailers": (headers(1, end=True), 1),
    "an upper-case name": (headers(3, request(("Bad", "x"))), 3),
    "a connection header": (headers(3, request(("connection", "close"))), 3),
    "a te other than trailers": (headers(3, request(("te", "gzip"))), 3),
    "no method": (headers(3, request(without=":method")), 3),
    "no scheme": (headers(3, request(without=":scheme")), 3),
    "no path": (headers(3, request(without=":path")), 3),
    "an unknown pseudo header": (headers(3, block([(":nope", "x")]) + request()), 3),
    "a pseudo header after others": (headers(3, block([("a", "b")]) + request()), 3),
    "a pseudo header twice": (headers(3, block([REQUEST[0]]) + request()), 3),
    "a name without letters": (headers(3, request(("", "x"))), 3),
    "NUL in a value": (headers(3, request(("a", "b\0c"))), 3),
    "a line break in a value": (headers(3, request(("a", "b\r\nc"))), 3),
    "more than content-length": (headers(3, request(("content-length", "3"))) + data(3, message(b"four")), 3),
    "less than content-length": (headers(3, request(("content-length", "99"))) + data(3, message(b"x"), end=True), 3),
    "two content-lengths": (headers(3, request() + block([("content-length", "3"), ("content-length", "4")])), 3),
}

IGNORED = {
    "a reserved bit": data(1 | RESERVED, message(b"y")),
    "flags that mean nothing here": frame(DATA, 0xF2, 1, message(b"y")),
    "PRIORITY on stream 0": frame(PRIORITY, 0, 0, b"\0\0\0\0\x10"),
    "PRIORITY of a stream on itself": frame(PRIORITY, 0, 1, b"\0\0\0\1\x10"),
    "PRIORITY of an idle stream": frame(PRIORITY, 0, 99, b"\0\0\0\0\x10"),
    "PRIORITY_UPDATE of stream 0": frame(PRIORITY_UPDATE, payload=bytes(4)),
    "an unknown setting": settings({99: 5}),
    "a PING's answer without a question": frame(PING, ACK, 0, b"12345678"),
    "a GOAWAY": frame(GOAWAY, payload=bytes(8) + b"why"),
    "an unknown frame": frame(UNKNOWN, 0xFF, 1 | RESERVED, b"zz"),
    "ALTSVC": frame(10, payload=b"\0\0"),
    "ORIGIN": frame(12),
    "RST_STREAM twice": headers(3) + rst_stream(3) * 2,
    "DATA of a stream reset before": headers(3) + rst_stream(3) + data(3, b"x"),
    "HEADERS of a stream reset before": headers(3) + rst_stream(3) + headers(3, block([("a", "b")]), end=True),
    "HEADERS of a stream passed over": headers(9) + headers(5),
}


def opened(server: Server) -> Peer:
    """A peer with an open call on stream 1 that was answered once."""
    peer = Peer(server.port)
    assert peer.sync()
    peer.say(headers(1), data(1, message(b"x")))
    assert peer.until(lambda: peer.seen(1).data)
    return peer


@pytest.mark.parametrize(("said", "code"), CONNECTION_FAULTS.values(), ids=CONNECTION_FAULTS.keys())
def test_a_connections_fault_costs_that_connection(server: Server, said: bytes, code: int) -> None:
    with opened(server) as peer:
        peer.say(said)
        assert peer.until_gone() == code


@pytest.mark.parametrize(("said", "stream_id"), STREAM_FAULTS.values(), ids=STREAM_FAULTS.keys())
def test_a_streams_fault_costs_that_stream(server: Server, said: bytes, stream_id: int) -> None:
    with opened(server) as peer:
        peer.say(said)
        assert peer.until(lambda: peer.seen(stream_id).reset is not None)
        assert peer.seen(stream_id).reset == PROTOCOL_ERROR
        assert peer.call(5).status == "0"
        if stream_id != 1:
            peer.say(data(1, end=True))
            assert peer.until(lambda: peer.seen(1).ended)
            assert peer.seen(1).status == "0"
        assert peer.goaway is None


@pytest.mark.parametrize("said", IGNORED.values(), ids=IGNORED.keys())
def test_what_means_nothing_costs_nothing(server: Server, said: bytes) -> None:
    with opened(server) as peer:
        peer.say(said)
        assert peer.sync()
        assert peer.call(11).status == "0"
        peer.say(data(1, message(b"again"), end=True))
        assert peer.until(lambda: peer.seen(1).ended)
        assert peer.seen(1).status == "0"
        assert peer.goaway is None


OPENINGS = {
    "HTTP/1": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP/1 upgrade": b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\r\n",
    "a TLS hello": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "noise": bytes(range(256)),
    "a preface with one byte changed": PREFACE.replace(b"SM", b"SN") + settings({}),
    "no SETTINGS": PREFACE + frame(PING, payload=b"12345678"),
    "SETTINGS acknowledged first": PREFACE + frame(SETTINGS, ACK),
    "HEADERS first": PREFACE + headers(1),
}


@pytest.mark.parametrize("said", OPENINGS.values(), ids=OPENINGS.keys())
def test_what_is_not_http2_is_hung_up_on(server: Server, said: bytes) -> None:
    with Peer(server.port, greet=False) as peer:
        peer.say(said)
        assert peer.until_gone() in (PROTOCOL_ERROR, None)


def test_a_header_block_in_a_hundred_pieces_is_too_many(server: Server) -> None:
    with opened(server) as peer:
        peer.say(headers(3, request(), flags=0), *[frame(CONTINUATION, 0, 3, b"")] * 100)
        assert peer.until_gone() in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR)


def test_a_header_block_in_a_few_pieces_is_fine(server: Server) -> None:
    with opened(server) as peer:
        whole = request()
        pieces = [whole[at : at + 20] for at in range(20, len(whole), 20)]
        peer.say(headers(3, whole[:20], flags=0))
        peer.say(*[frame(CONTINUATION, 0, 3, piece) for piece in pieces[:-1]])
        peer.say(frame(CONTINUATION, END_HEADERS, 3, pieces[-1]), data(3, message(b"x"), end=True))
        assert peer.until(lambda: peer.seen(3).ended)
        assert peer.seen(3).status == "0"


BAD_HPACK = {
    "an index out of range": b"\xff\x80\x01",
    "index 0": b"\x80",
    "an index without end": b"\xff" + b"\xff" * 10,
    "a string without end": b"\x00\x7f\xff\xff\xff\x0fx",
    "a string longer than the block": b"\x00\x05ab",
    "Huffman code with EOS": b"\x00\x84\xff\xff\xff\xff\x01x",
    "Huffman padding of zeros": b"\x00\x81\x00\x01x",
    "a table larger than allowed": wire.integer(65_536, 5, 0x20) + request(),
    "a table size at the end": request() + b"\x20",
    "noise": bytes(range(128, 256)),
}


@pytest.mark.parametrize("fragment", BAD_HPACK.values(), ids=BAD_HPACK.keys())
def test_a_header_block_that_cannot_be_read_costs_its_connection(server: Server, fragment: bytes) -> None:
    with opened(server) as peer:
        peer.say(headers(3, fragment))
        assert peer.until_gone() == COMPRESSION_ERROR


def test_a_table_that_changes_its_size_is_fine(server: Server) -> None:
    with opened(server) as peer:
        for stream_id in range(3, 203, 2):
            sizes = b"\x20" + wire.integer(4_096, 5, 0x20)
            fields = b"".join(wire.literal(name.encode(), value.encode(), indexed=True) for name, value in REQUEST)
            peer.say(headers(stream_id, sizes + fields), data(stream_id, message(b"x"), end=True))
        assert peer.until(lambda: all(peer.seen(stream_id).ended for stream_id in range(3, 203, 2)))
        assert {peer.seen(stream_id).status for stream_id in range(3, 203, 2)} == {"0"}


LONG = {
    "one value": [("x-long", "x" * 16_200)],
    "many fields": [(f"x-{number}", "y") for number in range(500)],
}


@pytest.mark.parametrize("fields", LONG.values(), ids=LONG.keys())
def test_a_header_list_over_the_limit_costs_its_connection(server: Server, fields: list[tuple[str, str]]) -> None:
    with opened(server) as peer:
        assert peer.settings[6] == 16_384
        whole = request() + block(fields)
        peer.say(headers(3, whole[:16_000], flags=0), frame(CONTINUATION, END_HEADERS, 3, whole[16_000:]))
        assert not peer.sync()
        assert peer.goaway is not None
