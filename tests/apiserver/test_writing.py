# SPDX-License-Identifier: Apache-2.0
"""create, update, patch, delete: identity, optimistic concurrency, status, leases, graceful deletion."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver.client import LEASES, PODS, POOLS, Client
from tests.apiserver.objects import pod, pool_v1
from tests.apiserver.server import ApiServer

LABELS = {"app": "vllm"}
TIME = "2026-08-06T09:12:44.123456Z"


def lease(name: str = "epp", **spec: Any) -> dict[str, Any]:
    spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 0, "renewTime": TIME, **spec}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}


def test_a_lease_is_made_once(client: Client) -> None:
    made = client.ask("POST", LEASES, lease())
    assert made.code == 201
    assert made.body["metadata"]["namespace"] == "kserve-test"
    again = client.ask("POST", LEASES, lease())
    assert again.code == 409
    assert again.body["reason"] == "AlreadyExists"
    assert again.body["message"] == 'leases.coordination.k8s.io "epp" already exists'


def test_who_read_an_old_version_cannot_write(client: Client) -> None:
    first = client.ask("POST", LEASES, lease()).body
    first["spec"]["holderIdentity"] = "b"
    second = client.ask("PUT", f"{LEASES}/epp", first)
    assert second.code == 200
    assert int(second.body["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])
    late = client.ask("PUT", f"{LEASES}/epp", first)
    assert (late.code, late.body["reason"]) == (409, "Conflict")
    assert late.body["details"] == {"name": "epp", "group": "coordination.k8s.io", "kind": "leases"}
    assert late.body["message"] == (
        'Operation cannot be fulfilled on leases.coordination.k8s.io "epp": the object has been modified; please apply '
        "your changes to the latest version and try again"
    )


def test_a_lease_needs_its_version_and_is_made_by_put(client: Client) -> None:
    assert client.ask("PUT", f"{LEASES}/epp", lease()).code == 201
    blind = client.ask("PUT", f"{LEASES}/epp", lease())
    assert (blind.code, blind.body["reason"]) == (422, "Invalid")
    other = client.ask("PUT", f"{LEASES}/other", lease())
    assert other.code == 400
    assert "does not match the name on the URL" in other.body["message"]


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"renewTime": "2026-08-06T09:12:44Z"}, 400),
        ({"renewTime": "2026-08-06T09:12:44.123Z"}, 400),
        ({"renewTime": "2026-08-06T09:12:44.123456+00:00"}, 201),
        ({"renewTime": None, "holderIdentity": ""}, 201),
        ({"acquireTime": 12}, 400),
        ({"leaseDurationSeconds": "15"}, 400),
        ({"leaseDurationSeconds": 0}, 422),
        ({"leaseDurationSeconds": 2.5}, 400),
        ({"leaseTransitions": -1}, 422),
        ({"holderIdentity": 5}, 400),
    ],
)
def test_a_lease_is_read_as_strictly_as_the_real_server_does(client: Client, spec: dict[str, Any], code: int) -> None:
    assert client.ask("POST", LEASES, lease(**spec)).code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (lease() | {"apiVersion": "v1"}, 400),
        (lease() | {"kind": "Pod"}, 400),
        ({**lease(), "metadata": {"name": "epp", "namespace": "other"}}, 400),
        ({**lease(), "metadata": {"name": "epp", "resourceVersion": "5"}}, 500),
        ({**lease(), "metadata": {}}, 422),
        ({**lease(), "metadata": {"name": "Not_A_Name"}}, 422),
        ([], 400),
    ],
)
def test_what_is_not_accepted(client: Client, body: Any, code: int) -> None:
    answer = client.ask("POST", LEASES, body)
    assert (answer.code, answer.body["code"]) == (code, code)


def test_generated_names(client: Client) -> None:
    event = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "epp-"}, "reason": "LeaderElection"}
    made = client.ask("POST", "/api/v1/namespaces/kserve-test/events", event).body
    assert made["metadata"]["name"].startswith("epp-")
    assert len(made["metadata"]["name"]) == 9


def test_merge_patch(client: Client) -> None:
    client.ask("POST", LEASES, lease())
    kind = {"Content-Type": "application/merge-patch+json"}
    change = {"spec": {"holderIdentity": "b", "renewTime": None}}
    patched = client.ask("PATCH", f"{LEASES}/epp", change, kind).body
    assert patched["spec"] == {"holderIdentity": "b", "leaseDurationSeconds": 15, "leaseTransitions": 0}
    old = client.ask("PATCH", f"{LEASES}/epp", {"metadata": {"resourceVersion": "1"}}, kind)
    assert (old.code, old.body["reason"]) == (409, "Conflict")
    unknown = client.ask("PATCH", f"{LEASES}/epp", change, {"Content-Type": "application/json"})
    assert (unknown.code, unknown.body["reason"]) == (415, "UnsupportedMediaType")


def test_the_status_is_written_apart(client: Client, server: ApiServer) -> None:
    server.apply(pool_v1("x", LABELS))
    kind = {"Content-Type": "application/merge-patch+json"}
    before = client.get(f"{POOLS}/x").body
    client.ask("PATCH", f"{POOLS}/x", {"status": None, "spec": {"targetPorts": [{"number": 9000}]}}, kind)
    main = client.get(f"{POOLS}/x").body
    assert (main["status"], main["metadata"]["generation"]) == (before["status"], 2)
    client.ask("PATCH", f"{POOLS}/x/status", {"status": {"parents": []}, "spec": {"targetPorts": []}}, kind)
    after = client.get(f"{POOLS}/x").body
    assert (after["status"], after["spec"], after["metadata"]["generation"]) == ({"parents": []}, main["spec"], 2)


def test_deletion_answers(client: Client, server: ApiServer) -> None:
    server.apply(pool_v1("x", LABELS))
    uid = client.get(f"{POOLS}/x").body["metadata"]["uid"]
    wrong = client.ask("DELETE", f"{POOLS}/x", {"preconditions": {"uid": "other"}})
    assert (wrong.code, wrong.body["reason"]) == (409, "Conflict")
    gone = client.ask("DELETE", f"{POOLS}/x")
    details = {"name": "x", "group": "inference.networking.k8s.io", "kind": "inferencepools", "uid": uid}
    assert (gone.code, gone.body["status"], gone.body["details"]) == (200, "Success", details)
    assert client.ask("DELETE", f"{POOLS}/x").code == 404


def test_a_pod_goes_gracefully(client: Client, server: ApiServer) -> None:
    server.apply([pod(name, "10.0.0.1", LABELS) for name in ("a", "b", "c")])
    gone = client.ask("DELETE", f"{PODS}/a").body
    assert gone["metadata"]["deletionTimestamp"]
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 30
    server.delete("pods", "kserve-test", "b", grace=True)
    assert "deletionTimestamp" in client.get(f"{PODS}/b").body["metadata"]
    assert client.ask("DELETE", f"{PODS}/c", {"gracePeriodSeconds": 0}).code == 200
    assert [item["metadata"]["name"] for item in client.get(PODS).body["items"]] == ["a", "b"]
    server.finish("pods", "kserve-test", "a")
    server.finish("pods", "kserve-test", "b")
    assert client.get(PODS).body["items"] == []


def test_finalizers_hold_an_object(client: Client, server: ApiServer) -> None:
    body = pool_v1("x", LABELS)
    body["metadata"]["finalizers"] = ["example.com/wait"]
    server.apply(body)
    assert client.ask("DELETE", f"{POOLS}/x").body["metadata"]["deletionTimestamp"]
    kind = {"Content-Type": "application/merge-patch+json"}
    client.ask("PATCH", f"{POOLS}/x", {"metadata": {"finalizers": None}}, kind)
    assert client.get(f"{POOLS}/x").code == 404


def test_deletion_of_many(client: Client, server: ApiServer) -> None:
    server.apply([pool_v1(name, LABELS) for name in ("x", "y")])
    assert len(client.ask("DELETE", POOLS, fieldSelector="metadata.name=x").body["items"]) == 1
    assert [body["metadata"]["name"] for body in server.objects("inferencepools")] == ["y"]


def test_apply_keeps_who_an_object_is(server: ApiServer) -> None:
    server.apply(pod("a", "10.0.0.1", LABELS))
    first = server.object("pods", "kserve-test", "a")
    server.apply(pod("a", "10.0.0.2", LABELS))
    second = server.object("Pod", "kserve-test", "a")
    assert first is not None
    assert second is not None
    assert first["metadata"]["uid"] == second["metadata"]["uid"]
    assert second["status"]["podIP"] == "10.0.0.2"
    other = pod("a", "10.0.0.2", LABELS)
    other["metadata"]["uid"] = "00000000-0000-4000-8000-000000000000"
    server.apply(other)
    third = server.object("po", "kserve-test", "a")
    assert third is not None
    assert third["metadata"]["uid"] == other["metadata"]["uid"]


def test_apply_reads_yaml(server: ApiServer) -> None:
    server.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: y}\n---\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: b}\n"
    )
    assert server.objects("configmaps")[0]["data"] == {"x": "y"}
    assert server.objects("secrets", "default")[0]["metadata"]["name"] == "b"
    with pytest.raises(KeyError, match="Unheard"):
        server.apply({"apiVersion": "v1", "kind": "Unheard", "metadata": {"name": "x"}})


def test_methods_that_a_kind_does_not_have(client: Client) -> None:
    answer = client.get("/apis/authentication.k8s.io/v1/tokenreviews")
    assert (answer.code, answer.body["reason"]) == (405, "MethodNotAllowed")
