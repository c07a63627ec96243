# SPDX-License-Identifier: Apache-2.0
"""Any interleaving of messages, legal or not, with any outcome, decided at once or later, or never.

What must hold: nothing is raised but ProtocolError; the handler is asked at most once and closed exactly once, and told
nothing after that; and every reply is one that a data plane expects at that moment, for Envoy fails a request on any
other. `Ledger` is what a data plane keeps of what it may still be told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from epp.contract.errors import ProtocolError
from epp.extproc import BodyMode, End, Exchange, HeaderList, HttpRequest, Immediate, Outcome, Route, Watch
from epp.extproc.replies import CHUNK_BYTES, Replies
from epp.protos.ext_proc_pb2 import ProcessingRequest, ProcessingResponse
from tests.extproc.messages import DUPLEX, body, response_body, response_headers, response_trailers, trailers

LIMIT_BYTES = 5
LONG = b"l" * (CHUNK_BYTES + 1)


def request_headers(method: str, upgrade: bool, end: bool) -> bytes:
    message = ProcessingRequest()
    message.request_headers.end_of_stream = end
    message.request_headers.headers.headers.add(key=":method", raw_value=method.encode())
    if upgrade:
        message.request_headers.headers.headers.add(key="upgrade", raw_value=b"websocket")
    return message.SerializeToString()


HEADERS = st.builds(request_headers, st.sampled_from(["GET", "POST", "CONNECT"]), st.booleans(), st.booleans())
PIECES = st.sampled_from([b"", b"abc", LONG])
MESSAGES = st.one_of(
    HEADERS,
    st.builds(body, PIECES, st.booleans()),
    st.just(trailers()),
    st.builds(response_headers, st.booleans()),
    st.builds(response_body, PIECES, st.booleans()),
    st.just(response_trailers()),
    st.sampled_from([b"", b"\x08", b"\xff", b"\x12\x05a"]),
)
ORDERLY = st.builds(
    lambda head, pieces, tail, answer, parts, last: [head, *pieces, *tail, *answer, *parts, *last],
    HEADERS,
    st.lists(st.builds(body, PIECES, st.just(False)), max_size=3),
    st.sampled_from([[], [body(b"z", True)], [trailers()]]),
    st.sampled_from([[], [response_headers()], [response_headers(end=True)]]),
    st.lists(st.builds(response_body, PIECES, st.just(False)), max_size=3),
    st.sampled_from([[], [response_body(b"z", True)], [response_trailers()]]),
)
"""Orders that a data plane could have."""
DISTURBED = st.builds(lambda order, stray, at: [*order[:at], stray, *order[at:]], ORDERLY, MESSAGES, st.integers(0, 8))
SEQUENCES = st.one_of(ORDERLY, DISTURBED, st.lists(MESSAGES, max_size=12))
OUTCOMES = st.one_of(
    st.builds(Route, watch=st.sampled_from(Watch), body=st.sampled_from([None, b"", b"new"]), tells=st.booleans()),
    st.just(Immediate(429)),
)
MODES = st.sampled_from(BodyMode)


class Later:
    """A decision that is not there yet."""

    def __await__(self) -> Generator[None, None, Outcome]:
        raise AssertionError("the exchange awaits nothing itself")


class Strict:
    """A handler that notices what no handler should be told."""

    def __init__(self, outcome: Outcome | Awaitable[Outcome]) -> None:
        self.outcome = outcome
        self.asked = 0
        self.headers = 0
        self.ended = False
        self.told = False
        self.ends: list[End] = []

    def request(self, request: HttpRequest) -> Outcome | Awaitable[Outcome]:
        assert not self.ends
        self.asked += 1
        return self.outcome

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        assert self.asked == 1
        assert not self.ends
        self.headers += 1
        return [("x-seen", b"1")]

    def response_body(self, chunk: bytes, end: bool) -> None:
        assert self.asked == 1
        assert not self.ends
        assert not self.ended
        self.ended = end

    def response_told(self) -> bool:
        assert not self.told
        return False

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        assert not self.ends
        assert not self.told
        self.told = True
        return {"n": {"k": 1}}

    def closed(self, end: End) -> None:
        self.ends.append(end)


class Side:
    """One direction of a request: what was sent, and what was answered."""

    def __init__(self, mode: BodyMode) -> None:
        self.mode = mode
        self.sent: list[str] = []
        self.bytes_in = self.bytes_out = 0
        self.answered: list[str] = []
        self.ended = False

    def expects(self, kind: str, reply: ProcessingResponse) -> None:
        """The reply is due: it answers something sent, in order, once."""
        assert kind in self.sent, f"{kind} was not sent"
        assert not self.answered or _RANK[self.answered[-1]] <= _RANK[kind], "out of order"
        if kind == "body":
            self._expects_body(reply)
        else:
            assert kind not in self.answered, f"{kind} answered twice"
        self.answered.append(kind)

    def _expects_body(self, reply: ProcessingResponse) -> None:
        common = getattr(reply, reply.WhichOneof("response")).response
        if self.mode is DUPLEX:
            assert not self.ended, "more after the end of a streamed body"
            piece = common.body_mutation.streamed_response
            assert common.body_mutation.HasField("streamed_response")
            assert len(piece.body) <= CHUNK_BYTES
            self.bytes_out += len(piece.body)
            self.ended = piece.end_of_stream
        else:
            assert not common.body_mutation.HasField("streamed_response")
            assert self.answered.count("body") < self.sent.count("body"), "a piece answered twice"


_RANK = {"headers": 0, "body": 1, "trailers": 2}


class Ledger:
    """Both directions."""

    def __init__(self, request: BodyMode, response: BodyMode) -> None:
        self.sides = {"request": Side(request), "response": Side(response)}

    def sends(self, data: bytes) -> None:
        """Note what the message is."""
        try:
            message = ProcessingRequest.FromString(data)
        except Exception:
            return
        kind = message.WhichOneof("request")
        if kind is not None:
            side, _, what = kind.partition("_")
            self.sides[side].sent.append(what)
            if what == "body":
                self.sides[side].bytes_in += len(getattr(message, kind).body)

    def hears(self, reply: bytes) -> None:
        """Check one reply."""
        message = ProcessingResponse.FromString(reply)
        kind = message.WhichOneof("response")
        assert kind is not None
        if kind != "immediate_response":
            side, _, what = kind.partition("_")
            self.sides[side].expects(what, message)


def configured(messages: list[bytes], request: BodyMode, response: BodyMode) -> list[bytes]:
    """The first message that says anything says the modes."""
    config = ProcessingRequest()
    config.protocol_config.request_body_mode = request
    config.protocol_config.response_body_mode = response
    first = next((at for at, data in enumerate(messages) if data), 0)
    said = config.SerializeToString()
    return [data + said if at == first else data for at, data in enumerate(messages)]


@settings(max_examples=600)
@given(SEQUENCES, MODES, MODES, OUTCOMES, st.none() | st.integers(1, 6), st.sampled_from(End))
def test_any_order_of_messages(
    messages: list[bytes], request: BodyMode, response: BodyMode, outcome: Outcome, decided_after: int | None, end: End
) -> None:
    handler = Strict(outcome if decided_after is None else Later())
    machine = Exchange(handler, Replies(), LIMIT_BYTES)
    ledger = Ledger(request, response)
    for position, data in enumerate(configured(messages, request, response)):
        ledger.sends(data)
        try:
            replies = machine.receive(data)
            if machine.awaiting is not None:
                assert replies == []
                if position == decided_after:
                    replies = machine.decided(outcome)
        except ProtocolError:
            end = End.FAILED
            break
        for reply in replies:
            ledger.hears(reply)
        if machine.finished:
            assert handler.ends
            assert machine.receive(data) == []
    machine.close(end)
    machine.close(End.COMPLETE)
    assert handler.asked <= 1
    assert handler.headers <= 1
    assert len(handler.ends) == 1


@given(ORDERLY, MODES, MODES, st.sampled_from(Watch))
def test_nothing_that_passes_by_is_lost(
    messages: list[bytes], request: BodyMode, response: BodyMode, watch: Watch
) -> None:
    """In FULL_DUPLEX_STREAMED every byte that came goes back, unless the stream ended before it could come."""
    machine = Exchange(Strict(Route(watch=watch, tells=True)), Replies(), LIMIT_BYTES)
    ledger = Ledger(request, response)
    for data in configured(messages, request, response):
        if machine.finished:
            break
        ledger.sends(data)
        try:
            replies = machine.receive(data)
        except ProtocolError:
            return
        for reply in replies:
            ledger.hears(reply)
    for name, side in ledger.sides.items():
        routed = name == "response" or "headers" in side.answered
        if side.mode is DUPLEX and routed:
            assert side.bytes_out == side.bytes_in, name
