# SPDX-License-Identifier: Apache-2.0
"""When endpoints are asked often and when rarely, in virtual time."""

from __future__ import annotations

import itertools
import math

import pytest

from epp.contract.plugins import Reads
from epp.signals.poll.pace import QUIET_S
from tests.signals.test_scraper import REFUSED, World

IDLE_PAGE = b"vllm:num_requests_running 0.0\nvllm:num_requests_waiting 0.0\nvllm:kv_cache_usage_perc 0.0\n"
LOAD = Reads.WAITING | Reads.RUNNING | Reads.KV_UTILIZATION


def idle_world(*names: str, idle_interval_s: float = 1.0, settle_s: float = 3 * QUIET_S) -> World:
    """A pool without work, after the time it takes to notice that."""
    world = World(reads=LOAD, interval_s=0.05, idle_interval_s=idle_interval_s)
    world.page = IDLE_PAGE
    world.start()
    world.add(*names)
    world.time.run(settle_s)
    return world


def polls_within(world: World, name: str, seconds: float) -> int:
    before = len(world.readers[name].polled_s)
    world.time.run(seconds)
    return len(world.readers[name].polled_s) - before


def test_without_an_idle_interval_the_pace_never_changes() -> None:
    world = idle_world("a", idle_interval_s=0.0)
    assert polls_within(world, "a", 10.0) == pytest.approx(200, abs=1)
    world.scraper.pace.arrived()
    assert polls_within(world, "a", 10.0) == pytest.approx(200, abs=1)


def test_an_idle_interval_shorter_than_the_interval_has_no_effect() -> None:
    world = idle_world("a", idle_interval_s=0.01)
    assert polls_within(world, "a", 10.0) == pytest.approx(200, abs=1)


def test_idle_endpoints_are_asked_rarely() -> None:
    world = idle_world("a")
    assert polls_within(world, "a", 20.0) == pytest.approx(20, abs=1)


def test_requests_keep_the_full_pace_and_some_time_after() -> None:
    world = idle_world("a")
    for _ in range(20):
        world.scraper.pace.arrived()
        world.time.run(1.0)
    world.scraper.pace.arrived()
    assert polls_within(world, "a", QUIET_S - 0.1) == pytest.approx((QUIET_S - 0.1) / 0.05, abs=1)
    world.time.run(QUIET_S + 1.0)
    assert polls_within(world, "a", 20.0) == pytest.approx(20, abs=1)


@pytest.mark.parametrize("field", [b"running", b"waiting"])
def test_an_endpoint_with_work_is_asked_at_the_full_pace_alone(field: bytes) -> None:
    world = idle_world("a", "b")
    reader = world.readers["a"]
    reader.page = IDLE_PAGE.replace(field + b" 0.0", field + b" 1.0")
    world.time.run(1.1)
    assert polls_within(world, "a", 10.0) == pytest.approx(200, abs=1)
    assert polls_within(world, "b", 10.0) == pytest.approx(10, abs=1)
    reader.page = IDLE_PAGE
    world.time.run(2.0)
    assert polls_within(world, "a", 10.0) == pytest.approx(10, abs=1)


def test_an_endpoint_that_has_a_request_of_ours_is_not_idle_whatever_its_page_says() -> None:
    world = idle_world("a", "b")
    world.in_flight["a"] = 1.0
    world.time.run(1.1)
    assert polls_within(world, "a", 10.0) == pytest.approx(200, abs=1)
    assert polls_within(world, "b", 10.0) == pytest.approx(10, abs=1)


def test_the_first_request_sets_off_a_round_of_all_within_milliseconds() -> None:
    names = [f"e{number}" for number in range(20)]
    world = idle_world(*names, idle_interval_s=10.0)
    told = len(world.records)
    world.scraper.pace.arrived()
    assert len(world.records) == told, "nothing is asked on the request's own way"
    woken_s = world.time.now_s
    world.time.run(0.02)
    assert {endpoint.name for endpoint, _ in world.records[told:]} == set(names)
    for name in names:
        assert world.readers[name].polled_s[-1] - woken_s <= 0.015
    # From here on the pace is full.
    assert polls_within(world, "e7", 2.0) == pytest.approx(40, abs=1)


def test_a_second_request_of_the_same_moment_sets_off_nothing_more() -> None:
    world = idle_world("a", idle_interval_s=10.0)
    before = len(world.readers["a"].polled_s)
    for _ in range(5):
        world.scraper.pace.arrived()
    world.time.run(0.01)
    assert len(world.readers["a"].polled_s) == before + 1


def test_an_endpoint_that_is_being_asked_or_failing_is_not_asked_twice() -> None:
    world = idle_world("slow", "dead", "well", idle_interval_s=10.0)
    world.readers["dead"].error = REFUSED
    world.time.run(30.0)
    world.readers["slow"].latency_s = 12.0
    world.time.run(11.0)
    assert world.readers["slow"].busy
    polled = {name: len(reader.polled_s) for name, reader in world.readers.items()}
    world.scraper.pace.arrived()
    world.time.run(0.01)
    now = {name: len(reader.polled_s) for name, reader in world.readers.items()}
    assert now == {**polled, "well": polled["well"] + 1}


def test_endpoints_that_become_idle_together_are_spread_over_the_idle_interval() -> None:
    names = [f"e{number}" for number in range(50)]
    world = idle_world(*names, idle_interval_s=2.0)
    phases = sorted(world.readers[name].polled_s[-1] % 2.0 for name in names)
    gaps = [later - earlier for earlier, later in itertools.pairwise([*phases, phases[0] + 2.0])]
    # The second half of the interval holds them all, at distances of at most three shares.
    assert sorted(gaps)[-2] <= 2.7 * 1.0 / 50


def test_a_stopped_scraper_does_not_wake() -> None:
    world = idle_world("a")
    world.scraper.stop()
    world.scraper.pace.arrived()
    assert polls_within(world, "a", 30.0) == 0


def test_a_reading_is_never_older_than_an_idle_interval_and_a_poll() -> None:
    world = idle_world("a", idle_interval_s=3.0)
    world.time.run(30.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(world.readers["a"].polled_s)]
    assert max(gaps) <= 3.0 + 0.01
    assert math.isclose(gaps[-1], 3.0, abs_tol=0.01)
