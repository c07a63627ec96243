# SPDX-License-Identifier: Apache-2.0
"""When endpoints are polled, and what failures lead to, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from epp.contract.endpoints import Endpoint
from epp.contract.errors import ConfigError
from epp.contract.plugins import SCRAPED, EndpointHook, Reads
from epp.contract.signals import Sample
from epp.signals.engine.names import VLLM, EngineMetrics
from epp.signals.engine.recognise import only
from epp.signals.poll.http1 import PageError
from epp.signals.poll.reader import PageSink
from epp.signals.poll.scraper import Scraper
from epp.signals.settings import ScrapeSettings

PAGE = b"""\
vllm:num_requests_running 3.0
vllm:num_requests_waiting 2.0
vllm:kv_cache_usage_perc 0.25
vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0
"""
SAMPLE = Sample(2.0, 3.0, 0.25, 16.0, 100.0)


@dataclass
class FakeTimer:
    callback: Callable[[], object] | None

    def cancel(self) -> None:
        self.callback = None


class VirtualTime:
    """Timers that run when the test lets time pass."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, callback: Callable[[], object]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self._timers and self._timers[0][0] <= end_s:
            when, _, timer = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, when)
            if timer.callback:
                timer.callback()
        self.now_s = end_s


@dataclass
class FakeReader:
    """Answers after `latency_s` with `page`, or fails with `error`."""

    world: World
    endpoint: Endpoint
    sink: PageSink
    page: bytes = PAGE
    error: PageError | None = None
    latency_s: float = 0.001
    polled_s: list[float] = field(default_factory=list)
    closed: bool = False
    busy: bool = False
    cost_s: float = 0.0
    path: str = ""

    def use(self, path: str) -> None:
        self.path = path

    def fetch(self) -> None:
        assert not self.closed
        assert not self.busy, "polls overlap"
        self.busy = True
        self.polled_s.append(self.world.time.now_s)
        self.world.time.call_at(self.world.time.now_s + self.latency_s, self._answer)

    def _answer(self) -> None:
        self.busy = False
        self.world.scraper.turns.spent(self.cost_s)
        if self.closed:
            return
        if self.error:
            self.sink.on_page_error(self.error)
        else:
            # The page lies somewhere in a larger buffer.
            self.sink.on_page(
                bytearray(b"vllm:num_requests_running 9\n" + self.page + b"x 1\n"), 28, 28 + len(self.page)
            )

    def close(self) -> None:
        self.closed = True


class World:
    """A scraper in virtual time, with readers that the test controls by endpoint name."""

    def __init__(self, reads: Reads = SCRAPED, **settings: object) -> None:
        self.time = VirtualTime()
        self.readers: dict[str, FakeReader] = {}
        self.records: list[tuple[Endpoint, Sample]] = []
        self.gone: set[str] = set()
        self.lost: list[str] = []
        self.lost_s: list[tuple[float, float]] = []
        self.in_flight: dict[str, float] = {}
        self.page = PAGE
        scraped = ScrapeSettings(**settings)  # type: ignore[arg-type]
        self.scraper = Scraper(
            self._record,
            reads,
            scraped,
            random.Random(5),
            self._note_lost,
            lambda endpoint: self.in_flight.get(endpoint.name, 0.0),
        )

    def _note_lost(self, endpoint: Endpoint, seconds: float) -> None:
        self.lost.append(endpoint.name)
        self.lost_s.append((self.time.time(), self.time.time() + seconds))

    def _record(self, endpoint: Endpoint, sample: Sample) -> bool:
        self.records.append((endpoint, sample))
        return endpoint.name not in self.gone

    def start(self) -> None:
        self.scraper.start(self.time, self._open)

    def _open(self, endpoint: Endpoint, sink: PageSink) -> FakeReader:
        reader = self.readers[endpoint.name] = FakeReader(self, endpoint, sink, self.page)
        return reader

    def add(self, *names: str) -> None:
        for number, name in enumerate(names):
            self.scraper.on_endpoint_added(Endpoint("default", name, "127.0.0.1", 8000, generation=number))


REFUSED = PageError("connect", "http://127.0.0.1:8000/metrics: cannot connect: Connection refused")


