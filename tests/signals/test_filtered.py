# SPDX-License-Identifier: Apache-2.0
"""Filtered pages: what an endpoint is asked for, and that nothing is lost by it. Real applications of prometheus_client
serve the last tests.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app, make_wsgi_app

from epp.contract.endpoints import Endpoint
from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Sample
from epp.signals.poll.filtered import LEAST_BYTES, PAUSE_S, RECHECK_S, Filtering, count, forms
from epp.signals.poll.http1 import PageError
from epp.signals.poll.scraper import Scraper
from epp.signals.settings import ScrapeSettings
from tests.signals.test_scraper import FakeReader, World

Serve = Callable[..., Any]

NAMES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "vllm:cache_config_info")
WANTED = b"""\
vllm:num_requests_running{engine="0"} 3.0
vllm:num_requests_running{engine="1"} 1.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:num_requests_waiting{engine="1"} 0.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.5
vllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1.0
"""
REST = b"".join(b'some_histogram_bucket{le="%d"} 1.0\n' % bound for bound in range(300))
WHOLE = b"# TYPE vllm:num_requests_running gauge\n" + WANTED + REST
LOAD = Reads.WAITING | Reads.RUNNING | Reads.KV_UTILIZATION | Reads.CACHE_CONFIG

Answer = bytes | PageError
NOT_FOUND = PageError("status", "the answer's status is 404, not 200")
REDIRECT = PageError("status", "the answer is 307 to '/metrics/'; redirects are not followed")
CLOSED = PageError("closed", "the endpoint closed the connection")


def test_forms() -> None:
    assert forms("/metrics", ("a:b", "c")) == [
        "/metrics?name%5B%5D=a:b&name%5B%5D=c",
        "/metrics/?name%5B%5D=a:b&name%5B%5D=c",
    ]
    assert forms("/m/?x=1", ("a",)) == ["/m/?x=1&name%5B%5D=a"]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        (b"", 0),
        (b"ab 1\n", 1),
        (b'ab{x="1"} 1\nab{x="2"} 1\nab 3\n', 3),
        (b"abc 1\nxab 1\n# HELP ab ab 1\n", 0),
    ],
)
def test_count(page: bytes, found: int) -> None:
    assert count(bytearray(b"ab 1\n" + page + b"ab 1\n"), "ab", 5, 5 + len(page)) == found


class Engine:
    """Answers by path; keeps what was asked."""

    def __init__(self, bare: Callable[[], Answer], slash: Callable[[], Answer]) -> None:
        self.whole: Answer = WHOLE
        self.bare = bare
        self.slash = slash
        self.asked: list[str] = []

    def answer(self, path: str) -> Answer:
        form = path.partition("?name")[0] + ("?" if "name" in path else "")
        self.asked.append(form)
        return {"/metrics": lambda: self.whole, "/metrics?": self.bare, "/metrics/?": self.slash}[form]()


class _Reader(FakeReader):
    engine: Engine

    def _answer(self) -> None:
        told = self.engine.answer(self.path)
        self.error, self.page = (told, b"") if isinstance(told, PageError) else (None, told)
        super()._answer()


def world_of(engine: Engine, **settings: object) -> World:
    world = World(reads=LOAD, interval_s=0.05, **settings)

    def open_reader(endpoint: Endpoint, sink: Any) -> _Reader:
        reader = world.readers[endpoint.name] = _Reader(world, endpoint, sink)
        reader.engine = engine  # type: ignore[attr-defined]
        return reader  # type: ignore[return-value]

    world.scraper.start(world.time, open_reader)
    world.add("a")
    return world


def filters() -> Answer:
    return WANTED


def ignores() -> Answer:
    return WHOLE


SAMPLE = Sample(2.0, 4.0, 0.5, 16.0, 100.0)


@pytest.mark.parametrize(
    ("bare", "slash", "asked"),
    [
        (filters, ignores, ["/metrics", "/metrics?", "/metrics?"]),
        (ignores, filters, ["/metrics", "/metrics?", "/metrics/?", "/metrics/?"]),
        (lambda: REDIRECT, filters, ["/metrics", "/metrics?", "/metrics/?", "/metrics/?"]),
        (ignores, ignores, ["/metrics", "/metrics?", "/metrics/?", "/metrics"]),
        (ignores, lambda: NOT_FOUND, ["/metrics", "/metrics?", "/metrics/?", "/metrics"]),
        (lambda: b"", lambda: b"", ["/metrics", "/metrics?", "/metrics/?", "/metrics"]),
        (lambda: b"# nothing\n", lambda: CLOSED, ["/metrics", "/metrics?", "/metrics/?", "/metrics"]),
        # A family, or one of two series, that the whole page has is not in the filtered one.
        (
            lambda: WANTED.replace(b"kv_cache", b"another"),
            filters,
            ["/metrics", "/metrics?", "/metrics/?", "/metrics/?"],
        ),
        (
            lambda: WANTED.replace(b'waiting{engine="1"}', b"x"),
            ignores,
            ["/metrics", "/metrics?", "/metrics/?", "/metrics"],
        ),
    ],
)
def test_the_first_form_that_holds_everything_is_used_from_then_on(
    bare: Callable[[], Answer], slash: Callable[[], Answer], asked: list[str]
) -> None:
    engine = Engine(bare, slash)
    world = world_of(engine)
    world.time.run(5.0)
    assert engine.asked[: len(asked)] == asked
    assert set(engine.asked[len(asked) :]) == {asked[-1]}
    assert {sample for _, sample in world.records} == {SAMPLE}
    # What the trials answered was no failure of the endpoint.
    assert sum(world.scraper.counts.failures.values()) == 0
    assert world.lost == []
    (state,) = world.scraper.states()
    assert state.filtered == ("?" in asked[-1])
    filtered = len(engine.asked) - len(asked) + 1 if state.filtered else 0
    assert state.counts.saved_bytes == pytest.approx(filtered * (len(WHOLE) - len(WANTED)), abs=2 * len(WHOLE))
    assert world.scraper.counts.saved_bytes == state.counts.saved_bytes
    assert world.scraper.counts.page_bytes >= len(WHOLE)


def test_trials_take_no_longer_than_a_few_polls() -> None:
    engine = Engine(ignores, filters)
    world = world_of(engine)
    world.time.run(0.12)
    assert engine.asked[:4] == ["/metrics", "/metrics?", "/metrics/?", "/metrics/?"]
    assert len(world.records) >= 2


def test_it_can_be_switched_off() -> None:
    engine = Engine(filters, filters)
    world = world_of(engine, filtered=False)
    world.time.run(5.0)
    assert set(engine.asked) == {"/metrics"}


def test_a_small_page_is_taken_whole() -> None:
    engine = Engine(filters, filters)
    engine.whole = WANTED
    assert len(WANTED) < LEAST_BYTES
    world_of(engine).time.run(5.0)
    assert set(engine.asked) == {"/metrics"}


def test_a_filtered_page_that_loses_a_signal_is_followed_by_a_whole_one_at_once() -> None:
    answers = [WANTED]
    engine = Engine(lambda: answers[0], ignores)
    world = world_of(engine)
    world.time.run(1.0)
    assert engine.asked[-1] == "/metrics?"
    answers[0] = WANTED.replace(b"kv_cache", b"another")
    asked, recorded = len(engine.asked), len(world.records)
    world.time.run(0.06)
    assert engine.asked[asked : asked + 2] == ["/metrics?", "/metrics"]
    world.time.run(PAUSE_S / 2)
    assert {sample for _, sample in world.records[recorded:]} == {SAMPLE}
    assert set(engine.asked[asked + 2 :]) == {"/metrics"}
    # Later it is tried again, and found not to hold everything.
    world.time.run(PAUSE_S)
    assert engine.asked.count("/metrics/?") == 1
    assert engine.asked[-1] == "/metrics"
    assert {sample for _, sample in world.records[recorded:]} == {SAMPLE}


@pytest.mark.parametrize("answer", [NOT_FOUND, b"", WHOLE, PageError("protocol", "not HTTP")])
def test_a_form_that_stops_working_costs_no_failure(answer: Answer) -> None:
    answers: list[Answer] = [WANTED]
    engine = Engine(lambda: answers[0], ignores)
    world = world_of(engine)
    world.time.run(1.0)
    answers[0] = answer
    asked = len(engine.asked)
    world.time.run(1.0)
    assert engine.asked[asked : asked + 2] == ["/metrics?", "/metrics"]
    assert set(engine.asked[asked + 2 :]) == {"/metrics"}
    assert sum(world.scraper.counts.failures.values()) == 0


def test_an_endpoint_that_dies_is_a_failure_and_is_asked_for_the_whole_page_when_it_is_back() -> None:
    answers: list[Answer] = [WANTED]
    engine = Engine(lambda: answers[0], ignores)
    world = world_of(engine)
    world.time.run(1.0)
    answers[0] = CLOSED
    engine.whole = CLOSED
    asked = len(engine.asked)
    world.time.run(1.0)
    assert world.lost
    assert world.scraper.counts.failures["closed"] > 0
    assert set(engine.asked[asked + 1 :]) == {"/metrics"}
    engine.whole, answers[0] = WHOLE, WANTED
    world.time.run(PAUSE_S + 5.0)
    assert engine.asked[-1] == "/metrics?"


def test_what_a_server_dies_of_is_not_asked_again() -> None:
    engine = Engine(lambda: CLOSED, filters)
    world = world_of(engine)
    world.time.run(1.0)
    for _ in range(3):
        world.readers["a"].sink.on_idle_close()
        world.time.run(PAUSE_S + 1.0)
    assert engine.asked.count("/metrics?") == 1
    assert engine.asked[-1] == "/metrics/?"


def test_after_a_reconnect_the_page_is_whole_and_forms_are_tried_anew_at_most_every_so_often() -> None:
    engine = Engine(filters, ignores)
    world = world_of(engine)
    world.time.run(1.0)
    reader = world.readers["a"]
    assert reader.path.startswith("/metrics?name")
    reader.sink.on_reconnect()
    assert reader.path == "/metrics", "the answer that is awaited is that of the new program"
    asked = len(engine.asked)
    world.time.run(PAUSE_S - 2.0)
    assert set(engine.asked[asked:]) == {"/metrics"}
    world.time.run(3.0)
    assert engine.asked[-1] == "/metrics?"
    # The pause has passed long ago.
    world.time.run(2 * PAUSE_S)
    reader.sink.on_reconnect()
    asked = len(engine.asked)
    world.time.run(1.0)
    assert engine.asked[asked : asked + 3] == ["/metrics", "/metrics?", "/metrics?"]


def test_a_family_that_a_filter_hides_when_it_appears_later_is_found_by_the_next_whole_page() -> None:
    late = b'vllm:num_requests_waiting{engine="0"} 2.0\n'
    engine = Engine(lambda: WANTED.replace(b"num_requests_waiting", b"x"), ignores)
    engine.whole = WHOLE.replace(b"num_requests_waiting", b"x")
    world = world_of(engine)
    world.time.run(RECHECK_S / 2)
    assert engine.asked[-1] == "/metrics?"
    engine.whole += late
    world.time.run(RECHECK_S)
    assert world.records[-1][1].waiting == 2.0
    assert engine.asked[-1] == "/metrics"
    assert engine.asked.count("/metrics?") > 1000


@given(st.data())
def test_no_signal_is_lost_for_longer_than_to_the_next_whole_page(data: st.DataObject) -> None:
    """Whatever the forms answer, a page that is used has all that the last whole page had."""
    families = [line.partition(b"{")[0] for line in WANTED.splitlines()]
    filters_out = st.lists(st.sampled_from(families), max_size=2)
    answers = st.one_of(filters_out, st.sampled_from([NOT_FOUND, CLOSED, b"", WHOLE, b"\xff" * 3000]))

    def draw() -> Answer:
        told = data.draw(answers)
        if not isinstance(told, list):
            return told
        return b"".join(line for line in WANTED.splitlines(True) if line.partition(b"{")[0] not in told)

    engine = Engine(draw, draw)
    world = world_of(engine)
    for _ in range(4):
        world.time.run(0.3)
        if data.draw(st.booleans()):
            world.readers["a"].sink.on_reconnect()
    assert world.records
    assert {sample for _, sample in world.records} == {SAMPLE}


def test_names_that_are_not_known_yet_filter_nothing() -> None:
    filtering = Filtering("/metrics", tuple)
    page = bytearray(WHOLE)
    assert filtering.fits(page, 0, len(page))
    filtering.learn(page, 0, len(page), 1.0)
    assert filtering.path == "/metrics"
    assert not filtering.active


# --- prometheus_client's own applications


def registry(kv: str = "vllm:kv_cache_usage_perc") -> CollectorRegistry:
    """vLLM's families and many others, as objects of prometheus_client."""
    made = CollectorRegistry()
    for name, value in (("vllm:num_requests_running", 3), ("vllm:num_requests_waiting", 2), (kv, 0.25)):
        Gauge(name, "A load.", ["engine", "model_name"], registry=made).labels("0", "m").set(value)
    info = {"block_size": "16", "num_gpu_blocks": "100"}
    Gauge("vllm:cache_config_info", "The cache.", list(info), registry=made).labels(**info).set(1)
    for number in range(20):
        Histogram(f"vllm:phase_{number}_seconds", "A phase.", registry=made).observe(number)
        Counter(f"vllm:tokens_{number}", "Tokens.", registry=made).inc()
    return made


