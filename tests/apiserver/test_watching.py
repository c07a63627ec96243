# SPDX-License-Identifier: Apache-2.0
"""watch: replay, selectors, bookmarks, the end of a stream, and 410 in both its forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.client import LEASES, NS, PODS, POOLS, Client, seen
from tests.apiserver.objects import not_ready, pod, pool_v1, ready
from tests.apiserver.server import ApiServer

LABELS = {"app": "vllm"}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(bookmark_s=0.05) as running:
        yield running


def a_pod(name: str, **fields: Any) -> dict[str, Any]:
    return pod(name, "10.0.0.1", LABELS, **fields)


def version(client: Client, path: str = PODS) -> str:
    return str(client.get(path).body["metadata"]["resourceVersion"])


def drain(client: Client, path: str, **query: Any) -> list[tuple[str, str]]:
    """What a watch of zero length tells: the history."""
    return [seen(event) for event in client.watch(path, **query)]


def test_changes_arrive_as_they_happen(server: ApiServer, client: Client) -> None:
    events = client.watch(PODS, resourceVersion=version(client), timeoutSeconds=30)
    server.apply(a_pod("a"))
    added = next(events)
    assert seen(added) == ("ADDED", "a")
    assert (added["object"]["kind"], added["object"]["apiVersion"]) == ("Pod", "v1")
    server.patch("pods", "kserve-test", "a", not_ready())
    changed = next(events)
    assert seen(changed) == ("MODIFIED", "a")
    assert changed["object"]["status"]["conditions"][2]["status"] == "False"
    server.delete("pods", "kserve-test", "a")
    gone = next(events)
    assert seen(gone) == ("DELETED", "a")
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in (added, changed, gone)]
    assert versions == sorted(set(versions))


def test_headers_come_before_the_first_event(server: ApiServer, client: Client) -> None:
    """A client must not wait for a change to learn that it is watching."""
    response = client.open(LEASES, resourceVersion=version(client), timeoutSeconds=600)
    assert response.status == 200
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert server.watching == 1
    server.drop_watches()
    assert response.read() == b""


def test_the_history_is_replayed_from_a_version(server: ApiServer, client: Client) -> None:
    start = version(client)
    server.apply([a_pod("a"), a_pod("b")])
    server.delete("pods", "kserve-test", "a")
    told = client.watch(PODS, resourceVersion=start, timeoutSeconds=1)
    assert [seen(next(told)) for _ in range(3)] == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a")]


@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}])
def test_without_a_version_what_is_there_is_added_first(
    server: ApiServer, client: Client, query: dict[str, str]
) -> None:
    server.apply([a_pod("a"), a_pod("b")])
    server.delete("pods", "kserve-test", "a")
    events = client.watch(PODS, timeoutSeconds=30, **query)
    assert seen(next(events)) == ("ADDED", "b")
    server.apply(a_pod("c"))
    assert seen(next(events)) == ("ADDED", "c")


def test_leaving_a_selector_is_a_deletion(server: ApiServer, client: Client) -> None:
    events = client.watch(PODS, resourceVersion=version(client), labelSelector="app=vllm", timeoutSeconds=30)
    server.apply(a_pod("a"))
    assert seen(next(events)) == ("ADDED", "a")
    server.patch("pods", "kserve-test", "a", {"metadata": {"labels": {"app": "other"}}})
    gone = next(events)
    assert seen(gone) == ("DELETED", "a")
    assert gone["object"]["metadata"]["labels"] == LABELS
    assert int(gone["object"]["metadata"]["resourceVersion"]) == server.resource_version
    server.patch("pods", "kserve-test", "a", {"metadata": {"labels": {"app": "vllm"}}})
    assert seen(next(events)) == ("ADDED", "a")


def test_a_field_selector_and_a_namespace(server: ApiServer, client: Client) -> None:
    start = version(client)
    server.apply([pool_v1("x", LABELS), pool_v1("y", LABELS), pool_v1("x", LABELS, namespace="other")])
    events = client.watch(POOLS, resourceVersion=start, fieldSelector="metadata.name=x", timeoutSeconds=1)
    assert [seen(event) for event in events] == [("ADDED", "x")]


def test_nothing_changed_nothing_told(server: ApiServer, client: Client) -> None:
    server.apply(a_pod("a"))
    start = version(client)
    server.patch("pods", "kserve-test", "a", ready())
    assert version(client) == start


def test_bookmarks_only_when_asked_for(server: ApiServer, client: Client) -> None:
    server.apply(a_pod("a"))
    events = client.watch(PODS, resourceVersion=version(client), allowWatchBookmarks="true", timeoutSeconds=30)
    server.apply(pool_v1("x", LABELS))
    mark = next(events)
    while mark["object"]["metadata"]["resourceVersion"] != str(server.resource_version):
        mark = next(events)
    assert mark == {
        "type": "BOOKMARK",
        "object": {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(server.resource_version), "creationTimestamp": None},
            "spec": {"containers": None},
            "status": {},
        },
    }
    with Client(server) as other:
        assert drain(other, PODS, resourceVersion=server.resource_version, timeoutSeconds=1) == []


def test_a_stream_ends_in_time_and_with_a_bookmark(server: ApiServer, client: Client) -> None:
    server._web.bookmark_s = 60.0
    start = version(client)
    events = list(client.watch(PODS, resourceVersion=start, allowWatchBookmarks="true", timeoutSeconds=1))
    assert [event["type"] for event in events] == ["BOOKMARK"]
    assert client.get(PODS).code == 200


def test_streaming_list(server: ApiServer, client: Client) -> None:
    server.apply(a_pod("a"))
    query = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "30"}
    with Client(server) as other:
        refused = other.get(PODS, watch="1", **query)
        assert (refused.code, refused.body["reason"]) == (422, "Invalid")
    events = client.watch(PODS, resourceVersionMatch="NotOlderThan", **query)
    assert seen(next(events)) == ("ADDED", "a")
    end = next(events)
    assert end["type"] == "BOOKMARK"
    assert end["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_a_forgotten_version_is_an_error_event(server: ApiServer, client: Client) -> None:
    start = version(client)
    server.apply(a_pod("a"))
    server.compact()
    (event,) = client.watch(PODS, resourceVersion=start, timeoutSeconds=30)
    assert event["type"] == "ERROR"
    status = event["object"]
    assert (status["kind"], status["code"], status["reason"], status["status"]) == ("Status", 410, "Expired", "Failure")
    assert status["message"] == f"too old resource version: {start} ({server.resource_version})"


def test_a_forgotten_version_is_a_status(server: ApiServer, client: Client) -> None:
    start = version(client)
    server.compact(as_status=True)
    answer = client.get(PODS, watch="1", resourceVersion=start)
    assert (answer.code, answer.body["reason"]) == (410, "Expired")


def test_a_running_watch_outlives_the_forgetting(server: ApiServer, client: Client) -> None:
    events = client.watch(PODS, resourceVersion=version(client), timeoutSeconds=30)
    server.apply(a_pod("a"))
    assert seen(next(events)) == ("ADDED", "a")
    server.compact()
    server.apply(a_pod("b"))
    assert seen(next(events)) == ("ADDED", "b")


def test_a_history_that_is_too_short(client: Client) -> None:
    with ApiServer(history=10) as server, Client(server) as other:
        start = version(other)
        server.apply([a_pod(f"p{n}") for n in range(20)])
        (event,) = other.watch(PODS, resourceVersion=start, timeoutSeconds=30)
        assert event["object"]["code"] == 410
        assert other.get(f"/api/v1{NS}/pods").code == 200


def test_uninstalling_a_kind_ends_its_watches(server: ApiServer, client: Client) -> None:
    server.apply(pool_v1("x", LABELS))
    events = client.watch(POOLS, timeoutSeconds=30)
    assert seen(next(events)) == ("ADDED", "x")
    server.rules.uninstall("inference.networking.k8s.io")
    assert list(events) == []
    assert client.get(POOLS, watch="1").code == 404
    server.rules.install("inference.networking.k8s.io")
    assert client.get(POOLS).code == 200
