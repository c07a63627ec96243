# SPDX-License-Identifier: Apache-2.0
"""Answers in every framing, cut at every place, and answers that are none."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.signals.poll.http1 import MAX_CHUNKS, MAX_HEAD_BYTES, REASONS, PageError, ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def read(
    raw: bytes, cuts: Iterable[int] = (), *, eof: bool = False, limit: int = 1000
) -> tuple[ResponseParser, bytes] | None:
    """The parser and the body, after `raw` arrived in pieces that end at `cuts`; None when that is no whole answer."""
    parser = ResponseParser(limit)
    buffer = bytearray(b"?" * len(raw))
    arrived, complete = 0, False
    for cut in [*sorted(cuts), len(raw)]:
        buffer[arrived:cut] = raw[arrived:cut]
        arrived = cut
        complete = parser.advance(buffer, cut)
    if complete or (eof and parser.finish(len(raw))):
        return parser, bytes(buffer[parser.body_start : parser.body_end])
    return None


WHOLE = [
    (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
    (OK + b"content-length:5\r\nX: y\r\n\r\nhello", b"hello", True),
    (OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    (OK + b"Content-Length: 0\r\n\r\n", b"", True),
    (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
    (OK + b"Content-Length: 5\r\nConnection: x, Close\r\n\r\nhello", b"hello", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello", b"hello", True),
    (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx",
        b"x",
        True,
    ),
    (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello", True),
    (CHUNKED + b"1\r\nh\r\n003\r\nell\r\n1;ext=1\r\no\r\n0\r\nTrailer: x\r\n\r\n", b"hello", True),
    (CHUNKED + b"A\r\n0123456789\r\na \r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789", True),
    (CHUNKED + b"0\r\n\r\n", b"", True),
    (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nh\r\n0\r\n\r\n", b"h", True),
    (OK + b"Content-Encoding: identity\r\nContent-Length: 1\r\n\r\nx", b"x", True),
]


@pytest.mark.parametrize(("raw", "body", "keep_alive"), WHOLE)
def test_an_answer_is_read_however_it_is_cut(raw: bytes, body: bytes, keep_alive: bool) -> None:
    ways = [[], list(range(1, len(raw))), *([cut] for cut in range(1, len(raw)))]
    for cuts in ways:
        result = read(raw, cuts)
        assert result is not None, cuts
        parser, found = result
        assert (found, parser.keep_alive, parser.end) == (body, keep_alive, len(raw))


@pytest.mark.parametrize(("raw", "body", "keep_alive"), WHOLE)
def test_an_answer_is_complete_at_its_last_byte_and_not_before(raw: bytes, body: bytes, keep_alive: bool) -> None:
    assert all(read(raw[:size], eof=True) is None for size in range(len(raw)))
    result = read(raw + b"HTTP/1.1 ")
    assert result is not None
    assert (result[1], result[0].end) == (body, len(raw))


def test_without_framing_the_end_of_the_connection_ends_the_answer() -> None:
    raw = OK + b"\r\nhello"
    assert read(raw) is None
    result = read(raw, [20], eof=True)
    assert result is not None
    assert (result[1], result[0].keep_alive) == (b"hello", False)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=12), st.data())
def test_chunks_are_joined(chunks: list[bytes], data: st.DataObject) -> None:
    raw = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    cuts = data.draw(st.lists(st.integers(1, len(raw)), max_size=10, unique=True))
    result = read(raw, cuts)
    assert result is not None
    assert result[1] == b"".join(chunks)


@pytest.mark.parametrize(
    ("raw", "reason", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol", "not HTTP"),
        (b"H", None, ""),
        (b"hTTP", "protocol", "not HTTP"),
        (b"\x15\x03\x01\x00\x02\x02F", "protocol", "set the metrics scheme to https"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "protocol", "not HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "protocol", "not HTTP"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "status", "status is 500"),
        (b"HTTP/1.1 404 No\r\n\r\n", "status", "path right"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status", "204"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "status", "101"),
        (b"HTTP/1.1 307 Go\r\nLocation: /metrics/\r\n\r\n", "status", "307 to '/metrics/'"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "protocol", "encoded as 'gzip'"),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "protocol", "transfer-encoding"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "protocol", "content-length"),
        (OK + b"Content-Length: -1\r\n\r\n", "protocol", "content-length"),
        (OK + b"Content-Length: 1e3\r\n\r\n", "protocol", "content-length"),
        (OK + b"Content-Length:\r\n\r\n", "protocol", "content-length"),
        (OK + b"Content-Length: 1001\r\n\r\n", "too-large", "over 1000 bytes"),
        (OK + b"Content-Length: 999999999999999\r\n\r\n", "too-large", "over 1000 bytes"),
        (CHUNKED + b"3e9\r\n", "too-large", "over 1000 bytes"),
        (CHUNKED + b"1\r\nx\r\n3e8\r\n", "too-large", "over 1000 bytes"),
        (CHUNKED + b"-1\r\n", "protocol", "no chunk size"),
        (CHUNKED + b"0x5\r\n", "protocol", "no chunk size"),
        (CHUNKED + b"\r\n", "protocol", "no chunk size"),
        (CHUNKED + b"fffffffffffffffffffff\r\n", "protocol", "no chunk size"),
        (CHUNKED + b"1" * 2000, "protocol", "no sizes"),
        (CHUNKED + b"1\r\nxyz", "protocol", "longer than it says"),
        (CHUNKED + b"1\r\nx\r\n" * (MAX_CHUNKS + 1), "too-large", "chunks"),
        (CHUNKED + b"0\r\n" + b"x" * 70_000, "too-large", "trailers"),
        (OK + b"X: " + b"y" * 70_000, "too-large", "head"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, "too-large", "head"),
    ],
)
def test_what_is_no_page_is_named(raw: bytes, reason: str | None, message: str) -> None:
    if reason is None:
        assert read(raw) is None
        return
    with pytest.raises(PageError, match=message) as caught:
        read(raw, limit=10 * MAX_CHUNKS if "chunks" in message else 1000)
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)
    assert str(caught.value).isascii()


TOKENS = st.sampled_from(
    [
        OK,
        CHUNKED,
        b"HTTP/1.1 ",
        b"\r\n",
        b"\r\n\r\n",
        b"Content-Length: ",
        b"Transfer-Encoding: chunked",
        b"5",
        b"0",
        b":",
    ]
)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TOKENS | st.binary(max_size=30), max_size=20).map(b"".join), st.lists(st.integers(1, 300), max_size=5))
def test_any_bytes_are_an_answer_or_an_error_or_too_few(raw: bytes, cuts: list[int]) -> None:
    try:
        result = read(raw, [cut for cut in cuts if cut < len(raw)], eof=True)
    except PageError as error:
        assert error.reason in REASONS
    else:
        assert result is None or len(result[1]) <= 1000 or not result[0].keep_alive


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (CHUNKED + b"0\r\n", b"a:b\r\n"),
        (OK, b"a:b\r\n"),
        (OK + b"A: ", b"x"),
        (CHUNKED, b"0"),
    ],
)
def test_what_has_no_end_is_given_up_at_the_same_place_however_it_is_cut(head: bytes, unit: bytes) -> None:
    raw = head + unit * (2 * MAX_HEAD_BYTES // len(unit))
    assert len({given_up(raw, step)[0] for step in (len(raw), 1000, 37)}) == 1
    assert given_up(raw, 37)[1] <= MAX_HEAD_BYTES + len(head) + 8 + 37


def given_up(raw: bytes, step: int) -> tuple[str, int]:
    """Why, and after how many bytes."""
    parser, buffer = ResponseParser(1 << 30), bytearray(raw)
    for filled in range(step, len(raw) + 1, step):
        try:
            parser.advance(buffer, filled)
        except PageError as error:
            return error.reason, filled
    raise AssertionError("it was read to its end")


@pytest.mark.parametrize("spare", [-2, -1, 0, 1, 2])
def test_a_head_of_the_limit_is_taken_or_not_however_it_is_cut(spare: int) -> None:
    head = OK + b"Content-Length: 0\r\nX: "
    raw = head + b"x" * (MAX_HEAD_BYTES + spare - len(head)) + b"\r\n\r\n"
    for cuts in ([], [len(raw) - 1], [len(raw) - 2], [len(raw) - 3], [len(raw) - 4]):
        try:
            found = read(raw, cuts)
        except PageError as error:
            assert error.reason == "too-large"
            assert spare > 0
        else:
            assert found is not None
            assert spare <= 0
