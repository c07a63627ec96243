# SPDX-License-Identifier: Apache-2.0
"""The gRPC method `ShouldRateLimit`: one message in, one out.

A call costs a task only where the limiter has to wait for its counters. A call whose client goes away meanwhile (reset,
deadline) is booked all the same: its charge may have reached the store. A message that cannot be read, or a call that
breaks the protocol, ends that call alone. All on the event loop's thread.

gRPC statuses: INVALID_ARGUMENT for what the caller got wrong, UNAVAILABLE where there are no rules or, if it is
configured so, no counters. (The Go service says UNKNOWN for all of them; Envoy treats all alike.)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from google.protobuf.message import DecodeError

from epp.contract.errors import EppError
from epp.observe.metrics.histogram import Bounds, Histogram
from epp.protos.rls_pb2 import RateLimitRequest, RateLimitResponse
from epp.ratelimit.errors import BadCall
from epp.transport.call import INTERNAL, INVALID_ARGUMENT, UNAVAILABLE, Metadata, Reply

log = logging.getLogger("epp.ratelimit")

NAME = "envoy.service.ratelimit.v3.RateLimitService"
"""What a health probe asks for."""
PATH = f"/{NAME}/ShouldRateLimit"
"""The gRPC path of the method."""

MESSAGE_BYTES = 1024 * 1024
"""The largest message: a call has a few descriptors of a few short entries."""
CALL_S: Bounds = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)

_QUIET_S = 10.0
"""A kind of mistake has a line at most this often."""

Answer = RateLimitResponse | Awaitable[RateLimitResponse]


class Limiter(Protocol):
    """What decides."""

    def answer(self, request: RateLimitRequest) -> Answer:
        """The response, at once where it is known at once. Raises `EppError`, or its awaitable does."""
        ...


class Calls:
    """Calls since the start: `seconds` of those that were answered, from message to answer; and how many were not.

    * malformed: no message, or none that can be read; invalid: against the protocol
    * unavailable: no rules, or no counters; failed: a fault of ours
    """

    __slots__ = ("failed", "invalid", "malformed", "seconds", "unavailable")

    def __init__(self) -> None:
        self.malformed = 0
        self.invalid = 0
        self.unavailable = 0
        self.failed = 0
        self.seconds = Histogram(CALL_S)


class RateLimits:
    """All calls of this process. `clock` gives monotonic seconds."""

    def __init__(self, limiter: Limiter, clock: Callable[[], float] = time.perf_counter) -> None:
        self.calls = Calls()
        self._limiter = limiter
        self._clock = clock
        self._booking: set[asyncio.Task[None]] = set()
        self._said_s: dict[str, float] = {}

    @property
    def waiting(self) -> int:
        """Calls that wait for their counters."""
        return len(self._booking)

    def open(self, _metadata: Metadata, reply: Reply) -> _Call:
        """What to register under `PATH`."""
        return _Call(self, reply)

    async def settle(self, patience_s: float) -> None:
        """Wait until what was begun is booked, also for clients that are gone; at most `patience_s`."""
        if self._booking:
            await asyncio.wait(self._booking, timeout=patience_s)

    def take(self, data: bytes, reply: Reply) -> None:
        """One message of one call."""
        began_s = self._clock()
        try:
            answer = self._limiter.answer(RateLimitRequest.FromString(data))
        except Exception as error:
            self._fail(error, reply)
            return
        if isinstance(answer, RateLimitResponse):
            self._tell(answer, reply, began_s)
            return
        task = asyncio.ensure_future(self._wait(answer, reply, began_s))
        self._booking.add(task)
        task.add_done_callback(self._booking.discard)

    async def _wait(self, answer: Awaitable[RateLimitResponse], reply: Reply, began_s: float) -> None:
        try:
            response = await answer
        except Exception as error:
            self._fail(error, reply)
            return
        self._tell(response, reply, began_s)

    def _tell(self, response: RateLimitResponse, reply: Reply, began_s: float) -> None:
        reply.send(response.SerializeToString())
        reply.finish()
        self.calls.seconds.observe(self._clock() - began_s)

    def _fail(self, error: Exception, reply: Reply) -> None:
        if isinstance(error, DecodeError):
            self.calls.malformed += 1
            text = "the message is no RateLimitRequest"
            self._say("malformed", "a call was refused: %s", text)
            reply.finish(INVALID_ARGUMENT, text)
        elif isinstance(error, BadCall):
            self.calls.invalid += 1
            self._say("bad call", "a call was refused: %s", error)
            reply.finish(INVALID_ARGUMENT, str(error))
        elif isinstance(error, EppError):
            self.calls.unavailable += 1
            self._say("unavailable", "calls cannot be answered: %s", error)
            reply.finish(UNAVAILABLE, str(error))
        else:
            self.calls.failed += 1
            log.error("a call failed: %r", error, exc_info=error)
            reply.finish(INTERNAL, "internal error")

    def _say(self, kind: str, line: str, what: object) -> None:
        now_s = self._clock()
        if now_s - self._said_s.get(kind, -_QUIET_S) >= _QUIET_S:
            self._said_s[kind] = now_s
            log.warning(line, what)


class _Call:
    """One call: what the transport tells it of. Nothing is kept but what `RateLimits` needs to answer."""

    __slots__ = ("_limits", "_reply", "_taken")

    def __init__(self, limits: RateLimits, reply: Reply) -> None:
        self._limits = limits
        self._reply = reply
        self._taken = False

    def message(self, data: bytes) -> None:
        """The request. A unary call has one; a second one is left."""
        if not self._taken:
            self._taken = True
            self._limits.take(data, self._reply)

    def half_closed(self) -> None:
        """The client has said everything."""
        if not self._taken:
            self._limits.calls.malformed += 1
            self._reply.finish(INVALID_ARGUMENT, "the request is missing")

    def cancelled(self, _reason: str) -> None:
        """The client is gone; what was begun goes on."""
