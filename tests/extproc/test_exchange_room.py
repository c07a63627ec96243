# SPDX-License-Identifier: Apache-2.0
"""Ending a stream early loses nothing: only when our answer and the end of the stream leave in one piece."""

from __future__ import annotations

import pytest

from epp.extproc import BodyMode, End, Exchange, HttpRequest, Outcome, Route, Watch
from epp.extproc.replies import CHUNK_BYTES, Replies
from tests.extproc.messages import DUPLEX, Recorder, body, headers, kinds, response_body, response_headers, trailers

LARGE = 1 << 20


class Asker(Recorder):
    """Asks, while it decides, with which phases the stream could end."""

    def request(self, request: HttpRequest) -> Outcome:
        self.can = [watch for watch in (Watch.NOTHING, Watch.HEADERS) if request.can_end(watch)]
        return Route(watch=Watch.NOTHING)


@pytest.mark.parametrize(
    ("response", "size", "room", "can"),
    [
        (DUPLEX, 100, LARGE, [Watch.NOTHING]),
        (DUPLEX, CHUNK_BYTES, LARGE, [Watch.NOTHING]),
        (DUPLEX, CHUNK_BYTES + 1, LARGE, []),
        (DUPLEX, 100, 0, []),
        (DUPLEX, 40_000, 40_000, []),
        (BodyMode.BUFFERED, CHUNK_BYTES + 1, 0, [Watch.NOTHING, Watch.HEADERS]),
        (BodyMode.NONE, 100, 0, [Watch.NOTHING, Watch.HEADERS]),
    ],
)
def test_what_can_end_is_told_and_done(response: BodyMode, size: int, room: int, can: list[Watch]) -> None:
    handler = Asker()
    machine = Exchange(handler, Replies(), LARGE, lambda: room)
    machine.receive(headers(response=response))
    machine.receive(body(b"x" * size, True))
    assert handler.can == can
    assert machine.finished == (Watch.NOTHING in can)
    assert handler.ends == [End.UNWATCHED]


def test_a_response_that_cannot_be_left_passes_by_whole() -> None:
    machine = Exchange(Asker(), Replies(), LARGE, lambda: 0)
    machine.receive(headers())
    machine.receive(body(b"x", True))
    assert kinds(machine.receive(response_headers())) == ["response_headers"]
    assert kinds(machine.receive(response_body(b"data", True))) == ["response_body"]


def test_a_request_of_headers_alone_and_one_with_trailers() -> None:
    for messages in ([headers(end=True)], [headers(), body(b"x", False), trailers()]):
        handler = Asker()
        machine = Exchange(handler, Replies(), LARGE, lambda: LARGE)
        for message in messages:
            machine.receive(message)
        assert (handler.can, machine.finished) == ([Watch.NOTHING], True)