def test_each_endpoint_is_polled_once_an_interval() -> None:
    world = World(interval_s=0.05)
    assert isinstance(world.scraper, EndpointHook)
    world.add("a", "b")
    world.start()
    world.time.run(1.0)
    world.add("c")
    world.time.run(1.0)
    for name, seconds in (("a", 2.0), ("b", 2.0), ("c", 1.0)):
        times = world.readers[name].polled_s
        assert len(times) == pytest.approx(seconds / 0.05, abs=1)
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert gaps == pytest.approx([0.05] * len(gaps))
    assert {sample for _, sample in world.records} == {SAMPLE}
    assert world.scraper.counts.polls == len(world.records)


@pytest.mark.parametrize("count", [2, 7, 100])
def test_polls_are_spread_over_the_interval(count: int) -> None:
    world = World(interval_s=0.05)
    world.start()
    world.add(*(f"e{number}" for number in range(count)))
    world.time.run(0.5)
    phases = sorted(reader.polled_s[-1] % 0.05 for reader in world.readers.values())
    gaps = [later - earlier for earlier, later in itertools.pairwise([*phases, phases[0] + 0.05])]
    assert max(gaps) <= 2.7 * 0.05 / count


def test_the_first_poll_does_not_wait_for_a_long_interval() -> None:
    world = World(interval_s=10.0)
    world.start()
    world.add("a")
    world.time.run(0.06)
    assert len(world.records) == 1
    world.time.run(30.0)
    assert len(world.records) == 4


def test_a_slow_endpoint_misses_turns_and_keeps_its_place() -> None:
    world = World(interval_s=0.05)
    world.start()
    world.add("a")
    world.time.run(0.06)
    reader = world.readers["a"]
    first = reader.polled_s[0]
    reader.latency_s = 0.12
    world.time.run(3.0)
    turns = [(when - first) / 0.05 for when in reader.polled_s]
    assert turns == pytest.approx([round(turn) for turn in turns], abs=1e-6)
    assert [b - a for a, b in itertools.pairwise(turns[2:])] == pytest.approx([3.0] * (len(turns) - 3), abs=1e-6)