async def _asgi(app: Any, writer: asyncio.StreamWriter, target: str) -> None:
    """One answer of an ASGI application over HTTP/1.1."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"accept-encoding", b"identity")],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            head = b"".join(b"%s: %s\r\n" % pair for pair in event["headers"])
            writer.write(b"HTTP/1.1 %d X\r\n%s" % (event["status"], head))
        else:
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(event["body"]), event["body"]))

    await app(scope, receive, send)


def vllm_like(app: Any, whole_at_bare: bool, targets: list[str]) -> Callable[..., Awaitable[None]]:
    """A server whose `/metrics/` is `app`, and whose `/metrics` ignores the query when `whole_at_bare`."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].decode()
            targets.append(target)
            bare = target.startswith("/metrics?") and whole_at_bare
            await _asgi(app, writer, "/metrics" if bare else target)

    return script


async def scraped(port: int, until: Callable[[], bool]) -> tuple[Scraper, list[Sample]]:
    """Scrape the server at `port` until the condition holds."""
    samples: list[Sample] = []
    enough = asyncio.Event()

    def record(endpoint: Endpoint, sample: Sample) -> bool:
        samples.append(sample)
        if until():
            enough.set()
        return True

    scraper = Scraper(record, SCRAPED, ScrapeSettings(interval_s=0.005), random.Random(1))
    scraper.on_endpoint_added(Endpoint("default", "a", "127.0.0.1", port, generation=1))
    scraper.start()
    try:
        await asyncio.wait_for(enough.wait(), 10)
    finally:
        scraper.stop()
        await asyncio.sleep(0.01)
    return scraper, samples


