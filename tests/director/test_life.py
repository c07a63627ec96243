# SPDX-License-Identifier: Apache-2.0
"""One request's life with the real pool, scheduler, parser and recorder; only Envoy is played."""

from __future__ import annotations

import asyncio
import gzip
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from epp.contract.decision import Decision
from epp.contract.discovery import EndpointSpec
from epp.contract.endpoints import Endpoints, FloatArray
from epp.contract.plugins import PluginContext
from epp.contract.prefix import PREFIX_MATCH, PrefixMatch
from epp.contract.requests import Cause, Completion, InferenceRequest
from epp.contract.signals import Sample
from epp.director import Director, Life, Plan, Settings
from epp.director.headers import WORKER_HEADERS
from epp.director.life import INLINE_DECODE_BYTES
from epp.director.unwatched import Unwatched
from epp.endpoints.pool import Pool
from epp.extproc import BodyMode, End, HttpRequest, Immediate, Outcome, Route
from epp.observe.log.logs import open_log
from epp.observe.recorder import Recorder
from epp.plugins.handlers.single_profile import SingleProfileHandler
from epp.plugins.pickers.max_score import MaxScorePicker
from epp.requests.parser import Parser
from epp.scheduling.guard import Guarded
from epp.scheduling.profile import Profile
from epp.scheduling.scheduler import Scheduler
from epp.testing import FakeClock

CHAT = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hello there"}]})
DESTINATION = "x-gateway-destination-endpoint"


class Lines:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes | bytearray) -> None:
        self.data += bytes(data)

    def parsed(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.data.splitlines()]


class LeastBusy:
    def score(self, request: InferenceRequest, endpoints: Endpoints) -> FloatArray:
        return 1.0 / (1.0 + endpoints.waiting)


