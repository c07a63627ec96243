# SPDX-License-Identifier: Apache-2.0
"""get and list, word for word as the real server answers them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.client import LEASES, PODS, POOLS, Client
from tests.apiserver.objects import pod, pool_v1
from tests.apiserver.server import ApiServer

LABELS = {"app": "vllm"}


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with ApiServer() as running:
        running.apply([pod(f"p{n}", f"10.0.0.{n}", LABELS | {"n": str(n)}) for n in range(5)])
        running.apply(pod("elsewhere", "10.0.1.1", LABELS, namespace="other"))
        running.apply(pool_v1("pool", LABELS))
        yield running


def names(body: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in body["items"]]


def test_items_of_built_in_kinds_do_not_say_their_kind_in_a_list(client: Client) -> None:
    body = client.get(PODS).body
    assert list(body) == ["kind", "apiVersion", "metadata", "items"]
    assert (body["kind"], body["apiVersion"]) == ("PodList", "v1")
    assert names(body) == ["p0", "p1", "p2", "p3", "p4"]
    assert all("kind" not in item and "apiVersion" not in item for item in body["items"])
    one = client.get(f"{PODS}/p0").body
    assert (one["kind"], one["apiVersion"]) == ("Pod", "v1")
    assert one["metadata"]["uid"]
    assert one["metadata"]["creationTimestamp"].endswith("Z")


def test_items_of_custom_resources_say_their_kind(client: Client) -> None:
    body = client.get(POOLS).body
    assert list(body) == ["apiVersion", "items", "kind", "metadata"]
    assert body["kind"] == "InferencePoolList"
    assert body["metadata"]["continue"] == ""
    assert body["items"][0]["kind"] == "InferencePool"
    assert body["items"][0]["apiVersion"] == "inference.networking.k8s.io/v1"
    assert body["items"][0]["metadata"]["generation"] == 1


def test_all_namespaces(client: Client) -> None:
    assert names(client.get("/api/v1/pods").body) == ["p0", "p1", "p2", "p3", "p4", "elsewhere"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"labelSelector": "n in (1,3)"}, ["p1", "p3"]),
        ({"labelSelector": "app=vllm,n notin (0,1),n<4"}, ["p2", "p3"]),
        ({"labelSelector": "!n"}, []),
        ({"fieldSelector": "metadata.name=p2"}, ["p2"]),
        ({"fieldSelector": "metadata.name!=p2,metadata.namespace=kserve-test", "labelSelector": "n>1"}, ["p3", "p4"]),
        ({"fieldSelector": "status.podIP=10.0.0.4"}, ["p4"]),
        ({"fieldSelector": "status.phase=Pending"}, []),
    ],
)
def test_selectors(client: Client, query: dict[str, str], expected: list[str]) -> None:
    assert names(client.get(PODS, **query).body) == expected


def test_a_page_after_the_other_is_of_one_moment(server: ApiServer, client: Client) -> None:
    first = client.get(PODS, limit=2).body
    assert names(first) == ["p0", "p1"]
    assert first["metadata"]["remainingItemCount"] == 3
    server.apply(pod("p2a", "10.0.0.9", LABELS))
    second = client.get(PODS, limit=2, **{"continue": first["metadata"]["continue"]}).body
    assert names(second) == ["p2", "p3"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    third = client.get(PODS, limit=2, **{"continue": second["metadata"]["continue"]}).body
    assert names(third) == ["p4"]
    assert "continue" not in third["metadata"]
    server.delete("pods", "kserve-test", "p2a")


def test_a_page_of_a_forgotten_moment(server: ApiServer, client: Client) -> None:
    token = client.get(PODS, limit=2).body["metadata"]["continue"]
    server.compact()
    gone = client.get(PODS, limit=2, **{"continue": token})
    assert (gone.code, gone.body["reason"], gone.body["code"]) == (410, "Expired", 410)
    assert gone.body["message"].startswith("The provided continue parameter is too old")
    rest = client.get(PODS, **{"continue": gone.body["metadata"]["continue"]}).body
    assert names(rest) == ["p2", "p3", "p4"]


def test_version_0_ignores_the_limit(client: Client) -> None:
    assert len(client.get(PODS, limit=2, resourceVersion=0).body["items"]) == 5


def test_exact_version(server: ApiServer, client: Client) -> None:
    then = client.get(PODS).body["metadata"]["resourceVersion"]
    server.apply(pod("late", "10.0.0.8", LABELS))
    assert "late" not in names(client.get(PODS, resourceVersion=then, resourceVersionMatch="Exact").body)
    server.delete("pods", "kserve-test", "late")
    late = client.get(PODS, resourceVersion=int(then) + 1, resourceVersionMatch="Exact").body
    assert "late" in names(late)


def test_a_version_that_has_not_come_yet(server: ApiServer, client: Client) -> None:
    answer = client.get(PODS, resourceVersion=server.resource_version + 100)
    assert (answer.code, answer.body["reason"]) == (504, "Timeout")
    assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        (
            f"{PODS}/none",
            {},
            {
                "message": 'pods "none" not found',
                "reason": "NotFound",
                "details": {"name": "none", "kind": "pods"},
                "code": 404,
            },
        ),
        (
            f"{LEASES}/none",
            {},
            {
                "message": 'leases.coordination.k8s.io "none" not found',
                "reason": "NotFound",
                "details": {"name": "none", "group": "coordination.k8s.io", "kind": "leases"},
                "code": 404,
            },
        ),
        (
            PODS,
            {"fieldSelector": "spec.x=1"},
            {
                "message": 'Unable to find "/v1, Resource=pods" that match label selector "", field selector "spec.x=1": '
                "field label not supported: spec.x",
                "reason": "BadRequest",
                "code": 400,
            },
        ),
        (
            PODS,
            {"resourceVersion": "abc"},
            {
                "message": 'invalid resource version "abc": strconv.ParseUint: parsing "abc": invalid syntax',
                "reason": "BadRequest",
                "code": 400,
            },
        ),
    ],
)
def test_refusals_are_statuses(client: Client, path: str, query: dict[str, str], status: dict[str, Any]) -> None:
    answer = client.get(path, **query)
    common = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    assert answer.body == common | status
    assert answer.code == status["code"]


def test_what_is_not_served_is_told_by_a_text(client: Client) -> None:
    for path in ("/apis/none.example/v1/things", f"/api/v1{'/namespaces/x'}/things", "/nothing"):
        answer = client.get(path)
        assert (answer.code, answer.body) == (404, b"404 page not found\n")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_large_answers_are_compressed_for_who_takes_it(server: ApiServer, client: Client) -> None:
    server.apply([pod(f"big{n}", "10.0.2.1", {"big": "1"}, namespace="big") for n in range(20)])
    path = "/api/v1/namespaces/big/pods"
    answer = client.ask("GET", path, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(answer.body))["items"]) == 20
    assert "Content-Encoding" not in client.get(path).headers
    small = client.ask("GET", PODS, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in small.headers


def test_objects_with_wrong_types_are_served_as_they_are(server: ApiServer, client: Client) -> None:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "odd", "namespace": "odd", "labels": ["a"]},
        "status": 7,
    }
    server.apply(body)
    found = client.get("/api/v1/namespaces/odd/pods").body["items"][0]
    assert (found["status"], found["metadata"]["labels"]) == (7, ["a"])
    assert client.get("/api/v1/namespaces/odd/pods", labelSelector="a").body["items"] == []
