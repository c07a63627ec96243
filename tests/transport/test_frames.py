# SPDX-License-Identifier: Apache-2.0
"""gRPC's framing, headers and counting, without a socket."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.transport import headers
from epp.transport.call import INTERNAL, OK, RESOURCE_EXHAUSTED, UNIMPLEMENTED
from epp.transport.frames import Deframer, FrameError
from epp.transport.guard import Budget, FloodError, Rate
from tests.transport.support import framed


@given(
    said=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    tail=st.integers(0, 44),
)
def test_messages_survive_any_cut(said: list[bytes], cuts: list[int], tail: int) -> None:
    whole = b"".join(framed(message) for message in said)
    rest = framed(b"x" * 40)[:tail]
    places = sorted({0, len(whole + rest), *(cut for cut in cuts if cut < len(whole + rest))})
    frames = Deframer(1_000, "")
    got = [m for a, b in itertools.pairwise(places) for m in frames.feed((whole + rest)[a:b])]
    assert got == said
    assert frames.held_bytes == tail


@pytest.mark.parametrize(
    ("data", "encoding", "status", "names"),
    [
        (framed(b"", flag=1), "", INTERNAL, "grpc-encoding"),
        (framed(b"", flag=1), "identity", INTERNAL, "grpc-encoding"),
        (framed(b"x", flag=1), "gzip", UNIMPLEMENTED, "gzip"),
        (framed(b"x", flag=2), "", INTERNAL, "flag 2"),
        (framed(b"x" * 101), "", RESOURCE_EXHAUSTED, "101 bytes, at most 100"),
        (b"\x00\xff\xff\xff\xff", "", RESOURCE_EXHAUSTED, "4294967295"),
    ],
)
def test_bad_frames_end_the_stream_after_good_ones(data: bytes, encoding: str, status: int, names: str) -> None:
    found = Deframer(100, encoding).feed(framed(b"good") + data)
    assert next(found) == b"good"
    with pytest.raises(FrameError, match=names) as caught:
        next(found)
    assert caught.value.status == status


def test_an_announced_length_reserves_nothing() -> None:
    frames = Deframer(1 << 31, "")
    assert list(frames.feed(b"\x00\x7f\xff\xff\xff")) == []
    assert frames.held_bytes == 5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"1S", 1.0),
        (b"100m", 0.1),
        (b"99999999u", 99.999999),
        (b"5n", 5e-9),
        (b"2M", 120.0),
        (b"1H", 3600.0),
        (b"0S", 0.0),
        (b"99999999H", 365 * 86_400.0),
        (b"", None),
        (b"S", None),
        (b"1", None),
        (b"1s", None),
        (b"-1S", None),
        (b"1.5S", None),
        (b"123456789S", None),
    ],
)
def test_timeouts(value: bytes, seconds: float | None) -> None:
    assert headers.timeout_s(value) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        ("plain text, with: signs!", b"plain text, with: signs!"),
        ("50% of it", b"50%25 of it"),
        (" line\nbreak ", b"line%0Abreak"),
        ("Grüße", b"Gr%C3%BC%C3%9Fe"),
    ],
)
def test_status_messages_are_percent_encoded(message: str, encoded: bytes) -> None:
    assert (b"grpc-message", encoded) in headers.trailers(INTERNAL, message)


def test_trailers() -> None:
    assert headers.trailers(OK, "") == [(b"grpc-status", b"0")]
    assert headers.trailers_only(INTERNAL, "")[0] == (b":status", b"200")
    assert (b"grpc-accept-encoding", b"identity") in headers.trailers(UNIMPLEMENTED, "x")
    assert len(dict(headers.trailers(INTERNAL, "x" * 100_000))[b"grpc-message"]) == 1_024


def test_header_values_decode_what_is_asked_for() -> None:
    values = headers.HeaderValues({b":path": b"/a", b"x-a": b"1", b"x-b": "ü".encode("latin-1")})
    assert dict(values) == {"x-a": "1", "x-b": "ü"}
    assert len(values) == 2
    assert values.get(":path") is None
    assert values.get("missing") is None
    assert values.get("\u20ac") is None


def test_a_budget_allows_its_rate_and_no_more() -> None:
    now = 0.0
    budget = Budget(100, "things", lambda: now)
    for _ in range(50):
        for _ in range(100):
            budget.spend()
        now += 1.0
    now = 1_000.0
    for _ in range(100):
        budget.spend()
    now += 0.99
    with pytest.raises(FloodError, match="100 things"):
        budget.spend()


@given(
    said=st.lists(st.binary(max_size=20), max_size=30),
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    most=st.integers(1, 4),
)
def test_a_reader_that_stops_early_misses_nothing(said: list[bytes], cuts: list[int], most: int) -> None:
    whole = b"".join(framed(message) for message in said)
    frames = Deframer(1_000, "")
    heard: list[bytes] = []

    def read(data: bytes) -> None:
        feed = frames.feed(data)
        for left, message in zip(range(most - 1, -1, -1), feed, strict=False):
            heard.append(message)
            if not left:
                feed.close()

    for number, cut in enumerate(itertools.cycle(cuts)):
        piece, whole = whole[:cut], whole[cut:]
        if frames.unread and number % 2:
            frames.hold(piece)
        else:
            read(piece)
        if not whole:
            break
    while frames.unread:
        read(b"")
    assert heard == said
    assert frames.held_bytes == 0


def test_a_bad_prefix_behind_an_early_stop_is_found() -> None:
    frames = Deframer(1_000, "")
    feed = frames.feed(struct.pack(">BI", 0, 0) + struct.pack(">BI", 0, 1_001))
    assert next(feed) == b""
    feed.close()
    assert frames.unread
    with pytest.raises(FrameError):
        list(frames.feed(b""))


def test_a_rate_is_full_again_every_second() -> None:
    now_s = 0.0
    rate = Rate(2, lambda: now_s)
    assert [rate.allowed() for _ in range(4)] == [True, True, False, False]
    now_s = 0.9
    assert not rate.allowed()
    now_s = 1.0
    assert [rate.allowed() for _ in range(3)] == [True, True, False]