@pytest.mark.parametrize("kv", ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"])
@pytest.mark.parametrize("whole_at_bare", [False, True])
async def test_prometheus_clients_asgi_application(serve: Serve, whole_at_bare: bool, kv: str) -> None:
    targets: list[str] = []
    app = make_asgi_app(registry(kv))
    form = "/metrics/?name" if whole_at_bare else "/metrics?name"
    async with serve(vllm_like(app, whole_at_bare, targets)) as server:
        scraper, samples = await scraped(server.port, lambda: sum(t.startswith(form) for t in targets) > 3)
        assert {(s.waiting, s.running, s.kv_utilization, s.block_size_tokens, s.num_blocks) for s in samples} == {
            (2.0, 3.0, 0.25, 16.0, 100.0)
        }
        assert targets[0] == "/metrics"
        assert targets.count("/metrics") == 1
        assert scraper.counts.saved_bytes > 10_000
        assert server.connections == 1
        (state,) = scraper.states()
        assert state.filtered


async def test_prometheus_clients_wsgi_application() -> None:
    targets: list[str] = []

    class Handler(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            targets.append(self.path)

    server = make_server("127.0.0.1", 0, make_wsgi_app(registry()), handler_class=Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        scraper, samples = await scraped(
            server.server_port, lambda: sum(target.startswith("/metrics?name") for target in targets) > 3
        )
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        thread.join()
    # It closes every connection after its answer, which says nothing about another program being there.
    assert targets.count("/metrics") == 1
    assert len({(sample.waiting, sample.running, sample.kv_utilization) for sample in samples}) == 1
    assert sum(scraper.counts.failures.values()) == 0
