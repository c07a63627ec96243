# SPDX-License-Identifier: Apache-2.0
"""What objects about models, and headers, do to a request: its target, its body, its priority, whether it is let in."""

from __future__ import annotations

import dataclasses
import gzip
import logging
import random
import re
from collections import Counter
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from epp.contract.endpoints import Endpoints
from epp.contract.models import Models, Target
from epp.director.target import draw, priority_of, target_of
from epp.extproc import BodyMode, End, Immediate, Route, Watch
from epp.observe.metrics.page import page
from epp.scheduling.guard import Guarded
from tests.director.test_life import CHAT, DESTINATION, Bench, http

NEW, OLD = "x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"
OBJECTIVE, OLD_OBJECTIVE = "x-llm-d-inference-objective", "x-gateway-inference-objective"
TO_LARGE = Models(rewrites={"m": (Target("large"),)})
JSON = {":status": "200", "content-type": "application/json"}
EVENTS = {":status": "200", "content-type": "text/event-stream; charset=utf-8"}


@pytest.mark.parametrize(
    ("models", "headers", "target"),
    [
        (Models(), {}, "m"),
        (Models(), {NEW: "new"}, "new"),
        (Models(), {OLD: "old"}, "old"),
        (Models(), {OLD: "old", NEW: "new"}, "new"),
        (Models(), {NEW: "", OLD: "old"}, "old"),
        (TO_LARGE, {}, "large"),
        (TO_LARGE, {NEW: "new", OLD: "old"}, "large"),
        (Models(rewrites={"other": (Target("large"),)}), {}, "m"),
        (Models(rewrites={"other": (Target("large"),)}), {NEW: "new"}, "new"),
        (Models(otherwise=(Target("any"),)), {NEW: "new"}, "any"),
        (Models(rewrites={"m": (Target("large"),)}, otherwise=(Target("any"),)), {}, "large"),
        (Models(rewrites={"new": (Target("large"),)}), {NEW: "new"}, "new"),
    ],
)  # fmt: skip
def test_a_rule_goes_before_the_header_and_the_header_before_the_body(
    models: Models, headers: dict[str, str], target: str
) -> None:
    assert target_of(models, headers, "m", random.Random(1)) == target


@pytest.mark.parametrize(
    ("targets", "shares"),
    [
        ((Target("a", 9), Target("b", 1)), {"a": 0.9, "b": 0.1}),
        ((Target("a"), Target("b")), {"a": 0.5, "b": 0.5}),
        ((Target("a"), Target("b", 1), Target("c", 3)), {"b": 0.25, "c": 0.75}),
        ((Target("a", 0), Target("b", 0)), {"a": 0.5, "b": 0.5}),
        ((Target("a", 0), Target("b", 5)), {"b": 1.0}),
        ((Target("a", 0), Target("b")), {"a": 1.0}),
        ((Target("a"),), {"a": 1.0}),
    ],
)
def test_targets_are_drawn_by_weight(targets: tuple[Target, ...], shares: dict[str, float]) -> None:
    rng = random.Random(7)
    found = Counter(draw(targets, rng) for _ in range(4000))
    assert found.keys() == shares.keys()
    for model, share in shares.items():
        assert found[model] / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("headers", "priority"),
    [
        ({}, -1),
        ({OBJECTIVE: "urgent"}, 10),
        ({OLD_OBJECTIVE: "urgent"}, 10),
        ({OLD_OBJECTIVE: "urgent", OBJECTIVE: "batch"}, -5),
        ({OBJECTIVE: "unknown"}, -1),
        ({OBJECTIVE: "plain"}, 0),
    ],
)
def test_an_objective_goes_before_the_models_priority(headers: dict[str, str], priority: int) -> None:
    models = Models(objectives={"urgent": 10, "batch": -5, "plain": 0}, priorities={"m": -1})
    assert priority_of(models, headers, "m") == priority
    assert priority_of(models, headers, "unlisted") == (0 if priority == -1 else priority)
    assert priority_of(Models(), headers, "m") == 0