class Bench:
    """Everything around a director, with hooks that write down what they are told."""

    def __init__(
        self,
        endpoints: int = 3,
        producers: Sequence[Any] = (),
        settings: Settings | None = None,
        specs: Sequence[EndpointSpec] | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.pool = Pool(self.clock)
        if specs is None:
            specs = [EndpointSpec("default", f"pod-{n}", f"10.0.0.{n}", 8000) for n in range(1, endpoints + 1)]
        self.pool.apply(specs)
        self.lines = Lines()
        self.log = open_log(self.lines, delay_s=60.0)
        self.recorder = Recorder(
            self.log, lambda: self.pool.columns, self.clock, pool_name="p", staleness_s=2.0, version="0"
        )
        self.routed: list[Decision] = []
        self.done: list[Completion] = []
        context = PluginContext("x", self.clock, random.Random(1))
        self.picker: Any = MaxScorePicker(MaxScorePicker.Parameters(), context)
        profile = Profile(
            "default", [], [(self._guarded("least-busy", LeastBusy()), 1.0)], self._guarded("picker", self.picker)
        )
        self.plan = Plan(
            scheduler=Scheduler([profile], self._guarded("handler", SingleProfileHandler()), self.clock),
            parser=Parser(),
            producers=[self._guarded(f"producer-{i}", p) for i, p in enumerate(producers)],
            routed_hooks=[self._guarded("hook", self)],
            done_hooks=[self._guarded("hook", self)],
        )
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.unwatched = Unwatched(self.pool, self.recorder, self.clock, lambda s, tell: self.timers.append((s, tell)))
        self.director = Director(
            self.pool,
            self.plan,
            self.recorder,
            self.unwatched,
            clock=self.clock,
            new_request_id=lambda: "made-id",
            settings=settings or Settings(),
        )

    def _guarded(self, name: str, plugin: Any) -> Guarded[Any]:
        return Guarded(name, plugin, self.clock)

    def on_routed(self, request: InferenceRequest, decision: Decision) -> None:
        self.routed.append(decision)

    def on_done(self, request: InferenceRequest, decision: Decision, completion: Completion) -> None:
        self.done.append(completion)

    def ask(self, body: bytes | None = CHAT, **more: Any) -> tuple[Life, Any]:
        life = self.director.open()
        return life, life.request(http(body, **more))

    def in_flight(self) -> list[float]:
        return self.pool.candidates().in_flight_requests.tolist()

    def told(self) -> list[dict[str, Any]]:
        self.log.flush()
        self.log.close()
        return self.lines.parsed()


def http(
    body: bytes | None = CHAT,
    headers: dict[str, str] | None = None,
    path: str = "/v1/chat/completions",
    mode: BodyMode = BodyMode.FULL_DUPLEX_STREAMED,
    complete: bool = True,
    metadata: dict[str, Any] | None = None,
) -> HttpRequest:
    base = {":path": path, ":method": "POST", "x-request-id": "id-1"}
    return HttpRequest({**base, **(headers or {})}, body, complete, mode, metadata or {})


def test_a_request_is_routed_to_the_best_endpoint_and_charged() -> None:
    bench = Bench()
    worst, best, _ = bench.pool.candidates()
    bench.pool.record(worst, Sample(waiting=9))
    bench.pool.record(bench.pool.candidates()[2], Sample(waiting=9))
    life, outcome = bench.ask()
    assert outcome == Route(
        reused=True,
        set_headers=[(DESTINATION, best.address.encode())],
        remove_headers=tuple(sorted(WORKER_HEADERS)),
        metadata={"envoy.lb": {DESTINATION: best.address}},
    )
    assert bench.in_flight() == [0, 1, 0]
    assert bench.routed[0].target is best
    life.closed(End.GONE)
    assert bench.in_flight() == [0, 0, 0]


def test_every_request_is_told_before_it_is_read() -> None:
    bench = Bench()
    told: list[int] = []
    bench.director.arrived = lambda: told.append(len(bench.routed))
    for _ in range(3):
        bench.ask()
    assert told == [0, 1, 2]


def test_a_burst_spreads_because_every_choice_is_charged_at_once() -> None:
    bench = Bench(endpoints=4)
    for _ in range(8):
        bench.ask()
    assert bench.in_flight() == [2, 2, 2, 2]


def test_the_whole_response_is_followed_and_released_once() -> None:
    bench = Bench(endpoints=1)
    life, _ = bench.ask()
    bench.clock.advance(1.0)
    headers = {":status": "200", "content-type": "text/event-stream"}
    assert list(life.response_headers(headers, False)) == [("x-went-into-resp-headers", b"true")]
    assert bench.pool.candidates().in_flight_tokens[0] > 0
    life.response_body(b"data: {}\n\n", False)
    assert bench.pool.candidates().in_flight_tokens[0] == 0, "the prompt is computed with the first byte"
    bench.clock.advance(1.0)
    life.response_body(b'data: {"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n', False)
    life.response_body(b"", True)
    life.closed(End.COMPLETE)
    [completion] = bench.done
    assert (completion.cause, completion.reached_endpoint, completion.status) == (Cause.COMPLETE, True, 200)
    assert (completion.first_byte_s, completion.duration_s) == (1.0, 2.0)
    assert completion.usage is not None
    assert completion.usage.total_tokens == 7
    assert bench.in_flight() == [0]


@pytest.mark.parametrize(("end", "cause"), [
    (End.COMPLETE, Cause.COMPLETE), (End.GONE, Cause.CLIENT_GONE), (End.FAILED, Cause.ERROR),
])  # fmt: skip
def test_every_way_out_releases_and_says_why(end: End, cause: Cause) -> None:
    bench = Bench()
    life, _ = bench.ask()
    life.closed(end)
    assert [c.cause for c in bench.done] == [cause]
    assert not bench.done[0].reached_endpoint
    assert sum(bench.in_flight()) == 0


def test_the_log_line_says_where_and_why() -> None:
    bench = Bench(specs=[EndpointSpec("ns", "pod-a", "10.0.0.1", 8000, {"b": "2", "a": "1"})])
    bench.ask()
    [line] = [x for x in bench.told() if x["msg"] == "Request handled"]
    assert line["x-request-id"] == "id-1"
    assert line["model"] == line["resolvedTargetModel"] == line["targetModel"] == "m"
    assert line["criticality"] == "Critical"
    assert line["endpoint"] == "{NamespacedName:ns/pod-a Address:10.0.0.1 Labels:map[a:1 b:2]}"
    assert "pod-a" in line["why"]
    assert "decision" not in line, "that is for -v 3"


def test_an_endpoint_that_envoy_could_not_reach_is_avoided_for_a_moment() -> None:
    bench = Bench(endpoints=2)
    life, _ = bench.ask()
    life.response_headers({":status": "503"}, True)
    avoided = bench.routed[0].target
    assert avoided.name not in {e.name for e in bench.pool.candidates()}
    bench.clock.advance(1.0)
    assert len(bench.pool.candidates()) == 2


def test_an_endpoint_that_says_503_itself_is_not_avoided() -> None:
    bench = Bench(endpoints=2)
    life, _ = bench.ask()
    life.response_headers({":status": "503", "x-envoy-upstream-service-time": "3"}, True)
    assert len(bench.pool.candidates()) == 2


def test_a_get_is_scheduled_at_its_headers() -> None:
    bench = Bench(endpoints=2)
    bench.pool.record(bench.pool.candidates()[0], Sample(waiting=5))
    _, outcome = bench.ask(None, path="/v1/models")
    assert dict(outcome.set_headers)[DESTINATION] == b"10.0.0.2:8000"


def test_a_missing_request_id_is_made_and_sent_on() -> None:
    bench = Bench()
    _, outcome = bench.ask(headers={"x-request-id": ""})
    assert ("x-request-id", b"made-id") in outcome.set_headers


def test_ipv6_is_bracketed() -> None:
    bench = Bench(specs=[EndpointSpec("ns", "six", "fd00::1", 8000)])
    _, outcome = bench.ask()
    assert dict(outcome.set_headers)[DESTINATION] == b"[fd00::1]:8000"


def test_addresses_that_a_worker_would_follow_are_removed() -> None:
    _, outcome = Bench().ask(headers={"x-prefiller-host-port": "169.254.169.254:80"})
    assert set(outcome.remove_headers) == WORKER_HEADERS


def test_the_go_echo_sends_everything_but_system_headers() -> None:
    bench = Bench(settings=Settings(echo_headers=True))
    life, outcome = bench.ask(headers={"authorization": "secret", DESTINATION: "1.2.3.4:5", "content-length": "9"})
    sent = dict(outcome.set_headers)
    assert sent["authorization"] == b"secret"
    assert sent[":path"] == b"/v1/chat/completions"
    assert "content-length" not in sent
    assert sent[DESTINATION].startswith(b"10.0.0.")
    assert ("set-cookie", b"a=1") in life.response_headers({":status": "200", "set-cookie": "a=1"}, True)


def test_names_of_header_and_namespace_can_be_those_of_the_seed_era() -> None:
    settings = Settings(destination_header="x-there", metadata_namespace="")
    _, outcome = Bench(endpoints=1, settings=settings).ask()
    assert dict(outcome.set_headers) == {"x-there": b"10.0.0.1:8000"}
    assert outcome.metadata == {"x-there": "10.0.0.1:8000"}


@pytest.mark.parametrize(
    ("hint", "chosen"),
    [(["10.0.0.2:8000"], b"10.0.0.2:8000"), (["10.0.0.3"], b"10.0.0.3:8000"), ("10.0.0.2, 10.9.9.9", b"10.0.0.2:8000")],
)
def test_the_subset_hint_limits_the_choice(hint: Any, chosen: bytes) -> None:
    metadata = {"envoy.lb.subset_hint": {f"{DESTINATION}-subset": hint}}
    for _ in range(5):
        _, outcome = Bench().ask(metadata=metadata)
        assert dict(outcome.set_headers)[DESTINATION] == chosen


@pytest.mark.parametrize("hint", [[], ["10.9.9.9:8000"], "", [3], 7.0, True, {}])
def test_an_empty_subset_is_503_unless_subsets_are_switched_off(hint: Any) -> None:
    metadata = {"envoy.lb.subset_hint": {f"{DESTINATION}-subset": hint}}
    _, outcome = Bench().ask(metadata=metadata)
    refused(outcome, 503, "failed to find endpoint candidates", "rejected-no-endpoints")
    _, outcome = Bench(settings=Settings(subset_filter=False)).ask(metadata=metadata)
    assert isinstance(outcome, Route)


def refused(outcome: Any, status: int, says: str, reason: str | None = None) -> None:
    assert isinstance(outcome, Immediate)
    assert outcome.status == status
    text = outcome.body.decode()
    assert text.startswith("inference error: ")
    assert says in text
    assert "\n" not in text
    assert dict(outcome.headers) == ({"x-llm-d-request-dropped-reason": reason.encode()} if reason else {})


def test_no_endpoint_at_all_is_503_with_the_reason() -> None:
    _, outcome = Bench(endpoints=0).ask()
    refused(outcome, 503, "ServiceUnavailable - failed to find endpoint candidates", "rejected-no-endpoints")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"not json", 400, "BadRequest - error unmarshaling request bodyMap"),
        (b'{"messages":[{"role":"user","content":"x"}]}', 400, "model not found in request body"),
        (b'{"model":"m"}', 400, "must have valid messages field"),
        (b"x" * 1001, 413, "BodyTooLarge - the body is longer than 1000 bytes; raise --max-body-size"),
    ],
)
def test_bad_bodies_get_one_clear_line(body: bytes, status: int, says: str) -> None:
    bench = Bench(settings=Settings(body_limit_bytes=1000))
    _, outcome = bench.ask(body)
    refused(outcome, status, says)
    assert sum(bench.in_flight()) == 0


