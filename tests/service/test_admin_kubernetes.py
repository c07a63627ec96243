# SPDX-License-Identifier: Apache-2.0
"""The metrics port in a cluster: real reviews over HTTPS, roles that lack them, an API server that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from epp.admin import Admin
from epp.admin.review import Reviewer, on_loop
from epp.kube.access import find_access
from epp.kube.api import Api
from epp.observe.degraded import Degraded
from epp.observe.metrics.page import MetricsRegistry
from tests.apiserver.server import ApiServer
from tests.service.test_admin import HOST, get

PROMETHEUS = "system:serviceaccount:monitoring:prometheus"


@contextlib.contextmanager
def picker(cluster: ApiServer) -> Iterator[tuple[int, Degraded]]:
    """An admin server that asks `cluster`; its port, and what is degraded."""
    access = find_access(cluster.environ, service_account=cluster.service_account)
    assert access is not None
    loop, degraded = asyncio.new_event_loop(), Degraded()
    api = Api(access)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    admin = Admin(HOST, 0, MetricsRegistry(), lambda: None, review=on_loop(Reviewer(api, degraded.tell), loop))
    try:
        yield admin.port, degraded
    finally:
        admin.close()
        asyncio.run_coroutine_threadsafe(api.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def scrape(port: int, token: str | None, path: str = "/metrics") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, _, body = get(port, path, headers=headers)
    return status, body.decode()


def test_a_scraper_of_the_cluster() -> None:
    with ApiServer() as cluster:
        cluster.users["known"] = (PROMETHEUS, ("system:serviceaccounts",))
        cluster.users["stranger"] = ("system:serviceaccount:a:b", ("system:serviceaccounts",))
        cluster.may(PROMETHEUS, "get", "/metrics")
        with picker(cluster) as (port, degraded):
            for _ in range(5):
                assert scrape(port, "known")[0] == 200
            assert len(cluster.asked("create", "tokenreviews")) == 1
            assert len(cluster.asked("create", "subjectaccessreviews")) == 1
            assert scrape(port, "known", "/metrics/")[0] == 403
            assert scrape(port, "stranger")[0] == 403
            assert scrape(port, "forged")[0] == 401
            assert scrape(port, None)[0] == 401
            assert degraded.lines() == []


def test_a_group_may_read() -> None:
    """Every authenticated user, by a binding to the group that TokenReview or we add."""
    with ApiServer() as cluster:
        cluster.users["known"] = (PROMETHEUS, ())
        cluster.may("system:authenticated", "get", "/metrics")
        with picker(cluster) as (port, _):
            assert scrape(port, "known")[0] == 200


@pytest.mark.parametrize("missing", ["tokenreviews", "subjectaccessreviews"])
def test_a_role_without_reviews(missing: str, caplog: pytest.LogCaptureFixture) -> None:
    """KServe's roles and the conformance fixture's have none of them: the page is closed, the rest goes on."""
    with ApiServer() as cluster:
        cluster.users["known"] = (PROMETHEUS, ())
        cluster.may(PROMETHEUS, "get", "/metrics")
        cluster.rules.deny("create", missing)
        with picker(cluster) as (port, degraded):
            for _ in range(3):
                status, body = scrape(port, "known")
                assert status == 500
                assert f"lacks the verb create on {missing}.auth" in body
            [line] = degraded.lines()
            assert line == f"metrics-auth: {body.strip()}"
            assert "ClusterRole system:auth-delegator" in line
            assert "--metrics-endpoint-auth=false" in line
            assert get(port, "/healthz")[0] == 200
            assert [record.getMessage() for record in caplog.records] == [line]
            cluster.rules.reset()
            assert scrape(port, "known")[0] == 200
            assert degraded.lines() == []


def test_an_api_server_that_goes_away_and_comes_back() -> None:
    with ApiServer() as cluster:
        cluster.users["known"] = (PROMETHEUS, ())
        cluster.may(PROMETHEUS, "get", "/metrics")
        with picker(cluster) as (port, degraded):
            assert scrape(port, "known")[0] == 200
            cluster.away()
            assert scrape(port, "known")[0] == 200, "kept for a minute"
            status, body = scrape(port, "other")
            assert (status, body) == (
                500,
                "the API server could not be asked who this is; the picker's log says why\n",
            )
            [line] = degraded.lines()
            assert "tokenreviews.authentication.k8s.io" in line
            assert "other" not in line
            assert get(port, "/healthz")[0] == 200
            cluster.back()
            assert scrape(port, "other")[0] == 401
            assert degraded.lines() == []


def test_our_own_token_is_replaced() -> None:
    with ApiServer() as cluster:
        cluster.users["known"] = (PROMETHEUS, ())
        cluster.may(PROMETHEUS, "get", "/metrics")
        with picker(cluster) as (port, degraded):
            assert scrape(port, "nobody")[0] == 401
            cluster.rotate_token()
            assert scrape(port, "known")[0] == 200
            assert degraded.lines() == []