def asked(bench: Bench, body: bytes | None = CHAT, **more: Any) -> tuple[Any, Any]:
    life, outcome = bench.ask(body, **more)
    assert isinstance(outcome, Route)
    return life, outcome


def test_the_model_is_exchanged_in_the_bytes_and_told_everywhere() -> None:
    bench = Bench()
    bench.director.models = Models(rewrites={"m": (Target("large"),)}, priorities={"m": 3})
    body = b'{ "messages":[{"role":"user","content":"\\u0068i"}],"model" :"m" , "model_x": 1}'
    life, route = asked(bench, body)
    assert route.body == body.replace(b'"m"', b'"large"')
    assert dict(route.set_headers)[DESTINATION].startswith(b"10.0.0.")
    assert route.metadata == {"envoy.lb": {DESTINATION: dict(route.set_headers)[DESTINATION].decode()}}
    [decision] = bench.routed
    assert (decision.model, decision.target_model) == ("m", "large")
    life.closed(End.COMPLETE)
    text = page(bench.recorder.registry)[0].decode()
    [line] = [line for line in text.splitlines() if line.startswith("llm_d_epp_request_total{")]
    labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
    assert (labels["model_name"], labels["target_model_name"], labels["priority"]) == ("m", "large", "3")
    [record] = bench.recorder.decisions.last(1)
    assert (record.decision.model, record.decision.target_model, record.priority) == ("m", "large", 3)


def test_without_a_rule_the_shared_answer_is_given() -> None:
    bench = Bench()
    bench.director.models = Models(rewrites={"n": (Target("large"),)}, objectives={"o": 1})
    (_, one), (_, two) = asked(bench), asked(bench, headers={NEW: "m"})
    assert one.reused
    assert two.reused
    assert one.body is two.body is None


def test_the_body_is_let_go_of_once_it_is_sent() -> None:
    bench = Bench()
    bench.director.models = TO_LARGE
    life, _ = asked(bench)
    assert life._new_body is None


def test_models_may_be_replaced_while_a_request_is_on_its_way() -> None:
    bench = Bench()
    bench.director.models = TO_LARGE
    life, _ = asked(bench)
    bench.director.models = Models()
    life.response_headers(JSON, False)
    assert life.response_body(b'{"model":"large"}', True) == b'{"model":"m"}'
    assert asked(bench)[1].body is None


KEPT: list[tuple[dict[str, Any], str]] = [
    ({"body": gzip.compress(CHAT), "headers": {"content-encoding": "gzip"}}, "content-encoding"),
    ({"body": b"\x00\x01", "path": "/other"}, "no parser reads the body"),
    ({"body": None, "mode": BodyMode.STREAMED}, "request_body_mode STREAMED"),
    ({"body": CHAT[:-5], "mode": BodyMode.BUFFERED_PARTIAL, "complete": False}, "Envoy cut it"),
    ({"body": CHAT + b" ", "mode": BodyMode.BUFFERED_PARTIAL, "complete": False}, "Envoy cut the body"),
]