def test_a_body_cut_at_the_limit_is_413_but_one_cut_by_envoy_is_routed() -> None:
    _, outcome = Bench().ask(CHAT[:20], complete=False)
    refused(outcome, 413, "raise --max-body-size")
    _, outcome = Bench().ask(CHAT[:20], complete=False, mode=BodyMode.BUFFERED_PARTIAL)
    assert isinstance(outcome, Route)


def test_a_gzip_body_is_read_and_forwarded_as_it_came() -> None:
    bench = Bench()
    _, outcome = bench.ask(gzip.compress(CHAT), headers={"content-encoding": "gzip"})
    assert isinstance(outcome, Route)
    assert outcome.body is None
    assert bench.routed[0].model == "m"


async def test_a_large_gzip_body_is_inflated_off_the_loop() -> None:
    bench = Bench()
    noise = random.Random(3).randbytes(2 * INLINE_DECODE_BYTES).hex()
    packed = gzip.compress(orjson.dumps({"model": "big", "prompt": noise}))
    assert len(packed) > INLINE_DECODE_BYTES
    _, outcome = bench.ask(packed, headers={"content-encoding": "gzip"}, path="/v1/completions")
    assert isinstance(outcome, Awaitable)
    assert isinstance(await outcome, Route)
    assert bench.routed[0].model == "big"


