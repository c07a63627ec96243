# SPDX-License-Identifier: Apache-2.0
"""Routes and limits in words, the requests that try a gateway out, and lines of Envoy's access log."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from epp.local.chain.follow import Follow
from epp.local.chain.session import farewell
from epp.local.chain.tryout import Model, curl, line, models, over_limit
from epp.local.chain.words import counting_line, limit_words, route_lines
from epp.local.client import Outcome
from epp.local.scenario import Ask
from epp.manifests.limits import Absent, Charge, LimitPolicy, LimitRule, Match, Selector, Unit
from epp.manifests.routes import path_regex
from epp.manifests.topology import ApiKey, Cost, HeaderMatch, Listener, Pool, Route, Rule, Secret, Target
from tests.local.chain_parts import BACKEND, LLAMA, POOL, QWEN, TOTAL, both, planned, route, tokens_per_user

USER = Selector("k", "x-user-id", Match.DISTINCT)
NONE = Charge(number=0)
TOKENS = Charge(namespace="io.envoy.ai_gateway", key="llm_total_token")


def test_the_tutorials_routes_and_limits() -> None:
    plan = planned()
    lines = list(route_lines(plan))
    port, pod, llama = plan.places.listeners[80].port, plan.pools[0].pods[0].place.port, plan.backends[0].places[0].port
    assert lines == [
        f"Gateway kserve-test/ai-gateway, listener http on http://localhost:{port}",
        (
            f"  {QWEN} -> pool {POOL}: 4 simulated pods on 127.0.1.1 to 127.0.1.4, port {pod}, "
            f"endpoint picker on :{plan.pools[0].picker.port} "
            "(queue-scorer 2, kv-cache-utilization-scorer 2, prefix-cache-scorer 3)"
        ),
        f"       1000 tokens an hour for each x-user-id of {QWEN}; requests without x-user-id are not limited by it",
        f"Gateway default/basic, listener http on http://localhost:{port}",
        f"  {LLAMA} -> backend {BACKEND}: 1 simulated pod on 127.0.2.1, port {llama}, no endpoint picker",
        f"       1000 tokens an hour for each x-user-id of {LLAMA}; requests without x-user-id are not limited by it",
    ]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (LimitRule((USER,), 5, Unit.SECOND), "5 requests a second for each x-user-id"),
        (LimitRule((), 9, Unit.DAY, shared=True), "9 requests a day, all routes together"),
        (LimitRule((), 9, Unit.WEEK, shadow=True), "9 requests a week (only watched, nobody is refused)"),
        (LimitRule((), 9, Unit.MINUTE, Charge(number=3)), "9 requests (each counts 3) a minute"),
        (LimitRule((USER,), 9, Unit.MONTH, None, TOKENS), "9 requests and tokens a month for each x-user-id"),
        (LimitRule((), 9, Unit.YEAR, NONE, Charge(namespace="n", key="w")), '9 units of "w" a year'),
        (LimitRule((), 9, Unit.HOUR, NONE, Charge(namespace="n", key="out")), "9 output tokens an hour"),
        (
            LimitRule((Selector("k", "x-team", Match.EXACT, "red", invert=True),), 1, Unit.HOUR),
            "1 requests an hour where x-team is not red",
        ),
        (
            LimitRule(
                (Selector("k", ":path", Match.PREFIX, "/v1"), Selector("k", "h", Match.REGEX, "a+")), 1, Unit.HOUR
            ),
            "1 requests an hour on path /v1... where h is like a+",
        ),
        (
            LimitRule(
                (
                    Selector("k", ":path", Match.REGEX, r"/v1/a\-b(?:[/?].*)?", invert=True),
                    Selector("k", "x-user-id", Match.REGEX, "guest-.*"),
                    Selector("k", "x-ai-eg-model", Match.EXACT, "large", invert=True),
                    Selector("k", ":method", Match.EXACT, "GET"),
                    USER,
                ),
                9,
                Unit.MINUTE,
            ),
            (
                "9 requests a minute for each x-user-id of models other than large on other paths than /v1/a-b... "
                "where x-user-id is like guest-.* where method is GET"
            ),
        ),
    ],
)
def test_limits_in_words(rule: LimitRule, words: str) -> None:
    costs = (TOTAL, Cost("out", "OutputToken"), Cost("w", "CEL", "1"))
    assert limit_words(rule, Route("r", ("g",), (), costs)) == words


@pytest.mark.parametrize(
    ("absent", "words"),
    [(Absent.SHARED, "share one counter"), (Absent.REJECT, "are refused with 400")],
)
def test_requests_without_the_header_in_words(absent: Absent, words: str) -> None:
    policy = LimitPolicy("n/p", (tokens_per_user(QWEN),), gateways=("kserve-test/ai-gateway",), absent=absent)
    lines = "\n".join(route_lines(planned(both(limits=(policy,)))))
    assert f"requests without x-user-id {words}" in lines


def test_limits_of_other_models_are_not_told_of_a_route() -> None:
    policy = LimitPolicy(
        "n/p", (tokens_per_user("another"), tokens_per_user(QWEN)), gateways=("kserve-test/ai-gateway",)
    )
    assert "another" not in "\n".join(route_lines(planned(both(limits=(policy,)))))


def test_shares_headers_and_real_servers() -> None:
    rule = Rule(
        "r/rule/0",
        (
            (HeaderMatch("x-ai-eg-model", "m-.*", regex=True), HeaderMatch("x-team", "red")),
            (HeaderMatch("x-any", "1"),),
        ),
        (Target(POOL, True, 90), Target(BACKEND, False, 10)),
    )
    topology = both(
        routes=(Route("a/r", ("kserve-test/ai-gateway/http",), (rule, Rule("r/rule/1", (), (Target(POOL, True),)))),),
        pools=(Pool(POOL, (QWEN,), endpoints=("10.0.0.1:8000",)),),
        limits=(),
    )
    lines = list(route_lines(planned(topology)))
    assert lines[1].startswith(f"  /m-.*/ with x-team: red or x-any: 1 -> 90% to pool {POOL}: 10.0.0.1:8000, endpoint")
    assert lines[2].strip().startswith(f"-> 10% to backend {BACKEND}")
    assert lines[3].startswith(f"  every model -> pool {POOL}")
    assert lines[-1] == "  no route: everything is answered with 404"


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("PathPrefix", "/v1", "path /v1..."),
        ("PathPrefix", "/v1/a-b.c/", "path /v1/a-b.c..."),
        ("Exact", "/v1/models", "path /v1/models"),
        ("RegularExpression", "/v[12]/.*", r"path like (?:/v[12]/.*)(?:\?.*)?"),
    ],
)
def test_paths_as_they_were_written(kind: str, value: str, words: str) -> None:
    matches = (HeaderMatch(":path", path_regex(kind, value), regex=True), HeaderMatch("x-ai-eg-model", QWEN))
    rule = Rule("r/rule/0", (matches, (HeaderMatch(":method", "GET"),)), (Target(POOL, True),))
    lines = list(route_lines(planned(both(routes=(Route("a/r", ("default/basic",), (rule,)),)))))
    assert any(line_.startswith(f"  {QWEN} with {words} or method: GET -> pool") for line_ in lines)


def test_a_pool_with_a_key() -> None:
    pools = (Pool(POOL, (QWEN,), key=ApiKey(Secret("secret"))),)
    lines = "\n".join(route_lines(planned(both(pools=pools))))
    assert "prefix-cache-scorer 3), with a key\n" in lines


@pytest.mark.parametrize(
    ("redis", "window", "words"),
    [
        ("", "", "memory, fixed windows"),
        ("", "sliding", "memory, sliding windows"),
        ("redis://localhost:16399", "fixed", "redis://localhost:16399, fixed windows"),
        ("rediss://user:secret@[::1]/0?password=secret", "", "rediss://[::1]/0, fixed windows"),
        ("unix://user:secret@/run/redis.sock?password=secret", "", "unix:///run/redis.sock, fixed windows"),
    ],
)
def test_where_limits_are_counted_without_a_password(redis: str, window: str, words: str) -> None:
    assert counting_line(planned(), redis, window) == f"limits are counted in {words}"


def test_nothing_is_counted_without_limits() -> None:
    assert counting_line(planned(both(limits=())), "", "") == ""


def test_what_can_be_done_now() -> None:
    plan = planned()
    lines = list(farewell(plan))
    assert lines[0] == "It stays up until Ctrl-C; requests show here with what they cost. A command for each model:"
    assert [text.startswith("  curl -v ") for text in lines[1:5]] == [False, True, True, False]
    port = plan.pools[0].metrics
    assert f"why a request went there: epp explain --url http://localhost:{port} [x-request-id]" in lines
    backends = both(routes=(Route("r", ("default/basic",), (Rule("r/0", (), (Target(BACKEND, False),)),)),), pools=())
    lines = list(farewell(planned(backends)))
    assert lines[:2] == ["It stays up until Ctrl-C; requests show here with what they cost.", ""]
    assert not [text for text in lines if "curl" in text or "explain" in text]


def test_models_are_those_that_a_body_alone_can_name_once_a_port() -> None:
    routes = (
        route("a/r", "kserve-test/ai-gateway", QWEN, Target(POOL, True)),
        route("a/s", "default/basic", QWEN, Target(POOL, True)),
        Route("a/t", ("default/basic",), (
            Rule("t/0", ((HeaderMatch("x-ai-eg-model", "x.*", regex=True),),), (Target(POOL, True),)),
            Rule("t/1", ((HeaderMatch("x-ai-eg-model", "z"), HeaderMatch("a", "b")),), (Target(POOL, True),)),
        )),
    )  # fmt: skip
    plan = planned(both(routes=routes))
    assert [model.name for model in models(plan)] == [QWEN]
    listeners = (Listener("kserve-test/ai-gateway", "http", 80, "*.example.com"),)
    [model] = models(planned(both(listeners=listeners)))
    assert model.host == "www.example.com"
    assert "-H 'host: www.example.com'" in curl(model)


def test_the_command_is_the_tutorials() -> None:
    text = curl(Model(QWEN, 8080))
    assert text.startswith(
        "curl -v -H 'Content-Type: application/json' -H 'x-user-id: user123' -d '{\"model\": \"Qwen/"
    )
    assert text.endswith(" http://localhost:8080/v1/chat/completions")


def answered(status: int, **headers: str) -> Outcome:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    usage = {"prompt_tokens": 31, "completion_tokens": 64} if status == 200 else {}
    error = "" if status == 200 else "no body"
    return Outcome(Ask(LLAMA, "/v1", {}), "id", status, "pod-0", 12.4, usage=usage, headers=told, error=error)


def test_a_request_in_one_line() -> None:
    left = {"x_ratelimit_limit": "1000, 1000;w=3600", "x_ratelimit_remaining": "905", "x_ratelimit_reset": "1715"}
    assert line(2, answered(200, **left)) == (
        f"  2  user123  {LLAMA:<28} 200     12 ms  31 + 64 tokens, 905 of 1000 left this hour, by pod-0"
    )
    over = answered(429, **{**left, "x_ratelimit_remaining": "0"})
    assert over_limit(over)
    assert "429     12 ms  over 1000 an hour, again in 1715 s" in line(3, over)
    assert not over_limit(answered(429))
    assert "no body" in line(4, answered(503))
    assert "ms  connection refused by a:1, by pod-0" in line(4, answered(503), why="connection refused by a:1")


def test_envoys_lines_are_requests_or_complaints() -> None:
    said: list[str] = []
    follow = Follow(said.append, lambda: 0.0)
    entry: dict[str, Any] = {
        "user": "user123", "model": LLAMA, "status": 200, "duration_ms": 12, "costs": {"llm_total_token": 95},
        "limit": "1000, 1000;w=3600", "remaining": "905", "reset": "17", "pod": "llama-0", "flags": "-",
    }  # fmt: skip
    follow.envoy_line(json.dumps(entry))
    assert said == []
    follow.begin()
    follow.envoy_line(json.dumps(entry))
    assert said == [f"  -> user123  {LLAMA}  200     12 ms  tokens: total 95, 905 of 1000 left this hour, by llama-0"]
    follow.envoy_line("[2026-01-01 00:00:00.000][1][warning][main] fine")
    follow.envoy_line("[2026-01-01 00:00:00.000][1][error][main] bad")
    assert said[1:] == ["  Envoy: [2026-01-01 00:00:00.000][1][error][main] bad"]
    follow.envoy_line(json.dumps({"status": 200, "user": "\x1b[2Jx\n" + "y" * 100, "model": "m", "duration_ms": 1}))
    assert said.pop() == "  -> ?[2Jx?" + "y" * 74 + "  m  200      1 ms"
    follow.envoy_line(json.dumps({"status": 404, "method": "GET", "path": "/x", "model": None}))
    assert said.pop() == "  -> (no user)  GET /x  404        ms"


def test_under_load_few_are_shown_more_of_those_that_failed_and_how_many_were_not() -> None:
    said: list[str] = []
    now, wakes = [5.25], list[tuple[float, Callable[[], None]]]()
    follow = Follow(said.append, lambda: now[0], later=lambda delay_s, call: wakes.append((delay_s, call)))
    follow.begin()
    fine = {"user": "u", "model": "m", "status": 200, "duration_ms": 12, "flags": "-"}
    for _ in range(20):
        follow.envoy_line(json.dumps(fine))
    assert len(said) == 10
    for more in ({"status": 429, "flags": "RL"}, {"status": 503, "flags": "UF"}, {"flags": "DC"}, {"status": 0}):
        follow.envoy_line(json.dumps({**fine, **more}))
    assert len(said) == 14
    for _ in range(60):
        follow.envoy_line(json.dumps({**fine, "status": 429, "flags": "RL"}))
    assert len(said) == 60
    # Nobody asks any more, and it is told nevertheless.
    [(delay_s, wake)] = wakes
    assert delay_s == 0.75
    wake()
    assert said[60:] == ["     (and 24 more)"]
    now[0] = 6.0
    for _ in range(11):
        follow.envoy_line(json.dumps(fine))
    now[0] = 7.0
    follow.envoy_line(json.dumps(fine))
    assert said[-2] == "     (and 1 more)"
    wakes[1][1]()
    assert len(said) == 73


def test_what_was_told_already_is_not_shown_when_envoys_line_comes_late() -> None:
    said: list[str] = []
    follow = Follow(said.append, lambda: 0.0)
    early, late, other = (json.dumps({"status": 200, "model": LLAMA, "request_id": name}) for name in ("a", "b", "c"))
    follow.told("a")
    follow.told("b")
    follow.envoy_line(early)
    follow.begin()
    for line_ in (late, other):
        follow.envoy_line(line_)
    assert len(said) == 1
    # An id is a client's to choose: only the first is the one that was told.
    follow.envoy_line(late)
    assert len(said) == 2
