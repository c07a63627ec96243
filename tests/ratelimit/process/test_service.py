# SPDX-License-Identifier: Apache-2.0
"""The method as a transport drives it: answers, statuses, and calls whose client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from epp.protos.rls_pb2 import RateLimitRequest, RateLimitResponse
from epp.ratelimit.errors import BadCall, LedgerAway, NotReady
from epp.ratelimit.service import PATH, Answer, RateLimits
from epp.transport.call import INTERNAL, INVALID_ARGUMENT, OK, UNAVAILABLE, Metadata

REQUEST = RateLimitRequest(domain="d")
ANSWER = RateLimitResponse(overall_code=RateLimitResponse.OK)
OVER = RateLimitResponse(overall_code=RateLimitResponse.OVER_LIMIT)


class Peer:
    """What a client hears. A transport ignores what comes after the end, so it may come."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.end: tuple[int, str] | None = None

    def send(self, message: bytes) -> None:
        self.messages.append(message)

    def finish(self, status: int = OK, message: str = "") -> None:
        assert self.end is None
        self.end = status, message

    def at_once_bytes(self) -> int:
        return 0

    @property
    def answer(self) -> RateLimitResponse:
        assert self.end == (OK, "")
        [message] = self.messages
        return RateLimitResponse.FromString(message)


class Fake:
    """A limiter that does as it is told, and keeps what it was asked."""

    def __init__(self, act: Callable[[], Answer]) -> None:
        self.asked: list[RateLimitRequest] = []
        self.booked = 0
        self._act = act

    def answer(self, request: RateLimitRequest) -> Answer:
        self.asked.append(request)
        return self._act()


def fails(error: Exception) -> Callable[[], Answer]:
    def act() -> Answer:
        raise error

    return act


def call(limits: RateLimits, data: bytes = REQUEST.SerializeToString()) -> Peer:
    peer = Peer()
    opened = limits.open(Metadata(PATH), peer)
    opened.message(data)
    if peer.end is None:
        opened.half_closed()
    return peer


def test_an_answer_that_is_known_at_once_needs_no_loop() -> None:
    limiter = Fake(lambda: ANSWER)
    limits = RateLimits(limiter)
    assert call(limits).answer == ANSWER
    assert limiter.asked == [REQUEST]
    assert sum(limits.calls.seconds.counts) == 1
    assert call(RateLimits(Fake(lambda: OVER))).answer == OVER


async def test_an_answer_that_must_be_waited_for() -> None:
    loop = asyncio.get_running_loop()
    known = loop.create_future()
    limits = RateLimits(Fake(lambda: known))
    peer = call(limits)
    assert (peer.end, limits.waiting) == (None, 1)
    known.set_result(OVER)
    await limits.settle(5.0)
    assert peer.answer == OVER
    assert (sum(limits.calls.seconds.counts), limits.waiting) == (1, 0)


async def test_a_client_that_goes_away_does_not_undo_its_charge() -> None:
    go = asyncio.Event()
    booked = 0

    async def book() -> RateLimitResponse:
        nonlocal booked
        await go.wait()
        booked += 1
        return ANSWER

    limits = RateLimits(Fake(book))
    opened = limits.open(Metadata(PATH), Peer())
    opened.message(REQUEST.SerializeToString())
    opened.cancelled("deadline")
    await asyncio.sleep(0)
    go.set()
    await limits.settle(5.0)
    assert booked == 1


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BadCall("the domain is missing"), INVALID_ARGUMENT, "the domain is missing"),
        (NotReady("no rules"), UNAVAILABLE, "no rules"),
        (LedgerAway("the store is away"), UNAVAILABLE, "the store is away"),
        (ZeroDivisionError("secret"), INTERNAL, "internal error"),
    ],
)
async def test_errors(error: Exception, status: int, said: str) -> None:
    async def later() -> RateLimitResponse:
        raise error

    for act in (fails(error), later):
        limits = RateLimits(Fake(act))
        peer = call(limits)
        await limits.settle(5.0)
        assert (peer.end, peer.messages) == ((status, said), [])
        calls = limits.calls
        counted = {INVALID_ARGUMENT: calls.invalid, UNAVAILABLE: calls.unavailable, INTERNAL: calls.failed}
        assert counted == {one: int(one == status) for one in counted}
        assert sum(calls.seconds.counts) == 0


def test_a_message_that_is_none_ends_its_call_alone() -> None:
    limits = RateLimits(Fake(lambda: ANSWER))
    peer = call(limits, b"\xff\xff\xff")
    assert limits.calls.malformed == 1
    assert peer.end == (INVALID_ARGUMENT, "the message is no RateLimitRequest")
    assert call(limits).answer == ANSWER


def test_no_message_and_a_second_one() -> None:
    limiter = Fake(lambda: ANSWER)
    limits = RateLimits(limiter)
    peer = Peer()
    limits.open(Metadata(PATH), peer).half_closed()
    assert peer.end == (INVALID_ARGUMENT, "the request is missing")
    peer = Peer()
    opened = limits.open(Metadata(PATH), peer)
    opened.message(REQUEST.SerializeToString())
    opened.message(REQUEST.SerializeToString())
    assert len(limiter.asked) == 1


def test_a_caller_that_is_wrong_all_the_time_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 0.0
    limits = RateLimits(Fake(fails(BadCall("the domain is missing"))), clock=lambda: now_s)
    for _ in range(50):
        call(limits)
    assert [record.getMessage() for record in caplog.records] == ["a call was refused: the domain is missing"]
    now_s = 60.0
    call(limits)
    assert (len(caplog.records), limits.calls.invalid) == (2, 51)
