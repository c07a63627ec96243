# SPDX-License-Identifier: Apache-2.0
"""A real Redis that goes away and comes back: nothing waits for it, and no charge is lost or booked twice.

Where the sum must be exact across a kill, the server writes each command to its log before it answers.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from epp.contract.metering import NoMeter
from epp.ratelimit.ledger import Charge, Ledger, OnFailure, Window, open_ledger
from epp.ratelimit.ledger.kept import Kept
from epp.ratelimit.ledger.link import Link, StoreAway
from epp.ratelimit.ledger.script import Post
from tests.ratelimit.support import Clock, Readings, needs_redis, store

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110  # what is waited for is in another process
            await asyncio.sleep(0.01)


async def count(of: Ledger, key: str, now: float, period_s: int = 3600) -> int:
    [standing] = await of.book([Charge(key, period_s, 0)], now)
    assert standing
    return standing.count


def at_once(book: Awaitable[object]) -> object:
    """The result of a coroutine that waits for nothing."""
    try:
        next(iter(book.__await__()))
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")


@needs_redis
@pytest.mark.parametrize("window", Window)
async def test_killed_and_started_again(tmp_path: Path, window: Window, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "epp.ratelimit")
    clock, meter = Clock(), Readings()
    async with store(tmp_path, *DURABLE) as server:
        ledger = open_ledger(
            server.url, window=window, clock=clock, meter=meter, on_failure=OnFailure.DENY, timeout_s=2
        )
        await ledger.start()
        await ledger.book([Charge("k", 86400, 100)], clock.now)
        server.kill()
        assert await ledger.book([Charge("k", 86400, 10)], clock.now) == [None]
        assert ledger.state().away
        for _ in range(100):
            assert at_once(ledger.book([Charge("k", 86400, 1), Charge("l", 86400, 2)], clock.now)) == [None, None]
        assert ledger.state().kept == 2
        await server.start()
        await until(lambda: ledger.state().away is None)
        assert await count(ledger, "k", clock.now, 86400) == 100 + 10 + 100
        assert await count(ledger, "l", clock.now, 86400) == 200
        assert ledger.state().kept == 0
        await ledger.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith(f"rate limits: {server.url} is away (")
    assert said[0].endswith("calls are answered without it: deny")
    assert said[1].startswith(f"rate limits: {server.url} is back after ")
    assert caplog.records[0].levelno == caplog.records[1].levelno == logging.WARNING
    assert meter.of("epp_ratelimit_store_failures") >= 1
    assert not meter.counts["epp_ratelimit_uncounted"]


@needs_redis
async def test_a_store_that_hangs(tmp_path: Path) -> None:
    """What was sent when it hung is taken when it goes on, and not once more."""
    clock = Clock()
    async with store(tmp_path) as server:
        ledger = open_ledger(server.url, clock=clock, timeout_s=0.05)
        await ledger.start()
        server.pause()
        started = [asyncio.create_task(ledger.book([Charge("k", 3600, 1)], clock.now)) for _ in range(50)]
        assert await asyncio.gather(*started) == [[None]] * 50
        server.resume()
        await until(lambda: ledger.state().away is None)
        assert await count(ledger, "k", clock.now) == 50
        await ledger.close()


@needs_redis
async def test_a_late_batch_is_not_taken_after_its_second_copy(tmp_path: Path) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        link = Link(server.url, "epp", sliding=False)
        first, second = ([Post("k", amount, False, 60, 9)] for amount in (5, 7))
        assert await link.send(1, first, 2.0) == [5]
        assert await link.send(1, first, 2.0) == [5]
        assert await link.send(2, second, 2.0) == [12]
        assert await link.send(1, first, 2.0) == [12]
        assert await link.send(0, first, 2.0) == [12]
        server.kill()
        with pytest.raises(StoreAway, match=r"refused|closed|reset"):
            await link.connect(1.0)
        await link.close()
        assert clock.now


@needs_redis
async def test_a_store_that_asks_for_a_password_says_so_in_the_same_words_to_all_commands(tmp_path: Path) -> None:
    async with store(tmp_path, "--save", "", "--requirepass", "hush") as server:
        for count in (0, 1, 50):
            link = Link(server.url, "epp", sliding=False)
            posts = [Post(f"k{number}", 1, False, 60, 9) for number in range(count)]
            with pytest.raises(StoreAway) as told:
                await (link.send(1, posts, 2.0) if posts else link.connect(2.0))
            assert str(told.value) == "it asks for a password: give one in the URL"
            await link.close()


@needs_redis
@pytest.mark.parametrize(("seed", "window"), [(1, Window.FIXED), (2, Window.SLIDING), (3, Window.FIXED)])
async def test_the_sum_is_exact_whatever_happens_to_the_store(tmp_path: Path, seed: int, window: Window) -> None:
    draw = random.Random(seed)
    clock = Clock()
    total = 0
    async with store(tmp_path, *DURABLE) as server:
        ledgers = [open_ledger(server.url, window=window, clock=clock, timeout_s=0.03) for _ in range(2)]
        ending = asyncio.Event()

        async def charge(index: int) -> None:
            nonlocal total
            while not ending.is_set():
                amount = draw.randrange(1, 50)
                total += amount
                await ledgers[index % 2].book([Charge("k", 31536000, amount)], clock.now)
                await asyncio.sleep(draw.random() * 0.01)

        tasks = [asyncio.create_task(charge(index)) for index in range(12)]
        for _ in range(4):
            await asyncio.sleep(0.05 + draw.random() * 0.1)
            if draw.random() < 0.5:
                server.pause()
                await asyncio.sleep(0.1)
                server.resume()
            else:
                server.kill()
                await asyncio.sleep(0.05)
                await server.start()
        ending.set()
        await asyncio.gather(*tasks)
        await until(lambda: all(ledger.state().away is None for ledger in ledgers))
        assert all(ledger.state().kept == 0 for ledger in ledgers)
        judge = open_ledger(server.url, window=window, clock=clock, timeout_s=5)
        assert await count(judge, "k", clock.now, 31536000) == total
        for ledger in (*ledgers, judge):
            await ledger.close()


@needs_redis
async def test_a_store_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        server.kill()
        ledger = open_ledger(server.url, clock=clock, timeout_s=2)
        await ledger.start()
        assert ledger.state().away
        assert at_once(ledger.book([Charge("k", 3600, 4)], clock.now)) == [None]
        await server.start()
        await until(lambda: ledger.state().away is None)
        assert await count(ledger, "k", clock.now) == 4
        await ledger.close()


@needs_redis
async def test_what_is_kept_is_booked_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        for comes_back in (True, False):
            server.kill()
            ledger = open_ledger(server.url, clock=clock, timeout_s=2)
            await ledger.start()
            await ledger.book([Charge("k", 3600, 4)], clock.now)
            if comes_back:
                await server.start()
                await ledger.close()
                judge = open_ledger(server.url, clock=clock, timeout_s=2)
                assert await count(judge, "k", clock.now) == 4
                await judge.close()
                assert "are lost" not in caplog.text
            else:
                await ledger.close()
                assert "charges on 1 counters are lost" in caplog.text


@needs_redis
async def test_windows_that_ended_meanwhile_are_let_go(tmp_path: Path) -> None:
    clock, meter = Clock(), Readings()
    async with store(tmp_path) as server:
        server.kill()
        ledger = open_ledger(server.url, clock=clock, meter=meter, timeout_s=2)
        await ledger.start()
        await ledger.book([Charge("k", 60, 4), Charge("day", 86400, 5)], clock.now)
        clock.now += 60
        await server.start()
        await until(lambda: ledger.state().away is None)
        assert meter.of("epp_ratelimit_uncounted", "expired") == 4
        assert await count(ledger, "day", clock.now, 86400) == 5
        assert await server.answers("EXISTS epp:k/999960") == b":0"
        await ledger.close()


def test_what_is_kept_is_bounded() -> None:
    meter = Readings()
    uncounted = meter.counter("uncounted", "", ("reason",))
    kept = Kept(uncounted, most=2)
    posts = [Post(key, amount, False, 60, until) for key, amount, until in (("a", 1, 50), ("b", 2, 99), ("c", 4, 99))]
    for post in posts:
        kept.keep(post, 10)
    kept.keep(Post("a", 7, False, 60, 60), 10)
    kept.keep(Post("z", 0, False, 60, 60), 10)
    assert (len(kept), meter.of("uncounted", "overflow")) == (2, 4)
    kept.keep(posts[2], 70)
    assert (len(kept), meter.of("uncounted", "expired")) == (2, 8)
    assert [(post.key, post.amount) for post in kept.take(1, 70)] == [("b", 2)]
    assert kept.take(9, 99) == []
    assert (len(kept), meter.of("uncounted", "expired")) == (0, 12)


def test_charges_and_refunds_are_kept_apart() -> None:
    kept = Kept(NoMeter().counter("n", "", ()))
    for amount, refund in ((5, False), (3, True), (6, False), (1, True)):
        kept.keep(Post("k", amount, refund, 60, 99), 0)
    assert [(post.amount, post.refund) for post in kept.take(9, 0)] == [(11, False), (4, True)]
