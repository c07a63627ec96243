# SPDX-License-Identifier: Apache-2.0
"""A watch's bytes to events: any cutting, malformed objects, bookmarks, errors, and the bound on a line."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.kube.answers import Request
from epp.kube.errors import ApiError, Forbidden, Gone, TooMany
from epp.kube.objects import Pod
from epp.kube.resource import PODS
from epp.kube.watch import Event, Lines, WatchDecoder

REQUEST = Request("watch", PODS, "x")


def line(kind: str, obj: Any, end: str = "\n") -> bytes:
    return (json.dumps({"type": kind, "object": obj}, ensure_ascii=False) + end).encode()


def pod(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name, "namespace": "x", "resourceVersion": str(version)}, **more}


BOOKMARK = {
    "kind": "Pod",
    "metadata": {"resourceVersion": "77", "creationTimestamp": None},
    "spec": {"containers": None},
}


def decoder(told: list[tuple[str, str]] | None = None, most_line_bytes: int = 1 << 20) -> WatchDecoder[Pod]:
    def malformed(key: str, why: str) -> None:
        if told is not None:
            told.append((key, why))

    return WatchDecoder(REQUEST, Pod, malformed=malformed, most_line_bytes=most_line_bytes)


def facts(events: list[Event[Pod]]) -> list[tuple[str, str, str]]:
    return [(event.type, event.key, event.resource_version) for event in events]


def test_events() -> None:
    stream = (
        line("ADDED", pod("a", 1))
        + line("MODIFIED", pod("a", 2, status={"phase": "Running"}))
        + line("BOOKMARK", BOOKMARK)
        + line("DELETED", pod("a", 78))
    )
    events = list(decoder().feed(stream))
    assert facts(events) == [
        ("ADDED", "x/a", "1"),
        ("MODIFIED", "x/a", "2"),
        ("BOOKMARK", "", "77"),
        ("DELETED", "x/a", "78"),
    ]
    assert events[1].object is not None
    assert events[1].object.status.phase == "Running"


@given(
    st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), st.text(max_size=5)), max_size=6),
    st.lists(st.integers(0, 600)),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_any_cutting_gives_the_same_events(kinds: list[tuple[str, str]], cuts: list[int], end: str) -> None:
    stream = b"".join(line(kind, pod(f"p-{name}", at), end) for at, (kind, name) in enumerate(kinds))
    borders = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    cut = decoder()
    pieces = [stream[start:stop] for start, stop in itertools.pairwise(borders)]
    assert [event for piece in pieces for event in cut.feed(piece)] == list(decoder().feed(stream))
    assert len(list(decoder().feed(stream))) == len(kinds)


def test_half_a_line_at_the_end_is_no_event() -> None:
    whole = line("ADDED", pod("a", 1))
    assert len(list(decoder().feed(whole + whole[:-1]))) == 1


def test_a_malformed_object_costs_only_itself() -> None:
    told: list[tuple[str, str]] = []
    stream = line("ADDED", pod("bad", 5, status="?")) + line("ADDED", pod("good", 6))
    assert facts(list(decoder(told).feed(stream))) == [("BOOKMARK", "", "5"), ("ADDED", "x/good", "6")]
    assert told == [("x/bad", "Expected `object`, got `str` - at `$.status`")]


@pytest.mark.parametrize("metadata", [None, 3, [], {"name": 3}])
def test_an_object_without_identity_is_still_told(metadata: Any) -> None:
    told: list[tuple[str, str]] = []
    assert facts(list(decoder(told).feed(line("ADDED", {"metadata": metadata})))) == [("BOOKMARK", "", "")]
    assert [key for key, _ in told] == ["/"]


def test_a_malformed_object_is_deleted_all_the_same() -> None:
    told: list[tuple[str, str]] = []
    events = list(decoder(told).feed(line("DELETED", pod("bad", 5, status="?"))))
    assert facts(events) == [("DELETED", "x/bad", "5")]
    assert events[0].object is None
    assert told == []


def test_text_that_is_not_utf8_is_a_malformed_object() -> None:
    told: list[tuple[str, str]] = []
    bad = line("ADDED", pod("bad", 5, status={"phase": "R"})).replace(b'"R"', b'"\xff"')
    assert facts(list(decoder(told).feed(bad + line("ADDED", pod("good", 6))))) == [
        ("BOOKMARK", "", "5"),
        ("ADDED", "x/good", "6"),
    ]
    assert told[0][0] == "x/bad"


def test_unknown_types_are_passed_over() -> None:
    assert list(decoder().feed(line("RENAMED", pod("a", 1)))) == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ({"code": 410, "reason": "Expired", "message": "too old resource version: 1 (2)"}, Gone),
        ({"reason": "Expired"}, Gone),
        ({"code": 403}, Forbidden),
        ({"code": 429}, TooMany),
        ({"code": 500, "message": "no\nluck"}, ApiError),
        ({}, ApiError),
        ({"code": "what", "details": 3}, ApiError),
        ([], ApiError),
    ],
)
def test_errors_in_the_stream(status: Any, kind: type[ApiError]) -> None:
    stream = line("ADDED", pod("a", 1)) + line("ERROR", status) + line("ADDED", pod("b", 2))
    events = decoder().feed(stream)
    assert next(events).key == "x/a"
    with pytest.raises(ApiError) as caught:
        next(events)
    assert type(caught.value) is kind
    assert str(caught.value).startswith('watch pods in namespace "x": ')
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "garbage", [b"<html>\n", b"{}\n", b'{"type":3,"object":{}}\n', b'{"type":"ADDED"\n', b"\xff\n", b"[]\n"]
)
def test_what_is_no_event_ends_the_stream(garbage: bytes) -> None:
    with pytest.raises(ApiError, match="no watch event"):
        list(decoder().feed(garbage))


def test_a_line_is_bounded() -> None:
    cut = decoder(most_line_bytes=1000)
    assert list(cut.feed(b"x" * 1000)) == []
    with pytest.raises(ApiError, match="longer than 1000 bytes"):
        list(cut.feed(b"x"))


def test_long_lines_of_many_pieces() -> None:
    lines = Lines(10_000_000)
    found = [line for _ in range(1000) for line in lines.feed(b"x" * 1000)]
    assert found == []
    assert [len(line) for line in lines.feed(b"\ny\n\nz")] == [1_000_000, 1]
    assert list(lines.feed(b"\n")) == [b"z"]