@pytest.mark.parametrize("status", ["", "²²²", "-20", "2000", "9" * 5000])
def test_a_status_that_is_none_is_unknown(status: str) -> None:
    bench = Bench()
    life, _ = bench.ask()
    life.response_headers({":status": status}, True)
    life.closed(End.COMPLETE)
    assert bench.done[0].status is None


@pytest.mark.parametrize(("encoding", "status"), [("br", 415), ("gzip", 400)])
def test_encodings_that_cannot_be_read(encoding: str, status: int) -> None:
    _, outcome = Bench().ask(b"\x00\x01", headers={"content-encoding": encoding})
    refused(outcome, status, encoding)


def test_a_fault_of_ours_is_500_and_no_traceback() -> None:
    bench = Bench()
    bench.director.new_request_id = _raise
    _, outcome = bench.ask(headers={"x-request-id": ""})
    refused(outcome, 500, "Internal - the endpoint picker failed on this request")


async def test_a_fault_of_ours_after_a_wait_is_500_as_well() -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    bench = Bench(producers=[Publishes(0, nothing)])
    bench.recorder.scheduled = _refuse  # type: ignore[method-assign]
    life, outcome = bench.ask()
    refused(await outcome, 500, "Internal - the endpoint picker failed on this request")
    life.closed(End.COMPLETE)
    assert sum(bench.in_flight()) == 0
    assert page(bench)["llm_d_epp_request_running|m|"] == 0


def _raise() -> str:
    raise RuntimeError("broken")


class Publishes:
    """A producer that publishes a prefix match, at once or after a wait."""

    def __init__(self, matched: int, wait: Callable[[], Awaitable[None]] | None = None) -> None:
        self.matched = matched
        self.wait = wait

    def produce(self, request: InferenceRequest, endpoints: Endpoints) -> Awaitable[None] | None:
        match = PrefixMatch(np.full(endpoints.columns.capacity, self.matched), 10, 1.0)
        request.publish(PREFIX_MATCH, match)
        return self.wait() if self.wait else None


