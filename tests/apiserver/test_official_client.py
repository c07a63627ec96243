# SPDX-License-Identifier: Apache-2.0
"""The official Python client of Kubernetes gets along with the stand-in: what it was written against is the real server."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.objects import pod, pool_v1
from tests.apiserver.server import ApiServer

kubernetes = pytest.importorskip("kubernetes", reason="the official client (package kubernetes) is not installed")

NS = "kserve-test"
LABELS = {"app": "vllm"}
TIME = datetime.datetime(2026, 8, 6, 9, 12, 44, 123456, tzinfo=datetime.UTC)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(bookmark_s=0.05) as running:
        running.apply([pod(name, "10.0.0.1", LABELS) for name in ("a", "b", "c")])
        running.apply(pool_v1("x", LABELS))
        yield running


@pytest.fixture(params=["token", "certificate"])
def api(request: pytest.FixtureRequest, server: ApiServer, tmp_path: Path) -> Iterator[Any]:
    config = server.kubeconfig(tmp_path / "config", auth=request.param, inline=request.param == "certificate")
    with kubernetes.config.new_client_from_config(str(config)) as made:
        yield made


def lease(holder: str) -> Any:
    spec = kubernetes.client.V1LeaseSpec(holder_identity=holder, lease_duration_seconds=15, renew_time=TIME)
    return kubernetes.client.V1Lease(metadata=kubernetes.client.V1ObjectMeta(name="epp"), spec=spec)


def test_list_by_pages(api: Any) -> None:
    core = kubernetes.client.CoreV1Api(api)
    first = core.list_namespaced_pod(NS, limit=2, label_selector="app=vllm")
    second = core.list_namespaced_pod(NS, limit=2, label_selector="app=vllm", _continue=first.metadata._continue)
    assert [one.metadata.name for one in (*first.items, *second.items)] == ["a", "b", "c"]
    assert first.items[0].status.pod_ip == "10.0.0.1"
    assert first.items[0].spec.containers[0].ports[0].container_port == 8000
    assert first.items[0].metadata.creation_timestamp.tzinfo is not None


def test_watch_as_things_change(api: Any, server: ApiServer) -> None:
    core = kubernetes.client.CoreV1Api(api)
    watch = kubernetes.watch.Watch()
    start = core.list_namespaced_pod(NS).metadata.resource_version
    events = watch.stream(core.list_namespaced_pod, NS, resource_version=start, timeout_seconds=30)
    server.patch("pods", NS, "a", {"metadata": {"labels": {"more": "1"}}})
    server.delete("pods", NS, "b")
    server.apply(pod("d", "10.0.0.4", LABELS))
    told = [next(events) for _ in range(3)]
    watch.stop()
    assert [(one["type"], one["object"].metadata.name) for one in told] == [
        ("MODIFIED", "a"),
        ("DELETED", "b"),
        ("ADDED", "d"),
    ]


def test_a_watch_from_long_ago(api: Any, server: ApiServer) -> None:
    core = kubernetes.client.CoreV1Api(api)
    server.compact()
    with pytest.raises(kubernetes.client.ApiException) as caught:
        list(kubernetes.watch.Watch().stream(core.list_namespaced_pod, NS, resource_version="1", timeout_seconds=30))
    assert caught.value.status == 410


def test_leases(api: Any) -> None:
    coordination = kubernetes.client.CoordinationV1Api(api)
    made = coordination.create_namespaced_lease(NS, lease("one"))
    assert made.spec.renew_time == TIME
    with pytest.raises(kubernetes.client.ApiException) as caught:
        coordination.create_namespaced_lease(NS, lease("two"))
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    made.spec.holder_identity = "two"
    replaced = coordination.replace_namespaced_lease("epp", NS, made)
    assert replaced.spec.holder_identity == "two"
    made.spec.holder_identity = "three"
    with pytest.raises(kubernetes.client.ApiException) as caught:
        coordination.replace_namespaced_lease("epp", NS, made)
    assert caught.value.status == 409
    coordination.delete_namespaced_lease("epp", NS)


def test_custom_resources_by_discovery(api: Any, server: ApiServer) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(api)
    pools = dynamic.resources.get(api_version="inference.networking.k8s.io/v1", kind="InferencePool")
    assert [one.metadata.name for one in pools.get(namespace=NS).items] == ["x"]
    patched = pools.patch(
        body={"spec": {"targetPorts": [{"number": 9000}]}},
        name="x",
        namespace=NS,
        content_type="application/merge-patch+json",
    )
    assert patched.spec.targetPorts[0].number == 9000
    server.rules.deny("list", "inferencepools")
    with pytest.raises(kubernetes.dynamic.exceptions.ForbiddenError):
        pools.get(namespace=NS)


def test_reviews(api: Any, server: ApiServer) -> None:
    server.users["secret"] = ("prometheus", ("monitoring",))
    client = kubernetes.client
    review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token="secret"))
    answer = client.AuthenticationV1Api(api).create_token_review(review)
    assert (answer.status.authenticated, answer.status.user.username) == (True, "prometheus")
    server.may("prometheus", "get", "/metrics")
    asked = client.V1NonResourceAttributes(path="/metrics", verb="get")
    spec = client.V1SubjectAccessReviewSpec(user="prometheus", non_resource_attributes=asked)
    access = client.AuthorizationV1Api(api).create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
    assert access.status.allowed is True


def test_in_cluster(server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = kubernetes.config.incluster_config.InClusterConfigLoader(
        token_filename=str(server.service_account / "token"),
        cert_filename=str(server.service_account / "ca.crt"),
        environ=server.environ,
    )
    configuration = kubernetes.client.Configuration()
    loader.load_and_set(configuration)
    with kubernetes.client.ApiClient(configuration) as api:
        assert kubernetes.client.VersionApi(api).get_code().git_version.startswith("v1.")