@pytest.mark.parametrize(("error", "limit_s"), [(REFUSED, 1.0), (PageError("status", "answered 500"), 5.0)])
def test_failures_back_off_up_to_the_limit_and_recovery_is_at_full_speed(
    error: PageError, limit_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "epp.signals")
    world = World(interval_s=0.05, max_backoff_s=5.0)
    world.start()
    world.add("a", "b")
    world.time.run(1.0)
    reader = world.readers["a"]
    reader.error = error
    before = len(reader.polled_s)
    world.time.run(60.0)
    pauses = [later - earlier for earlier, later in itertools.pairwise(reader.polled_s[before:])]
    for number, pause in enumerate(pauses):
        longest = min(limit_s, 0.1 * 2**number)
        assert longest / 2 <= pause <= longest + 0.002
    assert len(set(pauses)) == len(pauses), "pauses are jittered"
    (state,) = (state for state in world.scraper.states() if state.endpoint.name == "a")
    assert state.failures_in_a_row == state.counts.failures[error.reason] == len(reader.polled_s) - before
    assert state.last_error == str(error)
    assert state.last_good_s < 101.1
    # The other endpoint did not notice.
    assert len(world.readers["b"].polled_s) == pytest.approx(61 / 0.05, abs=2)

    reader.error = None
    world.time.run(5.1)
    assert (state.failures_in_a_row, state.last_error) == (0, None)
    polled = len(reader.polled_s)
    world.time.run(1.0)
    assert len(reader.polled_s) - polled == pytest.approx(20, abs=1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert str(error) in caplog.messages[0]
    assert "default/a" in caplog.messages[0]
    assert "read again" in caplog.messages[1]
    assert world.scraper.counts.failures[error.reason] == state.counts.failures[error.reason]


@pytest.mark.parametrize(
    ("error", "told"),
    [(REFUSED, True), (PageError("closed", "in the middle"), True), (PageError("timeout", "slow"), False)],
)
def test_who_refuses_or_drops_a_connection_is_reported(error: PageError, told: bool) -> None:
    world = World()
    world.start()
    world.add("a", "b")
    world.time.run(1.0)
    assert world.lost == []
    world.readers["a"].error = error
    world.time.run(0.06)
    assert world.lost == (["a"] if told else [])


def test_who_hangs_is_reported_from_its_second_timeout_on_without_a_gap() -> None:
    world = World()
    world.start()
    world.add("a", "b")
    world.time.run(1.0)
    world.readers["a"].error = PageError("timeout", "no page within 1 s")
    world.time.run(60.0)
    assert set(world.lost) == {"a"}
    assert len(world.lost_s) == len(world.readers["a"].polled_s) - len(_good(world, "a")) - 1
    for (_, until_s), (reported_s, _) in itertools.pairwise(world.lost_s):
        assert reported_s < until_s
    assert world.lost_s[-1][1] > world.time.time()


def test_a_timeout_now_and_then_is_no_hang() -> None:
    world = World()
    world.start()
    world.add("a")
    [state] = world.scraper.states()
    for _ in range(20):
        world.readers["a"].error = PageError("timeout", "no page within 1 s")
        while not state.failures_in_a_row:
            world.time.run(0.0005)
        world.readers["a"].error = None
        world.time.run(1.0)
    assert state.counts.failures["timeout"] == 20
    assert world.lost == []


def _good(world: World, name: str) -> list[Sample]:
    return [sample for endpoint, sample in world.records if endpoint.name == name]


def test_a_connection_that_ends_between_polls_is_reported_and_checked_at_once() -> None:
    world = World(interval_s=10.0)
    world.start()
    world.add("a")
    world.time.run(5.0)
    reader = world.readers["a"]
    polls = len(reader.polled_s)
    reader.sink.on_idle_close()
    world.time.run(0.0)
    assert world.lost == ["a"]
    assert len(reader.polled_s) == polls + 1


def test_a_metrics_port_of_its_own_says_nothing_about_the_serving_port() -> None:
    world = World(port=9999)
    world.start()
    world.add("a")
    world.time.run(1.0)
    world.readers["a"].error = REFUSED
    world.time.run(1.0)
    assert world.lost == []


def test_an_endpoint_that_fails_now_and_then_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "epp.signals")
    world = World(interval_s=0.05)
    world.start()
    world.add("a")
    world.time.run(0.1)
    for _ in range(30):
        world.readers["a"].error = REFUSED
        world.time.run(0.1)
        world.readers["a"].error = None
        world.time.run(0.9)
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"] * 3


def test_a_page_without_any_of_the_signals_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.start()
    world.add("a")
    world.time.run(0.01)
    world.readers["a"].page = b"<html>It works!</html>\n"
    world.records.clear()
    world.time.run(1.0)
    assert world.records == []
    assert world.scraper.counts.failures["empty"] > 0
    assert "the page is of no engine known here (vllm, sglang," in caplog.text
    assert "Traceback" not in caplog.text


def test_a_signal_that_is_missing_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.start()
    world.add("a", "b")
    world.time.run(0.001)
    without_kv = PAGE.replace(b"kv_cache_usage", b"something_else")
    for reader in world.readers.values():
        reader.page = without_kv
    world.time.run(1.0)
    assert world.records[-1][1] == Sample(2.0, 3.0, None, 16.0, 100.0)
    assert [("default/a" in text, "default/b" in text) for text in sorted(caplog.messages)] == [
        (True, False),
        (False, True),
    ]
    assert "kv_utilization (vllm:kv_cache_usage_perc or vllm:gpu_cache_usage_perc)" in caplog.text
    assert [state.missing for state in world.scraper.states()] == [frozenset({"kv_utilization"})] * 2
    assert sum(world.scraper.counts.failures.values()) == 0


def test_a_label_of_no_engine_known_here_is_said_once_for_each_value(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    for number, engine in enumerate(("foo", "foo", "bar", "vllm", "foo", "")):
        labels = {"llm-d.ai/engine-type": engine}
        world.scraper.on_endpoint_added(Endpoint("default", f"pod-{number}", "127.0.0.1", 8000, labels))
    first, second = caplog.messages
    assert first.startswith(
        "endpoint default/pod-0: label llm-d.ai/engine-type is 'foo', which is no engine known here ("
    )
    assert second.startswith(
        "endpoint default/pod-2: label llm-d.ai/engine-type is 'bar', which is no engine known here ("
    )
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]


