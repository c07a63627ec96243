# SPDX-License-Identifier: Apache-2.0
"""Who may read the metrics page: TokenReview, SubjectAccessReview, what is kept of the answers, what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from epp.admin import Admin, review
from epp.admin.access import Review, Verdict, bearer_token
from epp.admin.pages import Answer
from epp.admin.review import MATTER, Reviewer, on_loop
from epp.kube.errors import ApiError, Forbidden, Unreachable
from epp.kube.resource import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource
from epp.observe.metrics.page import MetricsRegistry
from epp.testing import FakeClock
from tests.service.test_admin import HOST, get

ALICE = {"username": "system:serviceaccount:monitoring:alice", "uid": "1", "groups": ["system:serviceaccounts"]}
PAGE = "/debug/decisions"


class Cluster:
    """The two reviews of an API server: tokens known, users that may get paths. `broken` is raised instead."""

    def __init__(self) -> None:
        self.tokens: dict[str, dict[str, Any]] = {"alice": ALICE, "bob": {"username": "bob"}}
        self.may = {(ALICE["username"], "/metrics", "get")}
        self.broken: dict[str, ApiError] = {}
        self.asked: list[dict[str, Any]] = []
        self.gate: asyncio.Event | None = None

    async def create(self, resource: Resource, namespace: str | None, body: Any, decode: type[Any]) -> Any:
        assert namespace is None
        sent = msgspec.json.decode(msgspec.json.encode(body))
        assert (sent["apiVersion"], sent["kind"]) == (resource.api_version, resource.kind)
        self.asked.append(sent)
        if self.gate is not None:
            await self.gate.wait()
        if resource.plural in self.broken:
            raise self.broken[resource.plural]
        if resource == TOKEN_REVIEWS:
            user = self.tokens.get(sent["spec"]["token"])
            status = {"authenticated": True, "user": user} if user else {"error": "invalid bearer token"}
        else:
            assert resource == SUBJECT_ACCESS_REVIEWS
            spec = sent["spec"]
            asked = spec["user"], spec["nonResourceAttributes"]["path"], spec["nonResourceAttributes"]["verb"]
            status = {"allowed": asked in self.may, "reason": "x"}
        return msgspec.json.decode(msgspec.json.encode(sent | {"status": status}), type=decode)

    def kinds(self) -> list[str]:
        """What was asked, in order; forgets it."""
        kinds = [sent["kind"] for sent in self.asked]
        self.asked.clear()
        return kinds


class Told(dict[str, str | None]):
    """What is degraded now."""

    def tell(self, what: str, line: str | None) -> None:
        self[what] = line


def made() -> tuple[Cluster, Told, FakeClock, Reviewer]:
    cluster, told, clock = Cluster(), Told(), FakeClock()
    return cluster, told, clock, Reviewer(cluster, told.tell, clock=clock)


TOKEN, ACCESS = "TokenReview", "SubjectAccessReview"


async def test_what_is_asked() -> None:
    cluster, told, _, reviewer = made()
    cluster.tokens["alice"] = ALICE | {"extra": {"pod": ["p"]}}
    assert await reviewer.verdict("alice", "/metrics", "get") == Verdict(200)
    token, access = cluster.asked
    assert token["spec"] == {"token": "alice"}
    assert access["spec"] == {
        "user": ALICE["username"],
        "uid": "1",
        "groups": ["system:serviceaccounts", "system:authenticated"],
        "extra": {"pod": ["p"]},
        "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
    }
    assert told == {MATTER: None}


async def test_who_may_not() -> None:
    cluster, _, _, reviewer = made()
    for token, path, verb, status, said in (
        ("eve", "/metrics", "get", 401, "does not know this token"),
        (
            "bob",
            "/metrics",
            "get",
            403,
            "bob may not read this page: grant it the verb get on the nonResourceURL /metr",
        ),
        ("alice", "/metrics", "head", 403, "verb head"),
        ("alice", PAGE, "get", 403, f"nonResourceURL {PAGE}"),
    ):
        verdict = await reviewer.verdict(token, path, verb)
        assert verdict.status == status
        assert said in verdict.line
        assert "alice" not in verdict.line or token == "alice"
    cluster.tokens["odd"] = {"username": "a\nb"}
    assert "'a\\nb' may not" in (await reviewer.verdict("odd", "/metrics", "get")).line


async def test_answers_are_kept_for_their_time() -> None:
    """Seconds: known tokens 60, unknown 10, allowed 300, denied 30."""
    cluster, _, clock, reviewer = made()

    async def ask(token: str, seconds_later: float) -> list[str]:
        clock.advance(seconds_later)
        await reviewer.verdict(token, "/metrics", "get")
        return cluster.kinds()

    assert await ask("alice", 0) == [TOKEN, ACCESS]
    assert await ask("alice", 59) == []
    assert await ask("alice", 2) == [TOKEN]
    assert await ask("alice", 238) == [TOKEN]
    assert await ask("alice", 2) == [ACCESS]
    assert await ask("bob", 0) == [TOKEN, ACCESS]
    assert await ask("bob", 29) == []
    assert await ask("bob", 2) == [ACCESS]
    assert await ask("eve", 0) == [TOKEN]
    assert await ask("eve", 9) == []
    assert await ask("eve", 2) == [TOKEN]


async def test_a_token_that_is_taken_back_is_known_for_a_minute() -> None:
    cluster, _, clock, reviewer = made()
    assert (await reviewer.verdict("alice", "/metrics", "get")).status == 200
    del cluster.tokens["alice"]
    assert (await reviewer.verdict("alice", "/metrics", "get")).status == 200
    clock.advance(61)
    assert (await reviewer.verdict("alice", "/metrics", "get")).status == 401


async def test_what_is_kept_is_bounded_and_holds_no_token() -> None:
    cluster, _, _, reviewer = made()
    for number in range(1500):
        await reviewer.verdict(f"secret-{number}", "/metrics", "get")
    cluster.kinds()
    assert len(reviewer._tokens._answers) == 1024
    assert b"secret" not in b"".join(reviewer._tokens._answers)
    assert "secret" not in repr(vars(reviewer))
    await reviewer.verdict("secret-1499", "/metrics", "get")
    assert cluster.kinds() == []
    await reviewer.verdict("secret-0", "/metrics", "get")
    assert cluster.kinds() == [TOKEN]
    for number in range(5000):
        await reviewer.verdict("alice", f"/{number}", "get")
    assert len(reviewer._access._answers) == 4096


async def test_a_user_of_many_groups_is_not_kept() -> None:
    cluster, _, _, reviewer = made()
    cluster.tokens["admin"] = ALICE | {"groups": [f"group-{number}" for number in range(3000)]}
    for kinds in ([TOKEN, ACCESS], [TOKEN]):
        assert (await reviewer.verdict("admin", "/metrics", "get")).status == 200
        assert cluster.kinds() == kinds


async def test_without_the_right_to_ask() -> None:
    cluster, told, _, reviewer = made()
    for resource in (TOKEN_REVIEWS, SUBJECT_ACCESS_REVIEWS):
        cluster.broken[resource.plural] = Forbidden("403", status=403, verb="create", resource=resource)
        for _ in range(2):
            verdict = await reviewer.verdict("alice", "/metrics", "get")
            assert verdict.status == 500
            line = told[MATTER]
            assert line == verdict.line
            assert f"lacks the verb create on {resource}; " in line
            assert "ClusterRole system:auth-delegator" in line
            assert "--metrics-endpoint-auth=false" in line
        del cluster.broken[resource.plural]
        if resource == TOKEN_REVIEWS:
            assert "tokenreviews.authentication.k8s.io" in line
    # A token that is not known says nothing about the second question.
    assert (await reviewer.verdict("eve", "/metrics", "get")).status == 401
    assert told[MATTER] == line
    assert (await reviewer.verdict("alice", "/metrics", "get")).status == 200
    assert told[MATTER] is None


async def test_an_api_server_that_is_away_is_asked_again() -> None:
    cluster, told, _, reviewer = made()
    cluster.broken["tokenreviews"] = Unreachable("https://10.0.0.1: connection refused", resource=TOKEN_REVIEWS)
    verdict = await reviewer.verdict("alice", "/metrics", "get")
    assert (verdict.status, "10.0.0.1" in verdict.line) == (500, False)
    assert told[MATTER] == "nobody can be let in to the metrics page: https://10.0.0.1: connection refused"
    cluster.broken.clear()
    assert (await reviewer.verdict("alice", "/metrics", "get")).status == 200
    assert told[MATTER] is None


async def test_an_api_server_that_says_nothing() -> None:
    cluster, told = Cluster(), Told()
    cluster.gate = asyncio.Event()
    reviewer = Reviewer(cluster, told.tell, limit_s=0.05)
    assert (await reviewer.verdict("alice", "/metrics", "get")).status == 500
    assert told[MATTER] == "nobody can be let in to the metrics page: no answer within 0.05 s"


async def test_few_questions_at_once() -> None:
    cluster, _, _, reviewer = made()
    cluster.gate = asyncio.Event()
    asking = [asyncio.create_task(reviewer.verdict("alice", "/metrics", "get")) for _ in range(50)]
    asking += [asyncio.create_task(reviewer.verdict(f"eve-{number}", "/metrics", "get")) for number in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert cluster.kinds() == [TOKEN] * 4
    cluster.gate.set()
    verdicts = await asyncio.gather(*asking)
    assert [verdict.status for verdict in verdicts] == [200] * 50 + [401] * 50
    # The first four, and their four permissions, were on their way together; the others found the answers.
    assert len([sent for sent in cluster.asked if sent["kind"] == TOKEN]) == 50
    assert len([sent for sent in cluster.asked if sent["kind"] == ACCESS]) <= 4


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("  BEARER abc  ", "abc"),
        ("Bearer abc def", "abc"),
        ("Bearer", None),
        ("Bearer  abc", None),
        ("Basic abc", None),
        ("abc", None),
        ("", None),
        ("Bearer \x80", None),
    ],
)
def test_tokens_of_headers(header: str, token: str | None) -> None:
    assert bearer_token(header) == token


@contextlib.contextmanager
def served(asked: Review | None) -> Iterator[int]:
    server = Admin(
        HOST,
        0,
        MetricsRegistry(),
        lambda: None,
        {PAGE: lambda query: Answer("200 OK", "application/json", b"{}")},
        review=asked,
    )
    try:
        yield server.port
    finally:
        server.close()


def ask(port: int, path: str, token: str | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    return get(port, path, method, headers={"Authorization": f"Bearer {token}"} if token else {})


@contextlib.contextmanager
def loop_of_its_own() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_pages_over_http() -> None:
    cluster, told, _, reviewer = made()
    cluster.may.add((ALICE["username"], PAGE, "get"))
    with loop_of_its_own() as loop, served(on_loop(reviewer, loop)) as port:
        for path in ("/healthz", "/livez", "/readyz"):
            assert ask(port, path)[0] == 200
        assert ask(port, "/nothing")[0] == 404
        assert cluster.kinds() == []
        for path in ("/metrics", "/metrics/", PAGE):
            status, headers, body = ask(port, path)
            assert (status, headers["www-authenticate"]) == (401, "Bearer")
            assert b"Authorization: Bearer TOKEN" in body
            assert ask(port, path, "eve")[0] == 401
            assert ask(port, path, "bob")[0] == 403
        assert ask(port, "/metrics", "alice")[0] == 200
        assert ask(port, "/metrics?x=1", "alice")[0] == 200
        assert ask(port, PAGE, "alice")[::2] == (200, b"{}")
        assert ask(port, PAGE, "alice", "POST")[0] == 403
        # Another path is another permission.
        assert ask(port, "/metrics/", "alice")[0] == 403
        cluster.broken["tokenreviews"] = Forbidden("", status=403, resource=TOKEN_REVIEWS)
        status, _, body = ask(port, "/metrics", "frank")
        assert (status, body.decode()) == (500, f"{told[MATTER]}\n")
        assert ask(port, "/healthz")[0] == 200


def test_a_loop_that_does_not_turn_or_is_gone() -> None:
    _, _, _, reviewer = made()
    with loop_of_its_own() as loop:
        held = threading.Event()
        asked = on_loop(reviewer, loop, patience_s=0.05)
        loop.call_soon_threadsafe(held.wait)
        assert asked("alice", "/metrics", "get").status == 500
        held.set()
    assert asked("alice", "/metrics", "get") == Verdict(500, "the picker has stopped")


def test_probes_are_answered_while_nobody_can_be_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """More scrapers than connections, and an API server that says nothing."""
    monkeypatch.setattr(review, "_PLACE_S", 0.01)
    monkeypatch.setattr(review, "_MOST_WAITING", 4)
    cluster, _, _, reviewer = made()
    with loop_of_its_own() as loop, served(on_loop(reviewer, loop)) as port:
        cluster.gate = asyncio.Event()
        statuses: list[int] = []
        asking = [
            threading.Thread(target=lambda: statuses.append(ask(port, "/metrics", "alice")[0])) for _ in range(80)
        ]
        for thread in asking:
            thread.start()
        while len(statuses) < 76:
            assert get(port, "/healthz")[0] == 200
        loop.call_soon_threadsafe(cluster.gate.set)
        for thread in asking:
            thread.join(10)
        assert sorted(statuses) == [200] * 4 + [500] * 76


def test_a_review_that_fails_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    def fail(token: str, path: str, verb: str) -> Verdict:
        raise RuntimeError("broken")

    with served(fail) as port:
        assert ask(port, "/metrics", "alice")[0] == 500
    [record] = caplog.records
    assert "broken" in record.getMessage()
    assert "alice" not in record.getMessage()


def test_without_a_review_everybody_may_read() -> None:
    with served(None) as port:
        assert ask(port, "/metrics")[0] == 200
        assert ask(port, PAGE, "whoever")[0] == 200
