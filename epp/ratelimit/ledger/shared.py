# SPDX-License-Identifier: Apache-2.0
"""Counters in Redis or Valkey, shared by all replicas that use the same store, prefix and windows.

Calls that arrive while a batch is under way go together in the next one, so each call costs at most one round trip and
a busy ledger costs less. One connection, batches in order, each with a number (see `script`).

A batch that fails or takes longer than the timeout opens the circuit: from then on calls are answered at once, without
their counter, and what they charge is kept. A task tries the store, with growing pauses, until it answers; then the
batch in doubt goes first, with its old number, then what was kept, and only then calls again. One line in the log when
the store goes, one when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence

from epp.contract.metering import Meter
from epp.ratelimit.ledger.contract import Charge, LedgerState, OnFailure, Standing, Window
from epp.ratelimit.ledger.kept import Kept
from epp.ratelimit.ledger.link import CONNECT_TIMEOUT_S, Link, StoreAway
from epp.ratelimit.ledger.script import REMEMBERED_S, Post
from epp.ratelimit.ledger.windows import Told, window_of

log = logging.getLogger("epp.ratelimit")

MOST_A_BATCH = 256
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
CLOSING_S = 1.0
_SLACK_S = 60


class _Call:
    __slots__ = ("answer", "posts")

    def __init__(self, posts: Sequence[Post], answer: asyncio.Future[Sequence[object] | None]) -> None:
        self.posts = posts
        self.answer = answer


class SharedLedger:
    """A `Ledger`."""

    def __init__(
        self,
        url: str,
        window: Window,
        on_failure: OnFailure,
        clock: Callable[[], float],
        meter: Meter,
        *,
        timeout_s: float,
        prefix: str,
    ) -> None:
        self.on_failure = on_failure
        self._window = window
        self._clock = clock
        self._timeout_s = timeout_s
        self._link = Link(url, prefix, sliding=window is Window.SLIDING)
        self._told = Told()
        self._failures = meter.counter("epp_ratelimit_store_failures", "Batches that the store did not take.", ())
        self._uncounted = meter.counter(
            "epp_ratelimit_uncounted", "Amounts of charges that are not counted anywhere, by reason.", ("reason",)
        )
        self._kept = Kept(self._uncounted)
        self._waiting: deque[_Call] = deque()
        self._number = 0
        self._doubt: tuple[int, Sequence[Post], float] | None = None
        self._away: str | None = None
        self._draining: asyncio.Task[None] | None = None
        self._trying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect; a store that is away is tried again, and said."""
        try:
            await self._link.connect(CONNECT_TIMEOUT_S)
        except StoreAway as error:
            self._open_circuit(error)

    async def book(self, charges: Sequence[Charge], now: float) -> Sequence[Standing | None]:
        """Book all charges in one batch; None for each while the store is away."""
        posts = [self._post(charge, now) for charge in charges]
        if self._away is not None:
            for post in posts:
                self._kept.keep(post, now)
            return [None] * len(posts)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Call(posts, answer))
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        answers = await answer
        if answers is None:
            return [None] * len(posts)
        return [await self._standing(*pair, now) for pair in zip(charges, answers, strict=True)]

    def state(self) -> LedgerState:
        """How it is."""
        return LedgerState(self._link.place, self._window, self._away, kept=len(self._kept))

    async def close(self) -> None:
        """Book what waits and what is kept, within a second; say what is left, and let go."""
        if self._draining:
            await asyncio.wait([self._draining], timeout=CLOSING_S)
        if self._trying:
            self._trying.cancel()
            await asyncio.gather(self._trying, return_exceptions=True)
        with contextlib.suppress(StoreAway, TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                await self._catch_up()
        left = len(self._kept) + (len(self._doubt[1]) if self._doubt else 0)
        if left:
            log.warning("rate limits: %s is away, charges on %d counters are lost", self._link.place, left)
        await self._link.close()

    def _post(self, charge: Charge, now: float) -> Post:
        period_s = charge.period_s
        if self._window is Window.SLIDING:
            return Post(charge.key, charge.amount, charge.refund, period_s, int(now) + period_s)
        start, left = window_of(now, period_s)
        # The slack: another replica's clock may be behind.
        expires = left + min(period_s, _SLACK_S)
        return Post(f"{charge.key}/{start}", charge.amount, charge.refund, expires, start + period_s)

    async def _standing(self, charge: Charge, answer: object, now: float) -> Standing | None:
        if answer is None:
            self._uncounted.add(("store",), charge.amount)
            return None
        if isinstance(answer, list):
            return await self._told.standing(answer, charge.period_s)
        assert isinstance(answer, int)
        return Standing(answer, window_of(now, charge.period_s)[1])

    async def _drain(self) -> None:
        try:
            while self._waiting and self._away is None:
                calls: list[_Call] = []
                posts: list[Post] = []
                while self._waiting and len(posts) < MOST_A_BATCH:
                    calls.append(self._waiting.popleft())
                    posts.extend(calls[-1].posts)
                try:
                    answers = await self._send(posts, self._timeout_s)
                except StoreAway as error:
                    self._answer(calls, None)
                    self._open_circuit(error)
                    return
                self._answer(calls, answers)
        finally:
            self._draining = None

    async def _send(self, posts: Sequence[Post], timeout_s: float) -> list[object]:
        number = 0
        if any(post.amount for post in posts):
            self._number += 1
            number = self._number
            self._doubt = (number, posts, self._clock())
        answers = await self._link.send(number, posts, timeout_s)
        self._doubt = None
        return answers

    def _answer(self, calls: Sequence[_Call], answers: Sequence[object] | None) -> None:
        begin = 0
        for call in calls:
            end = begin + len(call.posts)
            if not call.answer.done():
                call.answer.set_result(None if answers is None else answers[begin:end])
            begin = end

    def _open_circuit(self, error: StoreAway) -> None:
        self._failures.add(())
        self._away = str(error)
        now = self._clock()
        log.warning(
            "rate limits: %s is away (%s); calls are answered without it: %s",
            self._link.place,
            self._away,
            self.on_failure.value,
        )
        # These were never sent.
        for call in self._waiting:
            for post in call.posts:
                self._kept.keep(post, now)
        self._answer(self._waiting, None)
        self._waiting.clear()
        self._trying = asyncio.create_task(self._try())

    async def _try(self) -> None:
        pause_s, since = FIRST_PAUSE_S, asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            try:
                await self._link.connect(CONNECT_TIMEOUT_S)
                counters = await self._catch_up()
            except StoreAway as error:
                self._failures.add(())
                self._away = str(error)
                continue
            self._away = self._trying = None
            away_s = asyncio.get_running_loop().time() - since
            # As loud as the line that it was away: who heard that one waits for this one.
            log.warning(
                "rate limits: %s is back after %.1f s; booked what was kept for %d counters",
                self._link.place,
                away_s,
                counters,
            )
            return

    async def _catch_up(self) -> int:
        """Book the batch in doubt, then what was kept; how many counters that were."""
        if self._doubt:
            number, posts, sent = self._doubt
            if self._clock() - sent < REMEMBERED_S:
                await self._link.send(number, posts, CONNECT_TIMEOUT_S)
            else:
                self._uncounted.add(("doubt",), sum(post.amount for post in posts))
            self._doubt = None
        counters = 0
        while posts := self._kept.take(MOST_A_BATCH, self._clock()):
            await self._send(posts, CONNECT_TIMEOUT_S)
            counters += len(posts)
        return counters
