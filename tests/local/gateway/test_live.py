# SPDX-License-Identifier: Apache-2.0
"""Real Envoy with the generated bootstrap: where requests go, what they carry, and what is counted."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from epp.local.envoy import CONTROL_HEADERS
from epp.local.gateway.places import Address
from epp.manifests.limits import Absent, Charge, LimitPolicy, LimitRule, Match, Selector, Unit
from epp.manifests.topology import (
    ApiKey,
    Backend,
    HeaderMatch,
    Listener,
    Pool,
    Route,
    Rule,
    Secret,
    Target,
    Tls,
    Topology,
)
from tests.local.gateway.certificates import Authority
from tests.local.gateway.standins import HOST, MODEL, NAMESPACE, TOKENS, Chain, chain, model_server, one_listener, rule

pytestmark = pytest.mark.envoy

BOOKED = Charge(namespace=NAMESPACE, key="llm_total_token")
PER_USER = LimitRule(
    selectors=(
        Selector("rule-0-match-0", "x-user-id", Match.DISTINCT),
        Selector("rule-0-match-1", MODEL, Match.EXACT, "llama"),
    ),
    requests=1000,
    unit=Unit.HOUR,
    at_request=Charge(0),
    at_response=BOOKED,
)


def llama(policy: LimitPolicy | None = None, **more: object) -> Topology:
    route = Route("d/r", ("d/gw",), (rule("d/r/rule/0", "llama", Target("d/b", False)),))
    return one_listener(route, backends=(Backend("d/b", ("llama",), **more),), limits=(policy,) if policy else ())  # type: ignore[arg-type]


def per_user(absent: Absent = Absent.UNLIMITED, **more: object) -> LimitPolicy:
    return LimitPolicy("d/p", (PER_USER,), gateways=("d/gw",), absent=absent, **more)  # type: ignore[arg-type]


def described(*entries: tuple[str, str]) -> list[tuple[str, str]]:
    return [("route", "d/r/rule/0"), *entries]


USER = ("rule-0-match-0", "ann")
IS_LLAMA = ("rule-0-match-1", "rule-0-match-1")


async def test_models_go_to_their_pool_and_to_their_backend(envoy_binary: Path, tmp_path: Path) -> None:
    rules = (
        rule("d/r/rule/0", "qwen", Target("d/p", True)),
        rule("d/r/rule/1", "gemma", Target("d/q", True)),
        rule("d/r/rule/2", "llama", Target("d/b", False)),
    )
    pools = (Pool("d/p", ("qwen",)), Pool("d/q", ("gemma",)))
    topology = one_listener(Route("d/r", ("d/gw",), rules), pools=pools, backends=(Backend("d/b", ("llama",)),))
    async with model_server("p") as p, model_server("q") as q, model_server("b") as b:
        pods = {"d/p": p.address, "d/q": q.address}
        async with chain(envoy_binary, tmp_path, topology, pods=pods, backends={"d/b": [b.address]}) as gateway:
            for model, server in (("qwen", p), ("gemma", q), ("llama", b)):
                status, body, headers = await gateway.post(model)
                assert (status, json.loads(body)["served_by"]) == (200, server.name)
                assert headers["x-request-id"]
                assert server.seen[0][2][MODEL] == model
            # Each picker met its own pool's request and no other; the backend's met none.
            assert [len(gateway.pickers[name].requests) for name in ("d/p", "d/q")] == [1, 1]
            assert gateway.pickers["d/p"].requests[0][MODEL] == "qwen"


async def test_an_unknown_model_is_a_404_that_says_why_and_is_not_counted(envoy_binary: Path, tmp_path: Path) -> None:
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, llama(per_user()), backends={"d/b": [server.address]}) as gateway,
    ):
        status, body, headers = await gateway.post("mistral", x_user_id="ann")
        assert status == 404
        assert body.startswith("No matching route found.")
        assert body.endswith("is not configured in the Gateway.")
        assert headers["content-type"] == "text/plain"
        assert (await gateway.post("llama", "/unknown", x_user_id="ann"))[0] == 404
        named = {"x-user-id": "ann", "content-type": "application/json"}
        async with gateway.session.post(f"{gateway.url}/v1/completions", data=b"{", headers=named) as response:
            assert (response.status, await response.text()) == (400, "refused by the gateway")
        # The first that is counted is the first that is served.
        await gateway.post("llama", x_user_id="ann")
        assert [call.hits for call in await gateway.limits.calls_become(2)] == [[0], [TOKENS]]
        assert len(server.seen) == 1


async def test_a_hundred_requests_are_shared_by_weight_and_a_picked_request_stays(
    envoy_binary: Path, tmp_path: Path
) -> None:
    targets = (Target("d/b", False, 3), Target("d/p", True, 1), Target("d/c", False, 0))
    topology = one_listener(
        Route("d/r", ("d/gw",), (rule("d/r/rule/0", "m", *targets),)),
        pools=(Pool("d/p", ("other",)),),
        backends=(Backend("d/b"), Backend("d/c")),
    )
    async with model_server("b") as b, model_server("p") as p, model_server("c") as c:
        backends = {"d/b": [b.address], "d/c": [c.address]}
        async with chain(envoy_binary, tmp_path, topology, pods={"d/p": p.address}, backends=backends) as gateway:
            answers = await asyncio.gather(*(gateway.post("m") for _ in range(200)))
            served = Counter(json.loads(body)["served_by"] for _, body, _ in answers)
            assert {status for status, _, _ in answers} == {200}
            # 150 : 50, with a chance of one in a million to be further off.
            assert 20 <= served["p"] <= 80
            assert served["b"] == 200 - served["p"]
            assert len(gateway.pickers["d/p"].requests) == served["p"]


async def test_a_rule_with_more_headers_comes_first(envoy_binary: Path, tmp_path: Path) -> None:
    beta = ((HeaderMatch(MODEL, "m"), HeaderMatch("x-tier", "beta|alpha", regex=True)),)
    rules = (rule("d/r/rule/0", "m", Target("d/b", False)), Rule("d/r/rule/1", beta, (Target("d/c", False),)))
    topology = one_listener(Route("d/r", ("d/gw",), rules), backends=(Backend("d/b"), Backend("d/c")))
    async with model_server("b") as b, model_server("c") as c:
        backends = {"d/b": [b.address], "d/c": [c.address]}
        async with chain(envoy_binary, tmp_path, topology, backends=backends) as gateway:
            for tier, name in (("beta", "c"), ("betas", "b"), ("", "b")):
                assert json.loads((await gateway.post("m", x_tier=tier))[1])["served_by"] == name


async def test_hosts_have_routes_of_their_own(envoy_binary: Path, tmp_path: Path) -> None:
    listeners = (Listener("d/gw", "http", 80, "a.example"), Listener("d/other", "http", 80))
    routes = (
        Route("d/r", ("d/gw/http",), (rule("d/r/rule/0", "m", Target("d/b", False)),)),
        Route("d/s", ("d/other",), (rule("d/s/rule/0", "m", Target("d/c", False)),)),
    )
    topology = Topology(listeners, routes, backends=(Backend("d/b"), Backend("d/c")))
    async with model_server("b") as b, model_server("c") as c:
        backends = {"d/b": [b.address], "d/c": [c.address]}
        async with chain(envoy_binary, tmp_path, topology, backends=backends) as gateway:
            for host, name in (("a.example:8080", "b"), ("a.example", "b"), ("z.example", "c")):
                assert json.loads((await gateway.post("m", host=host))[1])["served_by"] == name


async def test_a_clients_internal_headers_are_gone_before_anybody_sees_them(envoy_binary: Path, tmp_path: Path) -> None:
    internal = (
        *CONTROL_HEADERS,
        "x-ai-eg-original-path",
        "x-ai-eg-anything",
        "x-envoy-original-path",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-retry-on",
    )
    sent = dict.fromkeys(internal, "1") | {MODEL: "mistral"}
    kept = {"x-user-id": "ann", "authorization": "Bearer mine", "x-session-id": "s", "x-request-id": "r-1"}
    async with (
        model_server("b", delay_s=0.05) as server,
        chain(envoy_binary, tmp_path, llama(), backends={"d/b": [server.address]}) as gateway,
    ):
        status, _, headers = await gateway.post("llama", **sent, **kept)
        assert (status, headers["x-request-id"]) == (200, "r-1")
        seen = server.seen[0][2]
        assert not set(internal) & set(gateway.gateway.requests[0])
        assert not set(internal) & set(seen)
        assert seen[MODEL] == "llama"
        assert {name: seen.get(name) for name in kept} == kept
        async with gateway.session.get(gateway.url, headers={"bad_header": "x"}) as response:
            assert response.status == 400


async def test_a_header_block_over_the_bound_is_431(envoy_binary: Path, tmp_path: Path) -> None:
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, llama(), backends={"d/b": [server.address]}) as gateway,
    ):
        assert (await gateway.post("llama", x_long="x" * 30_000))[0] == 200
        assert (await gateway.post("llama", x_long="x" * 70_000))[0] == 431


@pytest.mark.parametrize(
    ("key", "header", "value"),
    [
        (ApiKey(Secret("sk-upstream-7f3a")), "authorization", "Bearer sk-upstream-7f3a"),
        (ApiKey(Secret("abc-7f3a"), header="x-api-key", prefix=""), "x-api-key", "abc-7f3a"),
    ],
)
async def test_the_upstream_gets_the_key_and_nobody_else(
    envoy_binary: Path, tmp_path: Path, key: ApiKey, header: str, value: str
) -> None:
    rules = (rule("d/r/rule/0", "llama", Target("d/b", False)), rule("d/r/rule/1", "qwen", Target("d/p", True)))
    topology = one_listener(
        Route("d/r", ("d/gw",), rules),
        backends=(Backend("d/b", ("llama",), key=key),),
        pools=(Pool("d/p", ("qwen",), key=key),),
    )
    log = tmp_path / "access.log"
    async with model_server("b") as server, model_server("p") as pod:
        backends, pods = {"d/b": [server.address]}, {"d/p": pod.address}
        async with chain(
            envoy_binary, tmp_path / "run", topology, backends=backends, pods=pods, access_log=log
        ) as gateway:
            for model, upstream in (("llama", server), ("qwen", pod)):
                for sent in ({}, {header: "Bearer of-the-client"}):
                    status, body, _ = await gateway.post(model, **sent)
                    assert status == 200
                    assert upstream.seen[-1][2][header] == value
                    assert key.key.text not in body
            shown = [str(gateway.gateway.requests), str(gateway.pickers["d/p"].requests)]
            for page in ("config_dump?include_eds", "clusters", "stats", "listeners", "server_info", "certs"):
                async with gateway.session.get(f"{gateway.admin}/{page}") as response:
                    assert response.status == 200
                    shown.append(await response.text())
            assert "credential_injector" in shown[2]
            shown += gateway.envoy.tail
        shown += [log.read_text(), (tmp_path / "run" / "envoy.json").read_text()]
        assert len(log.read_text().splitlines()) == 4
        assert not [text for text in shown if key.key.text in text]


async def test_tls_to_a_backend_is_verified(envoy_binary: Path, tmp_path: Path) -> None:
    authority = Authority()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked: list[str | None] = []
    server_context.sni_callback = lambda _, name, __: asked.append(name)
    authority.load_chain(server_context, "localhost", tmp_path)
    roots = tmp_path / "roots.pem"
    roots.write_text(authority.pem)
    models = {
        "right": Tls("localhost", authority.pem),
        "system": Tls("localhost"),
        "wrong-name": Tls("elsewhere.example", authority.pem),
        "wrong-ca": Tls("localhost", Authority().pem),
        "address": Tls(HOST, authority.pem),
    }
    async with model_server("b", server_context) as server:
        named = f"localhost:{server.address.port}"
        topology = one_listener(
            Route(
                "d/r", ("d/gw",), tuple(rule(f"d/r/rule/{name}", name, Target(f"d/{name}", False)) for name in models)
            ),
            backends=tuple(Backend(f"d/{name}", endpoints=(named,), tls=tls) for name, tls in models.items()),
        )
        backends = {f"d/{name}": [Address("localhost", server.address.port)] for name in models}
        async with chain(envoy_binary, tmp_path / "run", topology, backends=backends, roots=roots) as gateway:
            for model, expected in (("right", 200), ("system", 200), ("wrong-name", 503), ("wrong-ca", 503)):
                assert (model, (await gateway.post(model))[0]) == (model, expected)
            assert (await gateway.post("address"))[0] == 200
            assert server.seen[0][2]["host"] == "localhost"
            assert set(asked) == {"localhost", "elsewhere.example", None}


@pytest.mark.parametrize(
    ("prefix", "path", "expected"),
    [
        ("", "/v1/chat/completions?a=1", "/v1/chat/completions?a=1"),
        ("/v1beta/openai", "/v1/chat/completions?a=1", "/v1beta/openai/chat/completions?a=1"),
        ("openai/v1/", "/v1/embeddings", "/openai/v1/embeddings"),
        ("/", "/v1/completions", "/completions"),
        ("/x", "/v10/completions", "/v10/completions"),
    ],
)
async def test_a_backends_prefix_stands_for_v1(
    envoy_binary: Path, tmp_path: Path, prefix: str, path: str, expected: str
) -> None:
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, llama(prefix=prefix), backends={"d/b": [server.address]}) as gateway,
    ):
        assert (await gateway.post("llama", path))[0] == 200
        assert server.seen[0][:2] == ("POST", expected)


async def test_a_timeout_bounds_the_answer_and_a_dead_endpoint_is_passed_over(
    envoy_binary: Path, tmp_path: Path
) -> None:
    rules = (
        rule("d/r/rule/0", "short", Target("d/b", False), timeout_s=0.2),
        rule("d/r/rule/1", "none", Target("d/b", False), timeout_s=0),
        rule("d/r/rule/2", "two", Target("d/c", False)),
    )
    topology = one_listener(Route("d/r", ("d/gw",), rules), backends=(Backend("d/b"), Backend("d/c")))
    async with model_server("gone") as gone:
        pass
    async with model_server("b", delay_s=0.6) as slow, model_server("c") as alive:
        backends = {"d/b": [slow.address], "d/c": [gone.address, alive.address]}
        async with chain(envoy_binary, tmp_path, topology, backends=backends) as gateway:
            assert (await gateway.post("short"))[0] == 504
            assert (await gateway.post("none"))[0] == 200
            for text in ("", "x" * 200_000):
                for _ in range(8):
                    question = {"model": "two", "prompt": text}
                    async with gateway.session.post(f"{gateway.url}/v1/completions", json=question) as response:
                        assert (len(text), response.status) == (len(text), 200)


async def test_a_limit_asks_at_the_request_and_books_at_the_end(envoy_binary: Path, tmp_path: Path) -> None:
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, llama(per_user()), backends={"d/b": [server.address]}) as gateway,
    ):
        status, _, headers = await gateway.post("llama", x_user_id="ann")
        assert status == 200
        assert headers["x-ratelimit-limit"] == "1000, 1000;w=3600"
        assert headers["x-ratelimit-remaining"] == "7"
        calls = await gateway.limits.calls_become(2)
        assert [call.domain for call in calls] == ["d/gw/http"] * 2
        assert [call.descriptors for call in calls] == [[described(USER, IS_LLAMA)]] * 2
        assert [call.hits for call in calls] == [[0], [TOKENS]]
        # Over the limit: one call, nothing is booked, no model server is asked.
        gateway.limits.over = True
        status, body, headers = await gateway.post("llama", x_user_id="ann")
        assert (status, body, headers["x-envoy-ratelimited"]) == (429, "", "true")
        gateway.limits.over = False
        # Without costs at the end there is nothing to book.
        gateway.gateway.metadata_key = ""
        assert (await gateway.post("llama", x_user_id="ann"))[0] == 200
        gateway.gateway.metadata_key = "llm_total_token"
        await gateway.post("llama", x_user_id="bob")
        calls = await gateway.limits.calls_become(6)
        assert [(call.descriptors[0][1][1], call.hits) for call in calls[2:]] == [
            ("ann", [0]),
            ("ann", [0]),
            ("bob", [0]),
            ("bob", [TOKENS]),
        ]
        assert len(server.seen) == 3


async def test_costs_that_a_picker_tells_are_booked_too(envoy_binary: Path, tmp_path: Path) -> None:
    route = Route("d/r", ("d/gw",), (rule("d/r/rule/0", "llama", Target("d/p", True)),))
    topology = one_listener(route, pools=(Pool("d/p", ("llama",)),), limits=(per_user(),))
    async with (
        model_server("p") as pod,
        chain(envoy_binary, tmp_path, topology, pods={"d/p": pod.address}) as gateway,
    ):
        assert (await gateway.post("llama", x_user_id="ann"))[0] == 200
        assert [call.hits for call in await gateway.limits.calls_become(2)] == [[0], [TOKENS]]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((LimitRule((), 10, Unit.MINUTE),), [(described(("rule-0-match--1", "rule-0-match--1")), None)]),
        (
            (LimitRule((), 10, Unit.MINUTE, shared=True, at_request=Charge(5)),),
            [([("route", "shared/d/p"), ("rule-0-match--1", "rule-0-match--1")], 5)],
        ),
        (
            (
                LimitRule((Selector("k0", "x-tier", Match.EXACT, "gold", invert=True),), 1, Unit.DAY),
                LimitRule((Selector("k1", "x-tier", Match.REGEX, "si.*"),), 1, Unit.DAY),
                LimitRule((Selector("k2", ":path", Match.PREFIX, "/v1/chat"),), 1, Unit.DAY),
                LimitRule((Selector("k3", ":path", Match.PREFIX, "/v1/embed"),), 1, Unit.DAY),
                LimitRule((Selector("k4", ":method", Match.EXACT, "POST"),), 1, Unit.DAY),
            ),
            [(described((key, key)), None) for key in ("k0", "k1", "k2", "k4")],
        ),
    ],
)
async def test_descriptors_of_every_kind_of_rule(
    envoy_binary: Path,
    tmp_path: Path,
    rules: tuple[LimitRule, ...],
    expected: list[tuple[list[tuple[str, str]], int | None]],
) -> None:
    topology = llama(LimitPolicy("d/p", rules, routes=("d/r",)))
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, topology, backends={"d/b": [server.address]}) as gateway,
    ):
        assert (await gateway.post("llama", x_tier="silver"))[0] == 200
        (call,) = gateway.limits.calls
        assert list(zip(call.descriptors, call.hits, strict=True)) == expected


async def test_a_rule_about_paths_books_where_the_path_was_rewritten(envoy_binary: Path, tmp_path: Path) -> None:
    chat = Selector("rule-0-match-0", ":path", Match.PREFIX, "/v1/chat")
    limit = LimitRule((chat,), 1000, Unit.HOUR, at_request=Charge(0), at_response=BOOKED)
    topology = llama(LimitPolicy("d/p", (limit,), gateways=("d/gw",)), prefix="/openai")
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, topology, backends={"d/b": [server.address]}) as gateway,
    ):
        assert (await gateway.post("llama"))[0] == 200
        assert server.seen[0][1] == "/openai/chat/completions"
        assert [call.hits for call in await gateway.limits.calls_become(2)] == [[0], [TOKENS]]


@pytest.mark.parametrize(
    ("sent", "entry"), [({"authorization": "Bearer ann"}, ("k", "Bearer ann")), ({}, ("k-absent", "k-absent"))]
)
async def test_what_is_booked_goes_by_the_clients_key_and_never_by_the_upstreams(
    envoy_binary: Path, tmp_path: Path, sent: dict[str, str], entry: tuple[str, str]
) -> None:
    limit = LimitRule((Selector("k", "authorization", Match.DISTINCT),), 9, Unit.HOUR, Charge(0), BOOKED)
    policy = LimitPolicy("d/p", (limit,), gateways=("d/gw",), absent=Absent.SHARED)
    topology = llama(policy, key=ApiKey(Secret("sk-upstream")))
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, topology, backends={"d/b": [server.address]}) as gateway,
    ):
        assert (await gateway.post("llama", **sent))[0] == 200
        assert server.seen[0][2]["authorization"] == "Bearer sk-upstream"
        calls = await gateway.limits.calls_become(2)
        assert [(call.descriptors, call.hits) for call in calls] == [
            ([described(entry)], [0]),
            ([described(entry)], [TOKENS]),
        ]


ABSENT = ("rule-0-match-0-absent", "rule-0-match-0-absent")


EMPTY = ("rule-0-match-0", "")


@pytest.mark.parametrize(
    ("absent", "headers", "status", "entries"),
    [
        (Absent.UNLIMITED, {}, 200, None),
        (Absent.UNLIMITED, {"x_user_id": ""}, 200, (EMPTY, IS_LLAMA)),
        (Absent.SHARED, {}, 200, (ABSENT, IS_LLAMA)),
        (Absent.SHARED, {"x_user_id": ""}, 200, (EMPTY, IS_LLAMA)),
        (Absent.REJECT, {}, 400, None),
        (Absent.REJECT, {"x_user_id": ""}, 400, None),
    ],
)
async def test_a_request_without_the_header_that_users_are_told_apart_by(
    envoy_binary: Path,
    tmp_path: Path,
    headers: dict[str, str],
    absent: Absent,
    status: int,
    entries: tuple[tuple[str, str], ...] | None,
) -> None:
    rules = (rule("d/r/rule/0", "llama", Target("d/b", False)), rule("d/r/rule/1", "free", Target("d/b", False)))
    topology = one_listener(Route("d/r", ("d/gw",), rules), backends=(Backend("d/b"),), limits=(per_user(absent),))
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, topology, backends={"d/b": [server.address]}) as gateway,
    ):
        found, body, answered = await gateway.post("llama", **headers)
        assert found == status
        if status == 400:
            assert answered["content-type"] == "application/json"
            assert json.loads(body)["error"]["param"] == "x-user-id"
            assert json.loads(body)["error"]["code"] == "header_missing"
        expected = [] if entries is None else [[described(*entries)]] * 2
        calls = await gateway.limits.calls_become(len(expected))
        assert [call.descriptors for call in calls] == expected
        # With the header it is as always, and what no limit is for is none of its business.
        assert (await gateway.post("llama", x_user_id="ann"))[0] == 200
        calls = await gateway.limits.calls_become(len(expected) + 2)
        assert [call.descriptors for call in calls[len(expected) :]] == [[described(USER, IS_LLAMA)]] * 2
        assert (await gateway.post("free"))[0] == 200
        assert len(gateway.limits.calls) == len(expected) + 2


async def test_what_becomes_of_requests_when_a_part_is_away(envoy_binary: Path, tmp_path: Path) -> None:
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, llama(per_user()), backends={"d/b": [server.address]}) as gateway,
    ):
        assert (await gateway.post("llama", x_user_id="ann"))[0] == 200
        await stop(gateway, "ratelimit")
        assert (await gateway.post("llama", x_user_id="ann"))[0] == 200
        await stop(gateway, "gateway")
        assert (await gateway.post("llama", x_user_id="ann"))[0] in (500, 503)
        assert len(server.seen) == 2


async def stop(gateway: Chain, name: str) -> None:
    await gateway.servers[name].stop(None)


async def test_headers_of_answers_that_a_listener_turned_off(envoy_binary: Path, tmp_path: Path) -> None:
    plain = llama(per_user())
    quiet = Listener("d/gw", "http", 80, envoy_headers=False, rate_limit_headers=False)
    topology = Topology((quiet,), plain.routes, backends=plain.backends, limits=plain.limits)
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, topology, backends={"d/b": [server.address]}) as gateway,
    ):
        for over, status in ((False, 200), (True, 429)):
            gateway.limits.over = over
            found, _, headers = await gateway.post("llama", x_user_id="ann")
            assert found == status
            assert not [name for name in headers if name.startswith(("x-envoy-", "x-ratelimit-"))]


async def test_two_listeners_on_one_port_differ_in_their_headers(envoy_binary: Path, tmp_path: Path) -> None:
    listeners = (
        Listener("d/gw", "http", 80, "a.example", rate_limit_headers=False, envoy_headers=False),
        Listener("d/other", "http", 80, "b.example"),
    )
    routes = tuple(
        Route(f"d/{name}", (gateway,), (rule(f"d/{name}/rule/0", "llama", Target("d/b", False)),))
        for name, gateway in (("r", "d/gw"), ("s", "d/other"))
    )
    policy = LimitPolicy("d/p", (PER_USER,), gateways=("d/gw", "d/other"))
    topology = Topology(listeners, routes, backends=(Backend("d/b"),), limits=(policy,))
    async with (
        model_server("b") as server,
        chain(envoy_binary, tmp_path, topology, backends={"d/b": [server.address]}) as gateway,
    ):
        domains = []
        for host, shown in (("a.example", False), ("b.example", True)):
            _, _, headers = await gateway.post("llama", x_user_id="ann", host=host)
            assert ("x-ratelimit-limit" in headers, "x-envoy-upstream-service-time" in headers) == (shown, shown)
            domains.append((await gateway.limits.calls_become(2))[0].domain)
            gateway.limits.over = True
            status, _, headers = await gateway.post("llama", x_user_id="ann", host=host)
            assert status == 429
            # This one belongs to the port: it is there if one of its listeners wants it.
            assert ("x-ratelimit-limit" in headers, "x-envoy-ratelimited" in headers) == (shown, True)
            gateway.limits.over = False
            gateway.limits.calls.clear()
        assert domains == ["d/gw/http", "d/other/http"]


async def test_answers_are_streamed_and_the_client_that_leaves_is_not_charged(
    envoy_binary: Path, tmp_path: Path
) -> None:
    async with (
        model_server("b", delay_s=5.0) as server,
        chain(envoy_binary, tmp_path, llama(per_user()), backends={"d/b": [server.address]}) as gateway,
    ):
        timeout = aiohttp.ClientTimeout(total=0.5)
        with pytest.raises(asyncio.TimeoutError):
            await gateway.session.post(
                f"{gateway.url}/v1/completions", json={"model": "llama"}, headers={"x-user-id": "ann"}, timeout=timeout
            )
        await asyncio.sleep(0.3)
        assert [call.hits for call in gateway.limits.calls] == [[0]]


async def test_two_runs_beside_each_other(envoy_binary: Path, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server("b"))
        for name in ("one", "two"):
            running = chain(envoy_binary, tmp_path / name, llama(), backends={"d/b": [server.address]})
            gateway = await stack.enter_async_context(running)
            assert (await gateway.post("llama"))[0] == 200
