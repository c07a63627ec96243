# SPDX-License-Identifier: Apache-2.0
"""What a handler tells at a response's end: when it is asked, and on which reply it goes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from epp.extproc import BodyMode, End, Exchange, Route, Watch
from epp.extproc.replies import CHUNK_BYTES
from tests.extproc.messages import (
    DUPLEX,
    Recorder,
    body,
    decoded,
    exchange,
    headers,
    response_body,
    response_headers,
    response_trailers,
)

STREAMED, BUFFERED, PARTIAL, NONE = BodyMode.STREAMED, BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL, BodyMode.NONE
TOLD: Mapping[str, Mapping[str, Any]] = {
    "io.envoy.ai_gateway": {"tokens": 178, "share": 0.5, "model": "m", "cached": True},
    "other": {"n": 0},
}
HEADERS, TRAILERS = response_headers(), response_trailers()


def opened(mode: BodyMode, outcome: Route | None = None, *, replaces: bool = False) -> tuple[Exchange, Recorder]:
    handler = Replacing() if replaces else Recorder()
    handler.outcome = outcome or Route(tells=True)
    handler.tells = TOLD
    machine = exchange(handler)
    machine.receive(headers((":method", "GET"), end=True, response=mode))
    return machine, handler


class Replacing(Recorder):
    """Answers every piece with another."""

    def response_body(self, chunk: bytes, end: bool) -> bytes:  # type: ignore[override]
        super().response_body(chunk, end)
        return chunk.upper() + b"!"


def told(machine: Exchange, messages: list[bytes]) -> list[tuple[str | None, dict[str, Any]]]:
    """The kind of each reply to `messages`, and its metadata."""
    replies = [reply for message in messages for reply in decoded(machine.receive(message))]
    return [(reply.WhichOneof("response"), MessageToDict(reply.dynamic_metadata)) for reply in replies]


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize(("mode", "messages", "kind"), [
    (DUPLEX, [response_body(b"a", False), response_body(b"b", True)], "response_body"),
    (DUPLEX, [response_body(b"a", False), response_body(b"", True)], "response_body"),
    (DUPLEX, [response_body(b"a", False), TRAILERS], "response_trailers"),
    (DUPLEX, [response_body(b"a" * 2 * CHUNK_BYTES, True)], "response_body"),
    (STREAMED, [response_body(b"a", False), response_body(b"b", True)], "response_body"),
    (STREAMED, [response_body(b"a", False), TRAILERS], "response_trailers"),
    (BUFFERED, [response_body(b"ab", True)], "response_body"),
    (PARTIAL, [response_body(b"ab", True)], "response_body"),
    (PARTIAL, [response_body(b"ab", False), TRAILERS], "response_trailers"),
])  # fmt: skip
def test_it_goes_out_once_with_the_last_reply(mode: BodyMode, messages: list[bytes], kind: str, replaces: bool) -> None:
    machine, handler = opened(mode, replaces=replaces)
    *before, last = told(machine, [HEADERS, *messages])
    assert last == (kind, TOLD)
    assert all(not metadata for _, metadata in before)
    assert handler.response.count("end") == 1
    assert handler.response[-1] == "end"
    assert handler.ends == [End.COMPLETE]


def test_the_body_of_a_buffered_response_with_trailers_is_whole_before_them() -> None:
    machine, handler = opened(BUFFERED)
    replies = told(machine, [HEADERS, response_body(b"ab", False), TRAILERS])
    assert replies[1:] == [("response_body", TOLD), ("response_trailers", {})]
    assert handler.response.count("end") == 1


@pytest.mark.parametrize("mode", [DUPLEX, STREAMED, BUFFERED, PARTIAL])
def test_the_reply_is_the_usual_one_but_for_the_metadata(mode: BodyMode) -> None:
    telling, _ = opened(mode)
    silent, _ = opened(mode, Route())
    for message in (HEADERS, response_body(b"piece", False), response_body(b"last", True)):
        if mode in (BUFFERED, PARTIAL) and message == response_body(b"piece", False):
            continue
        usual, replies = decoded(silent.receive(message)), decoded(telling.receive(message))
        for reply in replies:
            reply.ClearField("dynamic_metadata")
        assert replies == usual


@pytest.mark.parametrize(("mode", "messages"), [
    (DUPLEX, [HEADERS, response_body(b"a", False)]),
    (STREAMED, [HEADERS, response_body(b"a", False)]),
    # It may be the beginning of a longer one.
    (PARTIAL, [HEADERS, response_body(b"a", False)]),
    (DUPLEX, [response_headers(end=True)]),
    (DUPLEX, [HEADERS, TRAILERS]),
    (NONE, [HEADERS]),
    (NONE, [HEADERS, TRAILERS]),
])  # fmt: skip
def test_nobody_is_asked_of_what_is_not_whole_or_has_no_body(mode: BodyMode, messages: list[bytes]) -> None:
    machine, handler = opened(mode)
    assert all(not metadata for _, metadata in told(machine, messages))
    machine.close(End.GONE)
    assert "end" not in handler.response
    assert len(handler.ends) == 1


@pytest.mark.parametrize("outcome", [Route(), *(Route(tells=True, watch=w) for w in (Watch.HEADERS, Watch.NOTHING))])
def test_nobody_is_asked_who_did_not_want_to_be(outcome: Route) -> None:
    machine, handler = opened(DUPLEX, outcome)
    told(machine, [HEADERS, response_body(b"a", True)])
    assert "end" not in handler.response


def test_nothing_to_tell_changes_no_byte() -> None:
    machine, handler = opened(STREAMED)
    handler.tells = {}
    silent, _ = opened(STREAMED, Route())
    for message in (HEADERS, response_body(b"a", True)):
        assert machine.receive(message) == silent.receive(message)


def test_a_response_that_comes_before_the_request_is_routed_tells_nothing() -> None:
    handler = Recorder(Route(tells=True))
    machine = exchange(handler)
    machine.receive(headers((":method", "POST")))
    machine.receive(body(b"half", False))
    told(machine, [response_headers(status="413"), response_body(b"too large", True)])
    assert handler.response == []
    assert handler.ends == [End.GONE]


def test_of_a_response_without_its_headers_the_end_is_told_too() -> None:
    machine, _ = opened(DUPLEX)
    assert told(machine, [response_body(b"a", True)]) == [("response_body", TOLD)]


@pytest.mark.parametrize("mode", [DUPLEX, STREAMED])
@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("rest", [[response_body(b"", True)], [TRAILERS], [response_body(b"b", False)], []])
def test_what_is_known_before_the_end_goes_out_with_the_piece_that_told_it(
    mode: BodyMode, replaces: bool, rest: list[bytes]
) -> None:
    machine, handler = opened(mode, replaces=replaces)
    pieces = [response_body(b"a", False), response_body(b"DONE", False)]
    *before, last = told(machine, [HEADERS, *pieces])
    assert last == ("response_body", TOLD)
    after = told(machine, rest)
    assert all(not metadata for _, metadata in [*before, *after])
    machine.close(End.GONE)
    assert handler.response.count("end") == 1


class Keeping(Recorder):
    """Keeps every piece back but the last."""

    def response_body(self, chunk: bytes, end: bool) -> bytes:  # type: ignore[override]
        super().response_body(chunk, end)
        return b"all" if end else b""


def test_a_piece_that_is_kept_back_tells_nothing_yet() -> None:
    handler = Keeping(Route(tells=True))
    handler.tells = TOLD
    machine = exchange(handler)
    machine.receive(headers((":method", "GET"), end=True, response=DUPLEX))
    replies = told(machine, [HEADERS, response_body(b"DONE", False), response_body(b"x", True)])
    assert replies[-1] == ("response_body", TOLD)
    assert handler.response.count("end") == 1


def test_before_the_end_nobody_is_asked_who_tells_nothing() -> None:
    machine, handler = opened(STREAMED, Route())
    told(machine, [HEADERS, response_body(b"DONE", False), response_body(b"", True)])
    assert "end" not in handler.response
