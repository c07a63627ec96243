# SPDX-License-Identifier: Apache-2.0
"""Counters in a real Redis, shared by several ledgers."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from limits.aio.storage.redis import RedisStorage

from epp.ratelimit.engine import Engine
from epp.ratelimit.errors import LedgerError
from epp.ratelimit.ledger import Charge, Ledger, OnFailure, Window, open_ledger
from epp.ratelimit.rules import rules_from_yaml
from tests.ratelimit.support import Clock, Readings, Store, codes, descriptor, needs_redis, request, store

RULES = rules_from_yaml(
    "domain: d\ndescriptors:\n- {key: user, rate_limit: {unit: hour, requests_per_unit: 1000}}", "x"
)


def ledger(server: Store, clock: Clock, **options: object) -> Ledger:
    return open_ledger(server.url, clock=clock, timeout_s=5.0, **options)  # type: ignore[arg-type]


async def count(of: Ledger, key: str, now: float, period_s: int = 3600) -> int:
    [standing] = await of.book([Charge(key, period_s, 0)], now)
    assert standing
    return standing.count


@needs_redis
async def test_two_engines_share_a_limit(tmp_path: Path) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        one = Engine(ledger(server, clock), clock)
        two = Engine(open_ledger(server.unix_url, clock=clock, timeout_s=5.0), clock)
        for engine in (one, two):
            await engine.ledger.start()
            engine.install(RULES)
        answers = []
        for engine, amount in ((one, 600), (two, 400), (one, 0), (two, 1), (one, 0)):
            response = await engine.should_rate_limit(request("d", descriptor(("user", "ü x"), hits=amount)))
            answers.append((*codes(response), response.statuses[0].limit_remaining))
        assert answers == [("OK", 400), ("OK", 0), ("OK", 0), ("OVER_LIMIT", 0), ("OVER_LIMIT", 0)]
        assert response.statuses[0].duration_until_reset.seconds == 800
        clock.now += 800
        response = await two.should_rate_limit(request("d", descriptor(("user", "ü x"), hits=0)))
        assert (list(codes(response)), response.statuses[0].limit_remaining) == (["OK"], 1000)
        for engine in (one, two):
            await engine.ledger.close()


@needs_redis
@pytest.mark.parametrize("window", Window)
async def test_not_one_charge_is_lost_or_booked_twice(tmp_path: Path, window: Window) -> None:
    """Four replicas, hundreds of tasks, random charges: what is booked is the sum."""
    draw = random.Random(7)
    clock = Clock()
    charges = [Charge(f"k{draw.randrange(5)}", 86400, draw.randrange(100)) for _ in range(3000)]
    async with store(tmp_path) as server:
        replicas = [ledger(server, clock, window=window) for _ in range(4)]

        async def replica(index: int) -> None:
            mine = charges[index::40]
            for begin in range(0, len(mine), 3):
                standings = await replicas[index % 4].book(mine[begin : begin + 3], clock.now)
                assert all(standings)

        await asyncio.gather(*(replica(index) for index in range(40)))
        for key in {charge.key for charge in charges}:
            booked = sum(charge.amount for charge in charges if charge.key == key)
            assert await count(replicas[0], key, clock.now, 86400) == booked
        for one in replicas:
            await one.close()


@needs_redis
@pytest.mark.parametrize("window", Window)
async def test_looks_refunds_and_large_amounts(tmp_path: Path, window: Window) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        one = ledger(server, clock, window=window)
        steps = [
            (0, False),
            (7, False),
            (0, False),
            (3, True),
            (100, True),
            (1 << 40, False),
            (1 << 40, False),
            (5, True),
        ]
        standings = await one.book([Charge("k", 86400, amount, refund) for amount, refund in steps], clock.now)
        counts = [standing and standing.count for standing in standings]
        assert counts == [0, 7, 7, 4, 0, 1 << 40, 1 << 41, (1 << 41) - 5]
        assert await server.answers("EXISTS epp:nothing") == b":0"
        await one.book([Charge("nothing", 60, 0), Charge("nothing", 60, 4, refund=True)], clock.now)
        assert await server.answers("DBSIZE") == b":2"
        await one.close()


@needs_redis
async def test_keys_expire_soon_after_their_window(tmp_path: Path) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        one = ledger(server, clock, prefix="p")
        await one.book([Charge("hour:d:k=v", 3600, 5), Charge("second:d:k=v", 1, 5)], clock.now)
        assert await server.answers("TTL p:hour:d:k=v/997200") in (b":860", b":859")
        assert await server.answers("GET p:second:d:k=v/1000000") == b"$1"
        assert await server.answers("TTL p:second:d:k=v/1000000") in (b":2", b":1")
        await one.close()


@needs_redis
async def test_the_library_reads_the_same_counters(tmp_path: Path) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        library = RedisStorage(f"async+{server.url}", implementation="redispy", key_prefix="epp")
        fixed, sliding = ledger(server, clock), ledger(server, clock, window=Window.SLIDING)
        for amount in (3, 4):
            await fixed.book([Charge("f", 3600, amount)], clock.now)
            await sliding.book([Charge("s", 3600, amount)], clock.now)
        assert await library.get("f/997200") == 7
        before, _, count, left = await library.get_sliding_window("s", 3600)
        assert (before, count) == (0, 7)
        assert 7190 < left <= 7200
        await library.incr("f/997200", 3600, 5)
        await library.acquire_sliding_window_entry("s", 1000, 3600, 5)
        for one, key in ((fixed, "f"), (sliding, "s")):
            [standing] = await one.book([Charge(key, 3600, 0)], clock.now)
            assert standing
            assert standing.count == 12
            await one.close()
        await library.bridge.get_connection().aclose()  # type: ignore[attr-defined]


@needs_redis
async def test_a_key_of_somebody_else_costs_its_own_counter_alone(tmp_path: Path) -> None:
    clock, meter = Clock(), Readings()
    async with store(tmp_path) as server:
        one = ledger(server, clock, meter=meter)
        assert await server.answers("LPUSH epp:a/997200 x") == b":1"
        standings = await one.book([Charge("a", 3600, 5), Charge("b", 3600, 5)], clock.now)
        assert [standing and standing.count for standing in standings] == [None, 5]
        assert meter.of("epp_ratelimit_uncounted", "store") == 5
        assert await server.answers("SET epp:c/997200 word") == b"+OK"
        # Nor is it a counter at 0 for those who only look.
        standings = await one.book([Charge("a", 3600, 0), Charge("c", 3600, 0), Charge("b", 3600, 0)], clock.now)
        assert [standing and standing.count for standing in standings] == [None, None, 5]
        assert one.state().away is None
        await one.close()


@needs_redis
async def test_the_store_may_forget_the_script(tmp_path: Path) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        one = ledger(server, clock)
        for expected in (3, 6, 9):
            [standing] = await one.book([Charge("k", 3600, 3)], clock.now)
            assert standing
            assert standing.count == expected
            assert await server.answers("SCRIPT FLUSH") == b"+OK"
        await one.close()


@needs_redis
async def test_a_call_that_is_given_up_is_booked(tmp_path: Path) -> None:
    clock = Clock()
    async with store(tmp_path) as server:
        one = ledger(server, clock)
        await one.start()
        call = asyncio.create_task(one.book([Charge("k", 3600, 3)], clock.now))
        await asyncio.sleep(0)
        call.cancel()
        assert await count(one, "k", clock.now) == 3
        await one.close()


@needs_redis
async def test_a_password_is_asked_for_and_never_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    async with store(tmp_path, "--save", "", "--requirepass", "hush") as server:
        right = open_ledger(server.url.replace("//", "//:hush@"), clock=clock, timeout_s=5.0)
        await right.start()
        assert right.state().away is None
        await right.close()
        wrong = open_ledger(server.url.replace("//", "//someone:secret@"), clock=clock)
        await wrong.start()
        assert wrong.state().away
        await wrong.close()
    assert "is away" in caplog.text
    assert "secret" not in caplog.text + str(wrong.state()) + str(right.state())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://h", "scheme 'mysql' is not known"),
        ("redis://", "redis:// without a host"),
        ("redis://h:port", "not a URL"),
        ("unix://", "unix:// without a path"),
        ("h:6379", "scheme 'h' is not known"),
    ],
)
def test_urls_that_cannot_be_used(url: str, said: str) -> None:
    with pytest.raises(LedgerError, match=said):
        open_ledger(url)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://h", "redis://h:6379"),
        ("valkey://u:p@h:1/2", "redis://h:1/2"),
        ("valkeys://:p@[::1]", "rediss://[::1]:6379"),
        ("rediss://h:7?ssl_cert_reqs=none", "rediss://h:7"),
        ("unix:///run/r.sock?db=3", "unix:///run/r.sock"),
    ],
)
async def test_places(url: str, place: str) -> None:
    made = open_ledger(url, on_failure=OnFailure.DENY)
    assert (made.state().place, made.on_failure) == (place, OnFailure.DENY)
    await made.close()
