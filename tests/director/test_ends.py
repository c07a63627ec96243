# SPDX-License-Identifier: Apache-2.0
"""What plugins tell at the end of an answer, and the tokens that are asked for on their behalf."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as with_fields

from epp.api import InferenceRequest, ResponseEnd, Usage, UsageWish
from epp.contract.models import Models, Target
from epp.director import Settings
from epp.extproc import BodyMode, End, Route, Watch
from epp.scheduling.guard import BENCH_AFTER, Guarded
from tests.director.test_life import Bench, http

JSON = {":status": "200", "content-type": "application/json"}
EVENTS = {":status": "200", "content-type": "text/event-stream; charset=utf-8"}
ANSWER = b'{"model":"m","usage":{"prompt_tokens":24,"completion_tokens":178,"total_tokens":202}}'
WORD = b'data: {"model":"large","choices":[{"delta":{"content":"a"}}]}\n\n'
FINAL = b'data: {"model":"large","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAMED = b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}'
ASKED = STREAMED[:-1] + b',"stream_options":{"include_usage":true}}'
Told = Mapping[str, Mapping[str, Any]]
IDENTITY = ("accept-encoding", b"identity")


class Hook:
    """Tells the same at the end of every answer."""

    def __init__(self, tells: Any, wish: UsageWish = UsageWish.NEVER) -> None:
        self.tells = tells
        self.usage_wish = wish
        self.told: list[tuple[InferenceRequest, ResponseEnd]] = []

    def on_response_end(self, request: InferenceRequest, end: ResponseEnd) -> Told:
        self.told.append((request, end))
        if isinstance(self.tells, Exception):
            raise self.tells
        result: Told = self.tells
        return result


class Wisher:
    """Only has a wish."""

    def __init__(self, wish: UsageWish) -> None:
        self.usage_wish = wish


def bench_with(*plugins: object, settings: Settings | None = None) -> Bench:
    bench = Bench(endpoints=1, settings=settings)
    guarded = [Guarded(f"plugin-{number}", plugin, bench.clock) for number, plugin in enumerate(plugins)]
    bench.plan = bench.director.plan = replace(bench.plan, plugins=guarded)
    return bench


def route_of(bench: Bench, body: bytes = STREAMED, **more: Any) -> tuple[Any, Route]:
    life, route = bench.ask(body, **more)
    assert isinstance(route, Route)
    return life, route


def test_a_plan_without_hooks_asks_for_nothing_and_answers_with_one_object() -> None:
    bench = Bench(endpoints=1)
    assert (bench.plan.end_hooks, bench.plan.usage_wish, bench.plan.follows_ends) == ((), UsageWish.NEVER, False)
    _, route = route_of(bench)
    assert (route.reused, route.tells, route.body) == (True, False, None)


def test_with_hooks_it_is_one_object_too() -> None:
    bench = bench_with(Hook({}))
    [(_, one), (_, two)] = [route_of(bench) for _ in range(2)]
    assert one is two
    assert (one.reused, one.tells) == (True, True)


@pytest.mark.parametrize(("headers", "body", "end"), [
    (JSON, ANSWER, ResponseEnd(200, Usage(24, 178, 202))),
    (EVENTS, WORD + FINAL + DONE, ResponseEnd(200, Usage(3, 2, 5))),
    ({**JSON, ":status": "500"}, b"{}", ResponseEnd(500, None)),
    ({**JSON, "content-encoding": "gzip"}, gzip.compress(ANSWER), ResponseEnd(200, None)),
    ({":status": "x", "content-type": "text/plain"}, ANSWER, ResponseEnd(None, None)),
])  # fmt: skip
def test_a_hook_is_told_of_the_answer(headers: dict[str, str], body: bytes, end: ResponseEnd) -> None:
    hook = Hook({"io.envoy.ai_gateway": {"tokens": 202}})
    life, _ = route_of(bench_with(hook))
    life.response_headers(headers, False)
    assert life.response_body(body, True) is None
    assert life.response_end() == {"io.envoy.ai_gateway": {"tokens": 202}}
    life.closed(End.COMPLETE)
    [(request, told)] = hook.told
    assert (request.request_id, request.model, told) == ("id-1", "m", end)


def test_a_response_without_its_headers() -> None:
    hook = Hook({})
    life, _ = route_of(bench_with(hook))
    life.response_body(ANSWER, True)
    assert life.response_end() == {}
    assert hook.told[0][1] == ResponseEnd(None, None)


def test_metadata_is_merged_by_namespace_and_the_later_counts() -> None:
    bench = bench_with(Hook({"a": {"x": 1, "y": 0.5}, "b": {"z": "t"}}), Hook({"a": {"x": 2, "w": True}, "c": {}}))
    life, _ = route_of(bench)
    assert life.response_end() == {"a": {"x": 2, "y": 0.5, "w": True}, "b": {"z": "t"}}


@pytest.mark.parametrize("wrong", [
    {"a": {"k": None}}, {"a": {"k": [1]}}, {"a": {"k": {"n": 1}}}, {"a": {"k": float("nan")}}, {"a": {"k": float("inf")}},
    {"a": {"k": 10**400}}, {"a": {"k": "\ud800"}}, {"a": {"\ud800": 1}}, {"a": {1: 1}}, {2: {"k": 1}}, {"a": 7}, None, 7,
    RuntimeError("no"),
])  # fmt: skip
def test_what_cannot_be_told_is_left_out_and_counted(wrong: Any) -> None:
    bench = bench_with(Hook(wrong), Hook({"a": {"good": 1}}))
    life, _ = route_of(bench)
    assert life.response_end() == {"a": {"good": 1}}
    life.closed(End.COMPLETE)
    assert [guarded.errors for guarded in bench.plan.plugins] == [1, 0]
    assert bench.in_flight() == [0.0]


def test_of_a_hook_that_tells_good_and_bad_the_good_goes_out() -> None:
    bench = bench_with(Hook({"a": {"bad": None, "good": 1}, "b": {"also": 2}}))
    life, _ = route_of(bench)
    assert life.response_end() == {"a": {"good": 1}, "b": {"also": 2}}
    assert bench.plan.plugins[0].errors == 1


def test_a_hook_that_keeps_failing_is_benched() -> None:
    hook = Hook(RuntimeError("no"))
    bench = bench_with(hook)
    for _ in range(BENCH_AFTER + 3):
        life, _ = route_of(bench)
        assert life.response_end() == {}
        life.closed(End.COMPLETE)
    assert len(hook.told) == BENCH_AFTER
    hook.tells = {"a": {"k": 1}}
    bench.clock.advance(31.0)
    life, _ = route_of(bench)
    assert life.response_end() == {"a": {"k": 1}}
    assert bench.plan.plugins[0].failing == 0


@pytest.mark.parametrize(("pieces", "told"), [
    ([WORD, FINAL, DONE], [False, False, True]),
    ([WORD + FINAL + DONE], [True]),
    ([FINAL, b"data:[DONE]\r\n\r\n"], [False, True]),
    ([WORD, FINAL + b"data: [DO", b"NE]\n\n"], [False, False, False]),
    # Nothing was told of tokens; or only somebody's words.
    ([WORD, DONE], [False, False]),
    ([FINAL, b'data: {"choices":[{"text":"data: [DONE]"}]}\n\n'], [False, False]),
    ([FINAL + b'data: {"choices":[{"text":"', b'data: [DONE]"}]}\n\n', DONE], [False, False, True]),
    ([b'event: message_delta\ndata: {"usage":{"input_tokens":3,"output_tokens":2}}\n\n', b"event: message_stop\n"],
     [False, True]),
    ([b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":3,"output_tokens":2}}}\n\n'], [True]),
    ([b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":3,', b'"output_tokens":2}}}\n\n'],
     [False, False]),
])  # fmt: skip
def test_the_last_event_of_a_stream_is_told_before_the_answer_ends(pieces: list[bytes], told: list[bool]) -> None:
    life, _ = route_of(bench_with(Hook({})))
    life.response_headers(EVENTS, False)
    seen = []
    for piece in pieces:
        life.response_body(piece, False)
        seen.append(life.response_told())
    assert seen == told


def test_no_event_is_the_last_of_an_answer_that_is_no_stream() -> None:
    life, _ = route_of(bench_with(Hook({})))
    assert not life.response_told()
    life.response_headers(JSON, False)
    life.response_body(FINAL + DONE, False)
    assert not life.response_told()


BYTES = {":status": "200", "content-type": "application/octet-stream"}


@pytest.mark.parametrize(("metadata", "usage"), [
    ('{"id":"e","data":[{"index":0}],"usage":{"prompt_tokens":7,"total_tokens":7}}', (7, 7)),
    ('{"id":"e","data":[{"index":0}]}', None),
    ("\udcff", None),
    ("", None),
])  # fmt: skip
def test_vllm_tells_the_tokens_of_embeddings_as_bytes_in_a_header(metadata: str, usage: tuple[int, int] | None) -> None:
    hook = Hook({})
    life, _ = route_of(bench_with(hook))
    vectors = b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}'
    assert answered(life, {**BYTES, "metadata": metadata}, vectors) == vectors
    life.response_end()
    told = hook.told[0][1].usage
    assert usage == (None if told is None else (told.prompt_tokens, told.total_tokens))


def test_without_response_bodies_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = bench_with(Hook({}, UsageWish.ASK))
    for _ in range(3):
        life = bench.director.open()
        route = life.request(with_fields(http(STREAMED), response_mode=BodyMode.NONE))
        assert isinstance(route, Route)
        assert route.body is None
    [said] = [record.message for record in caplog.records if "told of none" in record.message]
    assert said.endswith("set processing_mode.response_body_mode to FULL_DUPLEX_STREAMED")


# Tokens that are asked for


@pytest.mark.parametrize(("wishes", "strongest"), [
    ([], UsageWish.NEVER), ([UsageWish.NEVER], UsageWish.NEVER), ([UsageWish.ASK, UsageWish.NEVER], UsageWish.ASK),
    ([UsageWish.ASK_AND_HIDE, UsageWish.ASK, UsageWish.NEVER], UsageWish.ASK_AND_HIDE),
])  # fmt: skip
def test_the_strongest_wish_counts(wishes: list[UsageWish], strongest: UsageWish) -> None:
    plan = bench_with(*map(Wisher, wishes)).plan
    assert plan.usage_wish is strongest
    assert plan.follows_ends is (strongest is not UsageWish.NEVER)


def answered(life: Any, headers: dict[str, str], *pieces: bytes) -> bytes:
    """What the client gets of an answer that comes in `pieces`."""
    life.response_headers(headers, False)
    out = b""
    for number, piece in enumerate(pieces):
        replaced = life.response_body(piece, number == len(pieces) - 1)
        out += piece if replaced is None else replaced
    return out


@pytest.mark.parametrize(("wish", "body", "sent", "seen"), [
    (UsageWish.NEVER, STREAMED, None, WORD + FINAL + DONE),
    (UsageWish.ASK, STREAMED, ASKED, WORD + FINAL + DONE),
    (UsageWish.ASK_AND_HIDE, STREAMED, ASKED, WORD + DONE),
    # Engines take more than `true` for it.
    (UsageWish.ASK_AND_HIDE, STREAMED.replace(b"true", b'"yes"'), ASKED.replace(b"true", b'"yes"', 1), WORD + DONE),
    # A client that asked, or does not stream, gets what it would.
    (UsageWish.ASK_AND_HIDE, ASKED, None, WORD + FINAL + DONE),
    (UsageWish.ASK_AND_HIDE, STREAMED.replace(b"true", b"false"), None, WORD + FINAL + DONE),
])  # fmt: skip
@pytest.mark.parametrize("size", [7, 1000])
def test_a_wish(wish: UsageWish, body: bytes, sent: bytes | None, seen: bytes, size: int) -> None:
    hook = Hook({"a": {"k": 1}}, wish)
    bench = bench_with(hook)
    life, route = route_of(bench, body, headers={"accept-encoding": "gzip, br"})
    assert route.body == sent
    assert route.tells
    assert IDENTITY in route.set_headers
    stream = WORD + FINAL + DONE
    assert answered(life, EVENTS, *[stream[at : at + size] for at in range(0, len(stream), size)]) == seen
    life.response_end()
    assert hook.told[0][1].usage == Usage(3, 2, 5)


def test_without_an_accept_encoding_none_is_set() -> None:
    _, route = route_of(bench_with(Wisher(UsageWish.ASK)))
    assert IDENTITY not in route.set_headers
    assert not route.tells


def test_the_echo_of_the_clients_headers_does_not_bring_it_back() -> None:
    bench = bench_with(Wisher(UsageWish.ASK), settings=Settings(echo_headers=True))
    _, route = route_of(bench, headers={"accept-encoding": "gzip"})
    assert [pair for pair in route.set_headers if pair[0] == "accept-encoding"][-1] == IDENTITY


def test_an_answer_that_is_not_streamed_after_all_is_untouched() -> None:
    life, _ = route_of(bench_with(Wisher(UsageWish.ASK_AND_HIDE)))
    assert answered(life, JSON, ANSWER) == ANSWER


def test_a_compressed_answer_is_untouched_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    life, _ = route_of(bench_with(Wisher(UsageWish.ASK_AND_HIDE)))
    data = gzip.compress(WORD + FINAL)
    assert answered(life, {**EVENTS, "content-encoding": "gzip"}, data) == data
    assert "keep the tokens that were asked for" in caplog.text


@pytest.mark.parametrize("more", [
    {"headers": {"content-encoding": "gzip"}, "body": gzip.compress(STREAMED)},
    {"complete": False, "mode": BodyMode.BUFFERED_PARTIAL},
    {"body": None, "mode": BodyMode.STREAMED},
    {"path": "/v1/embeddings", "body": b'{"model":"m","input":"x","stream":true}'},
])  # fmt: skip
def test_only_a_body_that_is_whole_and_plain_is_changed(more: dict[str, Any]) -> None:
    more = {"body": STREAMED, **more}
    _, route = route_of(bench_with(Wisher(UsageWish.ASK_AND_HIDE)), more.pop("body"), **more)
    assert route.body is None


def test_a_long_compressed_body_takes_the_other_way_and_is_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    bench = bench_with(Wisher(UsageWish.ASK))
    _, route = route_of(bench, gzip.compress(STREAMED), headers={"content-encoding": "gzip"})
    assert route.body is None
    assert [r.levelno for r in caplog.records if "content-encoding" in r.message] == [logging.WARNING]


def test_responses_that_are_not_followed_are_not_asked() -> None:
    bench = bench_with(Wisher(UsageWish.ASK_AND_HIDE))
    bench.director.plan = replace(bench.plan, watch=Watch.NOTHING)
    watched = []
    for _ in range(20):
        life, route = route_of(bench)
        watched.append(route.watch)
        # A few are followed all the same, to learn how long such requests take.
        assert (route.body is None) is (route.watch is Watch.NOTHING)
        life.response_headers(EVENTS, False)
        life.closed(End.COMPLETE)
    assert Watch.NOTHING in watched


@pytest.mark.parametrize("size", [1, 11, 1000])
def test_with_another_model_both_splices_and_both_filters_work(size: int) -> None:
    bench = bench_with(Hook({}, UsageWish.ASK_AND_HIDE))
    bench.director.models = Models(rewrites={"m": (Target("large"),)})
    life, route = route_of(bench)
    assert route.body == ASKED.replace(b'"m"', b'"large"')
    assert json.loads(route.body)["stream_options"] == {"include_usage": True}
    stream = WORD + WORD[:-3] + b',"usage":null}\n\n' + FINAL + DONE
    seen = answered(life, EVENTS, *[stream[at : at + size] for at in range(0, len(stream), size)])
    assert seen == (WORD + WORD + DONE).replace(b'"large"', b'"m"')


def test_a_request_keeps_the_plan_it_began_with() -> None:
    bench = bench_with(Hook({"a": {"k": 1}}))
    life, _ = route_of(bench)
    bench.director.plan = replace(bench.plan, plugins=())
    assert life.response_end() == {"a": {"k": 1}}