@pytest.mark.parametrize(("shown", "why"), KEPT)
def test_a_body_that_cannot_be_changed_keeps_its_model_and_that_is_said_once(
    shown: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.director.models = Models(otherwise=(Target("large"),))
    with caplog.at_level(logging.WARNING, "epp.director"):
        for _ in range(3):
            _, route = asked(bench, **shown)
            assert route.body is None
    assert all(decision.target_model == decision.model for decision in bench.routed)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert why in lines[0]


def test_what_has_no_body_has_nothing_to_change(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.director.models = Models(otherwise=(Target("large"),))
    for mode in BodyMode:
        _, route = asked(bench, None, headers={":method": "GET"}, mode=mode)
        assert route.body is None
    assert caplog.records == []


def test_a_header_that_is_no_text_is_refused() -> None:
    bench = Bench()
    _, outcome = bench.ask(headers={NEW: "a\udcff"})
    assert isinstance(outcome, Immediate)
    assert outcome.status == 400
    assert outcome.body.startswith(b"inference error: BadRequest - x-llm-d-model-name-rewrite holds bytes")


@pytest.mark.parametrize("headers", [JSON, EVENTS])
def test_the_answer_names_the_clients_model_wherever_it_is_cut(headers: dict[str, str]) -> None:
    bench = Bench()
    bench.director.models = TO_LARGE
    life, _ = asked(bench)
    life.response_headers(headers, False)
    answer = b'{"id": 1, "model": "large", "usage": {"prompt_tokens": 5, "completion_tokens": 2}}'
    out = b"".join([life.response_body(bytes([byte]), False) for byte in answer]) + life.response_body(b"", True)
    assert out == answer.replace(b"large", b"m")
    life.closed(End.COMPLETE)
    [completion] = bench.done
    assert completion.response_bytes == len(answer)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 2


def test_an_answer_that_is_no_readable_text_passes_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.director.models = TO_LARGE
    for more in ({"content-type": "audio/wav"}, {"content-encoding": "gzip"}):
        life, _ = asked(bench)
        life.response_headers({**JSON, **more}, False)
        assert life.response_body(b'"model":"large"', True) is None
    assert len([r for r in caplog.records if "content-encoding" in r.getMessage()]) == 1


def test_an_answer_to_a_request_that_was_not_rewritten_is_not_touched() -> None:
    bench = Bench()
    life, _ = asked(bench)
    life.response_headers(JSON, False)
    assert life.response_body(b'{"model":"m"}', True) is None


def test_a_rewritten_request_is_followed_where_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.director.plan = dataclasses.replace(bench.plan, watch=Watch.NOTHING)
    bench.director.models = TO_LARGE
    assert asked(bench)[1].watch is Watch.BODY
    other = orjson.dumps({"model": "n", "messages": [{"role": "user", "content": "hello"}]})
    watches = {asked(bench, other)[1].watch for _ in range(50)}
    assert Watch.NOTHING in watches
    # Where no response body is shown there is nothing to follow.
    blind = replace(http(CHAT), response_mode=BodyMode.NONE)
    route = bench.director.open().request(blind)
    assert isinstance(route, Route)
    assert "response_body_mode NONE" in caplog.text


class Gauge:
    """A detector that says what it is told to."""

    def __init__(self, value: float | Exception) -> None:
        self.value = value
        self.asked = 0

    def saturation(self, endpoints: Endpoints) -> float:
        self.asked += 1
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def gauged(value: float | Exception, priority: int = -1) -> tuple[Bench, Gauge]:
    bench, gauge = Bench(), Gauge(value)
    bench.director.plan = dataclasses.replace(bench.plan, detector=Guarded("gauge", gauge, bench.clock))
    bench.director.models = Models(objectives={"o": priority})
    return bench, gauge


def test_the_sheddable_are_refused_while_the_pool_is_saturated() -> None:
    bench, gauge = gauged(1.0)
    _, outcome = bench.ask(headers={OBJECTIVE: "o"})
    assert isinstance(outcome, Immediate)
    assert outcome.status == 429
    assert outcome.body == b"inference error: ResourceExhausted - system saturated, sheddable request dropped"
    assert outcome.headers == []
    assert bench.in_flight() == [0.0, 0.0, 0.0]
    assert gauge.asked == 1


@pytest.mark.parametrize("priority", [0, 1])
def test_everybody_else_passes_without_a_look(priority: int) -> None:
    bench, gauge = gauged(2.0, priority)
    asked(bench, headers={OBJECTIVE: "o"})
    asked(bench)
    assert gauge.asked == 0


@pytest.mark.parametrize("value", [0.0, 0.999, float("nan"), RuntimeError("boom")])
def test_the_sheddable_pass_while_there_is_room_or_nobody_knows(value: float | Exception) -> None:
    bench, gauge = gauged(value)
    for _ in range(7):
        asked(bench, headers={OBJECTIVE: "o"})
    # One that keeps failing is benched.
    assert gauge.asked == (5 if isinstance(value, Exception) else 7)


def test_without_a_detector_nobody_is_refused_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.director.models = Models(objectives={"o": -1})
    asked(bench, headers={OBJECTIVE: "o"})
    asked(bench, headers={OBJECTIVE: "o"})
    assert caplog.text.count("never refused") == 1
