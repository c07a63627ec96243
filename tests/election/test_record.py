# SPDX-License-Identifier: Apache-2.0
"""The Lease's JSON against what client-go writes and reads, and the names."""

from __future__ import annotations

import json
import re
import uuid

import msgspec
import pytest

from epp.election.names import lease_name, new_identity, pool_of_pod
from epp.election.record import Lease, given_up, held, micro_time, new_lease

AT_S = 1_787_306_400.000250
# As kubectl get lease -o json shows one that a Go EPP holds.
OF_GO = {
    "apiVersion": "coordination.k8s.io/v1",
    "kind": "Lease",
    "metadata": {
        "creationTimestamp": "2026-08-21T09:00:00Z",
        "labels": {"kept": "yes"},
        "managedFields": [{"manager": "epp", "operation": "Update", "fieldsV1": {"f:spec": {}}}],
        "name": "epp-ns-pool.llm-d.ai",
        "namespace": "ns",
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "epp", "uid": "u"}],
        "resourceVersion": "812",
        "uid": "0c8f",
    },
    "spec": {
        "acquireTime": "2026-08-21T09:00:01.123456Z",
        "holderIdentity": "epp-6c9f7-x2x9p_5f0c1d7e-8a3b-4a52-8a7e-3d1f9a1f0a11",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 3,
        "renewTime": "2026-08-21T09:59:58.000001Z",
    },
}


def read(document: object) -> Lease:
    return msgspec.json.decode(json.dumps(document), type=Lease)


def written(lease: Lease) -> dict[str, object]:
    document: dict[str, object] = json.loads(msgspec.json.encode(lease))
    return document


@pytest.mark.parametrize(
    ("at_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000000Z"),
        (AT_S, "2026-08-21T10:00:00.000250Z"),
        (1_787_306_400.5, "2026-08-21T10:00:00.500000Z"),
    ],
)
def test_micro_time(at_s: float, text: str) -> None:
    assert micro_time(at_s) == text


def test_what_go_wrote_comes_back_unchanged() -> None:
    assert written(read(OF_GO)) == OF_GO


def test_a_new_lease() -> None:
    assert written(new_lease("ns", "epp-ns-pool.llm-d.ai", "me_1", 15, AT_S)) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "epp-ns-pool.llm-d.ai", "namespace": "ns"},
        "spec": {
            "holderIdentity": "me_1",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-08-21T10:00:00.000250Z",
            "renewTime": "2026-08-21T10:00:00.000250Z",
            "leaseTransitions": 0,
        },
    }


def test_taking_over_counts_a_transition_and_keeps_the_metadata() -> None:
    assert written(held(read(OF_GO), "me_1", 15, AT_S)) == {
        **OF_GO,
        "spec": {
            "holderIdentity": "me_1",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-08-21T10:00:00.000250Z",
            "renewTime": "2026-08-21T10:00:00.000250Z",
            "leaseTransitions": 4,
        },
    }


def test_renewing_changes_the_renew_time_alone() -> None:
    holder = OF_GO["spec"]["holderIdentity"]
    assert written(held(read(OF_GO), holder, 15, AT_S)) == {
        **OF_GO,
        "spec": {**OF_GO["spec"], "renewTime": "2026-08-21T10:00:00.000250Z"},
    }


def test_giving_up() -> None:
    assert written(given_up(read(OF_GO), AT_S))["spec"] == {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "acquireTime": "2026-08-21T10:00:00.000250Z",
        "renewTime": "2026-08-21T10:00:00.000250Z",
        "leaseTransitions": 3,
    }


@pytest.mark.parametrize(
    "spec",
    [None, {}, {"holderIdentity": None}, {"holderIdentity": ""}, {"leaseDurationSeconds": 1, "leaseTransitions": 2}],
)
def test_leases_that_nobody_holds(spec: object) -> None:
    """Newer servers and clients leave out what is empty."""
    document = {**OF_GO, "spec": spec}
    if spec is None:
        del document["spec"]
    lease = read(document)
    assert lease.holder == ""
    assert held(lease, "me_1", 15, AT_S).spec.lease_transitions == (lease.spec.lease_transitions or 0) + 1


def test_fields_of_coordinated_election_survive() -> None:
    extra = {"preferredHolder": "other", "strategy": "OldestEmulationVersion"}
    lease = read({**OF_GO, "spec": {**OF_GO["spec"], **extra}})
    spec = written(held(lease, "me_1", 15, AT_S))["spec"]
    assert isinstance(spec, dict)
    assert extra.items() <= spec.items()


def test_lease_names() -> None:
    assert lease_name("llm", "vllm-llama3-8b-instruct") == "epp-llm-vllm-llama3-8b-instruct.llm-d.ai"
    # A part of more than 63 characters is a valid name of a Lease, and is what the Go EPP uses.
    assert lease_name("llm", "p" * 100) == f"epp-llm-{'p' * 100}.llm-d.ai"
    longest = 253 - len("epp-llm-.llm-d.ai")
    assert lease_name("llm", "p" * longest) == f"epp-llm-{'p' * longest}.llm-d.ai"


def test_lease_names_over_the_limit() -> None:
    names = {lease_name("n" * 63, "p" * length) for length in range(176, 254)}
    names |= {lease_name("n" * 63, "p" * at + "." * (at < 240) + "q" * (253 - at)) for at in range(150, 254)}
    assert len(names) >= 150
    for name in names:
        assert len(name) <= 253
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name)


@pytest.mark.parametrize(
    ("pod", "pool"),
    [
        ("llama-epp-6c9f7b5d8-x2x9p", "llama-epp"),
        ("epp-7d4b9-abcde", "epp"),
        ("my-model-epp-6c9f7b5d8-x2x9p", "my-model-epp"),
        ("epp-0", "epp"),
        ("my-model-epp-0", "my-model-epp"),
        ("epp", "epp"),
    ],
)
def test_pool_of_pod(pod: str, pool: str) -> None:
    assert pool_of_pod(pod) == pool


def test_identities() -> None:
    first, second = new_identity("epp-1"), new_identity("epp-1")
    assert first != second
    name, _, unique = first.partition("_")
    assert name == "epp-1"
    assert str(uuid.UUID(unique)) == unique
