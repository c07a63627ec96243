# SPDX-License-Identifier: Apache-2.0
"""Who may do what: tokens, certificates, RBAC, the roles of KServe's releases, reviews, discovery."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.client import LEASES, NS, PODS, POOLS, Client
from tests.apiserver.objects import pod
from tests.apiserver.roles import AUTH_DELEGATOR, CONFORMANCE, KSERVE_ROLES
from tests.apiserver.server import ApiServer

USER = "system:serviceaccount:kserve-test:qwen-instruct-epp-sa"
X = "inference.networking.x-k8s.io"
GIE = "inference.networking.k8s.io"


def test_a_wrong_token(server: ApiServer) -> None:
    with Client(server, "wrong") as client:
        answer = client.get(PODS)
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }
    assert answer.code == 401


def test_without_a_token(server: ApiServer) -> None:
    with Client(server, "") as client:
        refused = client.get(PODS)
        assert refused.code == 403
        assert 'User "system:anonymous" cannot list resource "pods"' in refused.body["message"]
        assert [client.get(path).code for path in ("/healthz", "/version", "/apis")] == [200, 200, 403]


def test_a_client_certificate_is_a_user(server: ApiServer, tmp_path: Path) -> None:
    server.rules.allow_only(())
    server.kubeconfig(tmp_path / "config", auth="certificate", user="jane", groups=("devs",))
    context = ssl.create_default_context(cafile=str(server.ca_file))
    context.load_cert_chain(tmp_path / "config-client.crt", tmp_path / "config-client.key")
    with Client(server, "", context=context) as client:
        assert 'User "jane"' in client.get(PODS).body["message"]
    assert server.requests[-1].groups == ("devs", "system:authenticated")


@pytest.mark.parametrize(
    ("path", "message", "details"),
    [
        (
            PODS,
            f'pods is forbidden: User "{USER}" cannot list resource "pods" in API group "" in the namespace "kserve-test"',
            {"kind": "pods"},
        ),
        (
            "/api/v1/pods",
            f'pods is forbidden: User "{USER}" cannot list resource "pods" in API group "" at the cluster scope',
            {"kind": "pods"},
        ),
        (
            f"{LEASES}/epp",
            (
                f'leases.coordination.k8s.io "epp" is forbidden: User "{USER}" cannot get resource "leases" in API group '
                '"coordination.k8s.io" in the namespace "kserve-test"'
            ),
            {"name": "epp", "group": "coordination.k8s.io", "kind": "leases"},
        ),
        (
            f"/apis/none.example/v1{NS}/things",
            (
                f'things.none.example is forbidden: User "{USER}" cannot list resource "things" in API group "none.example" '
                'in the namespace "kserve-test"'
            ),
            {"group": "none.example", "kind": "things"},
        ),
        ("/metrics", f'forbidden: User "{USER}" cannot get path "/metrics"', {}),
    ],
)
def test_what_is_forbidden_is_named(
    server: ApiServer, client: Client, path: str, message: str, details: dict[str, str]
) -> None:
    """Also for a kind that is not installed: the right is asked for first."""
    server.rules.allow_only(())
    answer = client.get(path)
    assert (answer.code, answer.body["reason"]) == (403, "Forbidden")
    assert answer.body["message"] == message
    assert answer.body["details"] == details


def test_denials_by_verb_group_and_namespace(server: ApiServer, client: Client) -> None:
    server.rules.deny("watch", "pods")
    server.rules.deny("*", "inferencepools", group=X)
    server.rules.deny("list", "leases", namespace="other")
    assert client.get(PODS).code == 200
    assert client.get(PODS, watch="true").code == 403
    assert client.get(f"/apis/{X}/v1alpha2{NS}/inferencepools").code == 403
    assert client.get(POOLS).code == 200
    assert client.get(LEASES).code == 200
    assert client.get("/apis/coordination.k8s.io/v1/namespaces/other/leases").code == 403
    server.rules.reset()
    assert client.get(f"/apis/{X}/v1alpha2{NS}/inferencepools").code == 200


def codes(client: Client) -> dict[str, int]:
    """What each list answers."""
    lists = {
        "pods": PODS,
        "pools": POOLS,
        "pools x": f"/apis/{X}/v1alpha2{NS}/inferencepools",
        "models x": f"/apis/{X}/v1alpha2{NS}/inferencemodels",
        "objectives x": f"/apis/{X}/v1alpha2{NS}/inferenceobjectives",
        "rewrites x": f"/apis/{X}/v1alpha2{NS}/inferencemodelrewrites",
        "objectives": f"/apis/llm-d.ai/v1alpha2{NS}/inferenceobjectives",
        "leases": LEASES,
        "all pods": "/api/v1/pods",
        "services": f"/api/v1{NS}/services",
    }
    return {name: client.get(path).code for name, path in lists.items()}


@pytest.mark.parametrize(
    ("release", "granted"),
    [
        ("v0.16", {"pods", "pools x", "models x"}),
        ("v0.17", {"pods", "pools", "pools x", "models x", "objectives x", "leases"}),
        ("v0.18", {"pods", "pools", "pools x", "models x", "objectives x", "rewrites x", "leases"}),
        ("v0.20", {"pods", "pools", "pools x", "models x", "objectives x", "rewrites x", "objectives", "leases"}),
    ],
)
def test_kserves_roles(server: ApiServer, client: Client, release: str, granted: set[str]) -> None:
    server.rules.allow_only(KSERVE_ROLES[release], cluster=AUTH_DELEGATOR)
    assert {name for name, code in codes(client).items() if code == 200} == granted
    review = {"spec": {"token": server.token}}
    assert client.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).code == 201
    event = {"metadata": {"name": "e"}}
    assert client.ask("POST", f"/api/v1{NS}/events", event).code == 403
    assert client.get("/apis").code == 200


def test_the_conformance_fixtures_role(server: ApiServer, client: Client) -> None:
    server.rules.allow_only(CONFORMANCE)
    assert {name for name, code in codes(client).items() if code == 200} == {"pods", "pools"}
    assert client.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "x"}}).code == 403


def test_resource_names(server: ApiServer, client: Client) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"], "verbs": ["get", "list"]}
    server.rules.allow_only([rule])
    server.apply([pod("a", "10.0.0.1", {}), pod("b", "10.0.0.2", {})])
    assert [client.get(f"{PODS}/{name}").code for name in "ab"] == [200, 403]
    assert client.get(PODS, fieldSelector="metadata.name=a").code == 200
    assert client.get(PODS).code == 403


def test_masters_may_everything(server: ApiServer) -> None:
    server.rules.allow_only(())
    server.users["root"] = ("root", ("system:masters",))
    with Client(server, "root") as client:
        assert client.get(PODS).code == 200


REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def test_token_reviews(server: ApiServer, client: Client) -> None:
    server.users["secret"] = ("prometheus", ("monitoring",))
    answer = client.ask(
        "POST", REVIEW, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "secret"}}
    )
    assert answer.code == 201
    status = answer.body["status"]
    assert status["authenticated"] is True
    assert status["user"]["username"] == "prometheus"
    assert status["user"]["groups"] == ["monitoring", "system:authenticated"]
    bad = client.ask("POST", REVIEW, {"spec": {"token": "guess"}}).body["status"]
    assert bad == {"user": {}, "error": "invalid bearer token"}
    foreign = client.ask("POST", REVIEW, {"spec": {"token": "secret", "audiences": ["other"]}}).body["status"]
    assert "authenticated" not in foreign
    assert client.ask("POST", REVIEW, {"spec": {}}).code == 422


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ({"user": "prometheus", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}, True),
        ({"user": "prometheus", "nonResourceAttributes": {"verb": "post", "path": "/metrics"}}, False),
        ({"user": "other", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}, False),
        ({"user": "x", "groups": ["sre"], "nonResourceAttributes": {"verb": "get", "path": "/debug/pprof/heap"}}, True),
        ({"user": "x", "groups": ["sre"], "nonResourceAttributes": {"verb": "get", "path": "/metrics"}}, False),
        ({"user": USER, "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "kserve-test"}}, True),
        ({"user": USER, "resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "other"}}, False),
    ],
)
def test_access_reviews(server: ApiServer, spec: dict[str, Any], allowed: bool) -> None:
    server.rules.allow_only(KSERVE_ROLES["v0.18"], cluster=AUTH_DELEGATOR)
    server.may("prometheus", "get", "/metrics")
    server.may("sre", "get", "/debug/*")
    with Client(server) as client:
        answer = client.ask("POST", ACCESS, {"spec": spec})
    assert (answer.code, answer.body["status"]["allowed"]) == (201, allowed)


def test_access_reviews_that_ask_nothing(client: Client) -> None:
    for spec in ({"user": "a"}, {"nonResourceAttributes": {"verb": "get", "path": "/"}}):
        assert client.ask("POST", ACCESS, {"spec": spec}).code == 422


def test_discovery(server: ApiServer, client: Client) -> None:
    assert client.get("/api").body["versions"] == ["v1"]
    groups = {group["name"] for group in client.get("/apis").body["groups"]}
    assert {GIE, X, "llm-d.ai", "coordination.k8s.io"} <= groups
    listed = client.get("/api/v1").body
    assert (listed["kind"], listed["groupVersion"]) == ("APIResourceList", "v1")
    assert {"pods", "pods/status", "events"} <= {one["name"] for one in listed["resources"]}
    pools = client.get(f"/apis/{GIE}/v1").body["resources"][0]
    assert (pools["name"], pools["kind"], pools["namespaced"]) == ("inferencepools", "InferencePool", True)
    assert "watch" in pools["verbs"]
    assert client.get("/version").body["gitVersion"].startswith("v1.")


def test_discovery_of_what_is_not_installed(server: ApiServer, client: Client) -> None:
    server.rules.uninstall(GIE)
    server.rules.uninstall(X, "v1alpha2", "inferencemodels")
    assert client.get(f"/apis/{GIE}/v1").code == 404
    assert client.get(f"/apis/{GIE}").code == 404
    assert client.get(POOLS).code == 404
    names = {one["name"] for one in client.get(f"/apis/{X}/v1alpha2").body["resources"]}
    assert "inferencemodels" not in names
    assert "inferencepools" in names
    with pytest.raises(KeyError):
        server.rules.uninstall("none.example")


def test_what_was_asked_is_remembered(server: ApiServer, client: Client) -> None:
    client.get(PODS, labelSelector="a=b")
    client.get(f"{LEASES}/x")
    client.ask("PATCH", f"{POOLS}/x/status", {}, {"Content-Type": "application/merge-patch+json"})
    (listed,) = server.asked("list", "pods", namespace="kserve-test")
    assert (listed.query, listed.user, listed.code) == ({"labelSelector": "a=b"}, USER, 200)
    assert [one.name for one in server.asked("get", code=404)] == ["x"]
    assert len(server.asked("patch", "inferencepools/status", group=GIE)) == 1
    assert server.asked("create", "events") == []
