# SPDX-License-Identifier: Apache-2.0
"""All request bodies together are bounded while they arrive, and every byte that was counted is given back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.contract.errors import ProtocolError
from epp.extproc import BodyMode, End, Exchange, Immediate, Outcome, Route, Watch
from epp.extproc.gathering import Gathering
from epp.extproc.replies import Replies
from tests.extproc.messages import Recorder, body, headers, kinds


def exchanges(gathering: Gathering, count: int, outcome: Outcome) -> list[tuple[Exchange, Recorder]]:
    handlers = [Recorder(outcome) for _ in range(count)]
    return [(Exchange(handler, Replies(), 1000, gathering=gathering), handler) for handler in handlers]


def test_a_body_that_comes_while_all_take_too_much_is_asked_about_at_once() -> None:
    gathering = Gathering(limit_bytes=250)
    streams = exchanges(gathering, 3, Immediate(503))
    for machine, _ in streams:
        machine.receive(headers())
    assert [machine.receive(body(b"x" * 100, False)) for machine, _ in streams[:2]] == [[], []]
    machine, handler = streams[2]
    assert kinds(machine.receive(body(b"y" * 100, False))) == ["immediate_response"]
    assert (handler.requests[0].crowded, handler.requests[0].body_complete) == (True, False)
    # The refused body is gone, the others are still welcome.
    assert gathering.held_bytes == 200
    machine, handler = streams[0]
    machine.receive(body(b"x", True))
    assert (handler.requests[0].crowded, handler.requests[0].body) == (False, b"x" * 101)
    assert gathering.held_bytes == 100


def test_a_complete_body_is_never_called_crowded() -> None:
    gathering = Gathering(limit_bytes=10)
    [(machine, handler)] = exchanges(gathering, 1, Route())
    machine.receive(headers())
    machine.receive(body(b"x" * 100, True))
    assert not handler.requests[0].crowded
    assert gathering.held_bytes == 0


async def test_a_body_is_counted_while_its_decision_is_awaited() -> None:
    gathering = Gathering()
    decision: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    machine = Exchange(Recorder(decision), Replies(), 1000, gathering=gathering)
    machine.receive(headers())
    machine.receive(body(b"x" * 70, True))
    assert gathering.held_bytes == 70
    machine.decided(Route())
    assert gathering.held_bytes == 0


@given(
    st.sampled_from(list(BodyMode)),
    st.lists(st.tuples(st.binary(max_size=80), st.booleans()), max_size=8),
    st.sampled_from([Immediate(503), Route(), Route(watch=Watch.NOTHING), Route(body=b"new")]),
    st.integers(0, 300),
)
def test_what_was_counted_is_given_back_however_the_stream_ends(
    mode: BodyMode, pieces: list[tuple[bytes, bool]], outcome: Outcome, limit_bytes: int
) -> None:
    gathering = Gathering(limit_bytes)
    machine = Exchange(Recorder(outcome), Replies(), 200, gathering=gathering)
    machine.receive(headers(mode=mode))
    for piece, end in pieces:
        try:
            machine.receive(body(piece, end))
        except ProtocolError:  # A piece after the end of the body.
            break
        assert gathering.held_bytes >= 0
    machine.close(End.GONE)
    assert gathering.held_bytes == 0


@pytest.mark.parametrize("outcome", [RuntimeError("no"), Immediate(400)])
def test_a_handler_that_fails_gives_back_too(outcome: Exception | Outcome) -> None:
    gathering = Gathering()
    machine = Exchange(Recorder(outcome), Replies(), 200, gathering=gathering)  # type: ignore[arg-type]
    machine.receive(headers())
    if isinstance(outcome, Exception):
        with pytest.raises(RuntimeError):
            machine.receive(body(b"x", True))
        machine.close(End.FAILED)
    else:
        machine.receive(body(b"x", True))
    assert gathering.held_bytes == 0
