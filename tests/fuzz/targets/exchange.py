# SPDX-License-Identifier: Apache-2.0
"""One ext_proc stream as a state machine, with a handler that writes down what it is told.

* Only `ProtocolError` is raised, with one line; every reply is a `ProcessingResponse`.
* The handler is asked at most once, hears of the response nothing after `closed`, and `closed` exactly once.
* In FULL_DUPLEX_STREAMED the body that was collected is handed on byte for byte, ended once if it was.
* A conversation whose every message carries an unknown field, which sends it to the full parse, has the same replies.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any

from google.protobuf.message import DecodeError

from epp.contract.errors import ProtocolError
from epp.extproc import End, Exchange, HeaderList, HttpRequest, Immediate, Outcome, Route, Watch
from epp.extproc.exchange import parse
from epp.extproc.handler import BodyMode
from epp.extproc.replies import Replies
from epp.protos.ext_proc_pb2 import ProcessingResponse
from tests.fuzz.harness import Input, Run, Target, one_line
from tests.fuzz.targets.conversation import MESSAGE, TURN, WORDS, conversations

LIMIT_BYTES = 500
_UNKNOWN_FIELD = b"\xa2\x06\x00"
_ROUTE = Route(set_headers=[("x-to", b"a")], metadata={"n": {"k": "v"}}, reused=True)
_OUTCOMES: tuple[Outcome, ...] = (
    _ROUTE,
    Route(watch=Watch.HEADERS, remove_headers=["x"]),
    Route(watch=Watch.NOTHING),
    Route(body=b"another"),
    Route(tells=True),
    Immediate(429, b"no", [("x-why", b"because")]),
)


class _Later(Awaitable[Outcome]):
    def __await__(self) -> Any:
        raise NotImplementedError


class _Handler:
    def __init__(self, outcome: Outcome, *, later: bool) -> None:
        self.outcome = outcome
        self.later = later
        self.asked: list[HttpRequest] = []
        self.ends: list[End] = []
        self.told = self.early = False

    def request(self, request: HttpRequest) -> Outcome | Awaitable[Outcome]:
        assert not self.ends
        self.asked.append(request)
        assert request.body is None or len(request.body) <= LIMIT_BYTES + 65535
        for name, value in request.headers.items():
            assert name == name.lower()
            value.encode("utf-8", "surrogateescape")
        return _Later() if self.later else self.outcome

    def response_headers(self, headers: Mapping[str, str], end: bool) -> HeaderList:
        return [("x-seen", b"%d" % len(headers))]

    def response_body(self, chunk: bytes, end: bool) -> None:
        assert not self.ends
        self.early = b"DONE" in chunk

    def response_told(self) -> bool:
        assert not self.told
        assert not self.ends
        return self.early

    def response_end(self) -> Mapping[str, Mapping[str, Any]]:
        assert not self.ends
        assert not self.told
        assert isinstance(self.outcome, Route)
        assert self.outcome.tells
        self.told = True
        return {"n": {"tokens": 1000}}

    def closed(self, end: End) -> None:
        self.ends.append(end)


def _make() -> Run:
    def run(data: bytes) -> None:
        source = Input(data)
        choice = source.byte()
        outcome, later = _OUTCOMES[choice % len(_OUTCOMES)], bool(choice & 0x80)
        said = [(kind % 4, message) for kind, message in source.records()]
        replies = _converse(said, outcome, later, b"")
        if all(kind != MESSAGE or _readable(message) for kind, message in said):
            assert _converse(said, outcome, later, _UNKNOWN_FIELD) == replies

    return run


def _readable(message: bytes) -> bool:
    try:
        parse(message)
    except DecodeError:
        return False
    return True


def _converse(said: list[tuple[int, bytes]], outcome: Outcome, later: bool, more: bytes) -> list[bytes]:
    handler = _Handler(outcome, later=later)
    exchange = Exchange(handler, Replies(), LIMIT_BYTES)
    out: list[bytes] = []
    end = End.GONE
    try:
        for kind, message in said:
            if kind == MESSAGE:
                out += exchange.receive(message + more)
            elif kind == TURN and exchange.awaiting is not None:
                out += exchange.decided(outcome)
            elif kind not in (MESSAGE, TURN):
                break
            if exchange.finished:
                break
    except ProtocolError as error:
        one_line(error)
        end = End.FAILED
    exchange.close(end)
    assert len(handler.asked) <= 1
    assert len(handler.ends) == 1
    told = [ProcessingResponse.FromString(reply).dynamic_metadata.fields["n"].struct_value.fields for reply in out]
    assert sum("tokens" in fields for fields in told) == handler.told
    _check_replies(out, handler, outcome)
    return out


def _check_replies(out: list[bytes], handler: _Handler, outcome: Outcome) -> None:
    replies = [ProcessingResponse.FromString(reply) for reply in out]
    assert all(reply.WhichOneof("response") for reply in replies)
    if (
        not handler.asked
        or not isinstance(outcome, Route)
        or handler.asked[0].mode is not BodyMode.FULL_DUPLEX_STREAMED
    ):
        return
    pieces = [r.request_body.response.body_mutation.streamed_response for r in replies if r.HasField("request_body")]
    pieces = [piece for piece in pieces if piece.body or piece.end_of_stream]
    wanted = handler.asked[0].body if outcome.body is None else outcome.body
    if pieces and wanted is not None:
        assert b"".join(piece.body for piece in pieces) == wanted
        assert sum(piece.end_of_stream for piece in pieces) <= 1


def _seeds() -> list[bytes]:
    return [bytes([choice]) + said for said in conversations()[::2] for choice in (0, 1, 2, 3, 4, 5, 0x80)]


TARGET = Target("exchange", _make, _seeds, WORDS)
