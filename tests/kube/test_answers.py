# SPDX-License-Identifier: Apache-2.0
"""From refusals to lines: one line each, stable, with the verb, the resource and the remedy."""

from __future__ import annotations

import pytest

from epp.kube.answers import Details, Request, Status, no_answer, read_status, refusal
from epp.kube.errors import ApiError, Conflict, Forbidden, Gone, Missing, TooMany, Unauthorized
from epp.kube.reach import silence_of
from epp.kube.resource import LEASES, OBJECTIVES_X, PODS, POOLS, TOKEN_REVIEWS, Resource

PODS_IN_X = Request("watch", PODS, "x")
POOL = Request("get", POOLS, "x", "pool")


@pytest.mark.parametrize(
    ("request_", "code", "status", "kind", "line"),
    [
        (
            PODS_IN_X, 403, Status(message="pods is forbidden:\n no"), Forbidden,
            ('watch pods in namespace "x": 403 pods is forbidden: no; '
            'grant verb "watch" on "pods" in namespace "x" to our service account by a Role'),
        ),
        (
            Request("create", TOKEN_REVIEWS), 403, Status(), Forbidden,
            ("create tokenreviews.authentication.k8s.io: 403 no reason given; "
            'grant verb "create" on "tokenreviews.authentication.k8s.io" to our service account by a ClusterRole'),
        ),
        (
            Request("get", Resource("g.io", "v1", "*", ""), url="/apis/g.io/v1"), 403, Status(), Forbidden,
            ('get /apis/g.io/v1: 403 no reason given; grant "get" on the non-resource URL "/apis/g.io/v1", '
            "as system:discovery does"),
        ),
        (
            POOL, 404, Status(message="not found", details=Details(name="pool")), Missing,
            ('get inferencepools.inference.networking.k8s.io "pool" in namespace "x": 404 not found; '
            "create it, or name one that is there"),
        ),
        (
            POOL, 404, Status(message="404 page not found"), Missing,
            ('get inferencepools.inference.networking.k8s.io "pool" in namespace "x": 404 page not found; '
            "install the CRD inferencepools.inference.networking.k8s.io with version v1"),
        ),
        (
            Request("list", OBJECTIVES_X), 404, Status(reason="NotFound"), Missing,
            ("list inferenceobjectives.inference.networking.x-k8s.io: 404 NotFound; "
            "install the CRD inferenceobjectives.inference.networking.x-k8s.io with version v1alpha2"),
        ),
        (
            Request("create", LEASES, "x"), 404, Status(message="no", details=Details(name="x")), Missing,
            'create leases.coordination.k8s.io in namespace "x": 404 no; create the namespace "x"',
        ),
        (
            Request("list", PODS, "x"), 404, Status(message="no"), Missing,
            'list pods in namespace "x": 404 no; check that this is the URL of a Kubernetes API server',
        ),
        (
            PODS_IN_X, 401, Status(message="Unauthorized"), Unauthorized,
            ('watch pods in namespace "x": 401 Unauthorized; the API server does not accept a test; '
            "renew that token or certificate"),
        ),
        (
            PODS_IN_X, 409, Status(message="m"), Conflict,
            'watch pods in namespace "x": 409 m; somebody else was first; read the object again',
        ),
        (PODS_IN_X, 410, Status(message="m"), Gone, 'watch pods in namespace "x": 410 m; list again'),
        (
            PODS_IN_X, 429, Status(message="m"), TooMany,
            'watch pods in namespace "x": 429 m; the API server is busy; it is asked again later',
        ),
        (
            PODS_IN_X, 503, Status(message="m"), ApiError,
            'watch pods in namespace "x": 503 m; the API server is in trouble; it is asked again later',
        ),
        (
            PODS_IN_X, 422, Status(message="m"), ApiError,
            ('watch pods in namespace "x": 422 m; the API server does not take this request; '
            "check its version and that of the CRDs"),
        ),
    ],
)  # fmt: skip
def test_lines(request_: Request, code: int, status: Status, kind: type[ApiError], line: str) -> None:
    error = refusal(request_, code, status, {}, "a test")
    assert type(error) is kind
    assert str(error) == line
    assert (error.status, error.verb, error.resource) == (code, request_.verb, request_.resource)


@pytest.mark.parametrize(
    ("code", "text", "seconds"),
    [
        (429, "7", 7.0),
        (503, "7", 7.0),
        (429, "99999", 300.0),
        (429, "Wed, 21 Oct 2015", 0.0),
        (429, "-1", 0.0),
        (403, "7", 0.0),
    ],
)
def test_retry_after(code: int, text: str, seconds: float) -> None:
    assert refusal(PODS_IN_X, code, Status(), {"Retry-After": text}, "").retry_after_s == seconds


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), ("1e9", 300.0), ("-1", 0.0), ("null", 0.0), ('"x"', 0.0)])
def test_retry_after_in_the_status(said: str, seconds: float) -> None:
    status = read_status(b'{"code": 429, "details": {"retryAfterSeconds": %s}}' % said.encode())
    assert refusal(PODS_IN_X, 429, status, {}, "").retry_after_s == seconds


@pytest.mark.parametrize("body", [b"", b"<html>\n</html>", b"\xff", b"[]", b'{"code": []}', b"x" * 10_000])
def test_answers_that_are_no_status(body: bytes) -> None:
    line = str(refusal(PODS_IN_X, 500, read_status(body), {}, ""))
    assert line.startswith('watch pods in namespace "x": 500 ')
    assert "\n" not in line
    assert len(line) < 500


def test_a_failure_without_words() -> None:
    assert "no answer from https://s: ValueError; check that it runs" in str(
        no_answer(PODS_IN_X, "https://s", silence_of(ValueError()))
    )