def test_only_what_is_read_is_missed() -> None:
    world = World(reads=Reads.WAITING | Reads.PROMPT)
    world.start()
    world.add("a")
    world.time.run(0.2)
    assert {sample for _, sample in world.records} == {Sample(waiting=2.0)}


@pytest.mark.parametrize(
    ("reads", "engine"),
    [
        (Reads.NOTHING, VLLM),
        (Reads.BODY | Reads.PREFIX_MATCH | Reads.IN_FLIGHT, VLLM),
        (Reads.WAITING, VLLM.override("waiting", "")),
        (SCRAPED, EngineMetrics("nothing")),
    ],
)
def test_nothing_is_scraped_when_nothing_is_needed(reads: Reads, engine: EngineMetrics) -> None:
    world = World(reads=reads, engines=only(engine))
    world.add("a")
    world.start()
    world.add("b")
    world.time.run(5.0)
    assert world.readers == {}
    assert not world.scraper.needed
    world.scraper.on_endpoint_removed(Endpoint("default", "a", "127.0.0.1", 8000, generation=0))


def test_a_removed_endpoint_is_left_alone() -> None:
    world = World()
    world.start()
    world.add("a", "b")
    world.time.run(1.0)
    (state, _) = world.scraper.states()
    world.scraper.on_endpoint_removed(state.endpoint)
    world.scraper.on_endpoint_removed(state.endpoint)
    reader = world.readers["a"]
    polled = len(reader.polled_s)
    world.time.run(1.0)
    assert reader.closed
    assert len(reader.polled_s) == polled
    assert [state.endpoint.name for state in world.scraper.states()] == ["b"]


def test_an_endpoint_that_comes_back_is_another_life() -> None:
    world = World()
    world.start()
    old = Endpoint("default", "a", "127.0.0.1", 8000, generation=1)
    new = Endpoint("default", "a", "127.0.0.1", 8000, generation=2)
    world.scraper.on_endpoint_added(old)
    first = world.readers["a"]
    world.scraper.on_endpoint_added(new)
    world.scraper.on_endpoint_removed(old)
    assert first.closed
    world.time.run(1.0)
    assert {endpoint.generation for endpoint, _ in world.records} == {2}


def test_an_endpoint_that_the_pool_no_longer_knows_is_not_polled_again() -> None:
    world = World()
    world.gone.add("a")
    world.start()
    world.add("a")
    world.time.run(1.0)
    assert len(world.records) == 1
    assert world.readers["a"].closed


def test_stop_ends_everything() -> None:
    world = World()
    world.start()
    world.add("a", "b")
    world.time.run(1.0)
    world.scraper.stop()
    polls = world.scraper.counts.polls
    world.add("c")
    world.time.run(1.0)
    assert world.scraper.counts.polls == polls
    assert all(reader.closed for reader in world.readers.values())
    assert "c" not in world.readers


def test_certificates_are_read_before_anything_starts() -> None:
    settings = ScrapeSettings(scheme="https", verify_tls=True, ca_file="/nowhere/ca.pem")
    with pytest.raises(ConfigError, match=r"/nowhere/ca\.pem cannot be used: No such file"):
        Scraper(lambda endpoint, sample: True, SCRAPED, settings, random.Random(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scheme": "ftp"}, "'ftp'; it must be http or https"),
        ({"path": "metrics"}, "must start with /"),
        ({"path": "/metrics\r\nHost: x"}, "must start with / and have no blanks"),
        ({"path": "/a b"}, "no blanks"),
        ({"port": 65536}, "65536"),
        ({"port": -1}, "-1"),
        ({"interval_s": 0.0}, "interval_s is 0.0"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"max_backoff_s": float("inf")}, "max_backoff_s"),
        ({"idle_interval_s": -1.0}, "idle_interval_s is -1; it must be 0 to 60 seconds"),
        ({"idle_interval_s": 61.0}, "idle_interval_s is 61"),
        ({"idle_interval_s": float("nan")}, "idle_interval_s is nan"),
        ({"loop_share": 0.0}, "loop share is 0.0; it must be above 0 and at most 1"),
        ({"loop_share": 1.1}, "loop share is 1.1"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ScrapeSettings(**settings)  # type: ignore[arg-type]