def test_only_uncached_tokens_are_charged() -> None:
    bench = Bench(endpoints=1, producers=[Publishes(2)])
    bench.ask()
    tokens = -(-len("userhello there") // 4)
    assert bench.pool.candidates().in_flight_tokens.tolist() == [tokens - 2]


async def test_a_producer_that_waits_gets_the_candidates_of_afterwards() -> None:
    bench = Bench(endpoints=1)

    async def meanwhile() -> None:
        bench.pool.apply([EndpointSpec("default", "new", "10.0.0.9", 8000)])

    bench.director.plan = Plan(bench.plan.scheduler, Parser(), [Guarded("slow", Publishes(0, meanwhile), bench.clock)])
    _, outcome = bench.ask()
    assert dict((await outcome).set_headers)[DESTINATION] == b"10.0.0.9:8000"


async def test_a_producer_that_fails_or_is_late_costs_the_request_nothing() -> None:
    async def late() -> None:
        await asyncio.Event().wait()

    class Broken:
        def produce(self, request: InferenceRequest, endpoints: Endpoints) -> None:
            raise RuntimeError("broken")

    bench = Bench(producers=[Broken(), Publishes(0, late)])
    _, outcome = bench.ask()
    assert isinstance(await outcome, Route)
    assert [g.errors for g in bench.plan.producers] == [1, 1]


async def test_endpoints_that_vanish_while_a_producer_waits_are_503() -> None:
    bench = Bench(endpoints=1)

    async def vanish() -> None:
        bench.pool.apply([])

    bench.director.plan = Plan(bench.plan.scheduler, Parser(), [Guarded("p", Publishes(0, vanish), bench.clock)])
    _, outcome = bench.ask()
    refused(await outcome, 503, "the pool has no endpoint", "rejected-no-endpoints")


def test_a_hook_that_raises_costs_nothing() -> None:
    bench = Bench()
    bench.on_routed = _refuse  # type: ignore[method-assign]
    bench.on_done = _refuse  # type: ignore[method-assign]
    life, outcome = bench.ask()
    assert isinstance(outcome, Route)
    life.closed(End.COMPLETE)
    assert sum(bench.in_flight()) == 0


def _refuse(*_: object) -> None:
    raise RuntimeError("broken hook")


def page(bench: Bench) -> dict[str, float]:
    return {
        f"{s.name}|{s.labels.get('model_name', '')}|{s.labels.get('error_code', '')}": s.value
        for metric in bench.recorder.registry.collect()
        for s in metric.samples
    }


def test_requests_are_counted_under_every_generation_of_names() -> None:
    bench = Bench()
    life, _ = bench.ask()
    bench.ask(b"broken")
    bench.ask(None, path="/v1/models")
    counted = page(bench)
    for name in ("llm_d_epp_request_total", "inference_objective_request_total", "inference_model_request_total"):
        assert counted[f"{name}|m|"] == 1
    assert counted["llm_d_epp_request_running|m|"] == 1
    life.response_headers({":status": "503"}, True)
    life.closed(End.COMPLETE)
    counted = page(bench)
    assert counted["llm_d_epp_request_running|m|"] == 0
    assert counted["llm_d_epp_request_error_total|m|ModelServerError"] == 1


def test_a_refused_request_is_no_longer_running() -> None:
    bench = Bench(endpoints=0)
    bench.ask()
    counted = page(bench)
    assert counted["llm_d_epp_request_running|m|"] == 0
    assert counted["llm_d_epp_request_error_total|m|ServiceUnavailable"] == 1


async def test_a_client_that_goes_while_a_producer_waits_is_no_longer_running() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    bench = Bench(producers=[Publishes(0, forever)])
    life, outcome = bench.ask()
    assert page(bench)["llm_d_epp_request_running|m|"] == 1
    task = asyncio.ensure_future(outcome)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    life.closed(End.GONE)
    assert page(bench)["llm_d_epp_request_running|m|"] == 0
    assert bench.done == []


def test_a_request_keeps_the_plan_it_started_with() -> None:
    bench = Bench()
    life: Life = bench.director.open()
    old = bench.plan.done_hooks
    bench.director.plan = Plan(bench.plan.scheduler, Parser())
    outcome: Outcome | Awaitable[Outcome] = life.request(http())
    assert isinstance(outcome, Route)
    life.closed(End.COMPLETE)
    assert old
    assert len(bench.done) == 1


def test_a_crowd_of_bodies_is_refused_as_saturation() -> None:
    bench = Bench()
    life = bench.director.open()
    http = HttpRequest({":path": "/v1/completions"}, b"{", False, BodyMode.FULL_DUPLEX_STREAMED, {}, crowded=True)
    outcome = life.request(http)
    assert isinstance(outcome, Immediate)
    assert (outcome.status, outcome.headers[0][1]) == (503, b"rejected-saturated")


class Idle:
    """A producer that publishes nothing."""

    def produce(self, request: InferenceRequest, endpoints: Endpoints) -> None:
        pass


def test_that_bodies_are_not_shown_is_said_once_for_each_mode(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(producers=[Idle()])
    for mode in (BodyMode.STREAMED, BodyMode.STREAMED, BodyMode.NONE, BodyMode.FULL_DUPLEX_STREAMED):
        bench.ask(None, mode=mode)
    bench.ask(None, mode=BodyMode.STREAMED, headers={":method": "GET"})
    told = [record.getMessage() for record in caplog.records]
    assert [text.split("(")[1].split(")")[0] for text in told] == [
        "request_body_mode STREAMED",
        "request_body_mode NONE",
    ]
    assert "producer-0 has nothing to go by" in told[0]


def test_where_nobody_reads_prompts_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Bench().ask(None, mode=BodyMode.STREAMED)
    assert caplog.records == []
