# SPDX-License-Identifier: Apache-2.0
"""Pods to endpoints: which pods count, names and ranks, active ports, incarnations, and that increments are exact."""

from __future__ import annotations

import logging
from types import MappingProxyType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.contract.discovery import EndpointSpec
from epp.discovery.kubernetes.endpointtable import EndpointTable, endpoints_of, incarnation, replaced
from epp.discovery.kubernetes.objects import ServingPod
from tests.discovery.kubernetes.support import NS, pod, pod_body


def with_status(**fields: object) -> ServingPod:
    body = pod_body(uid="u")
    body["status"] = {key: value for key, value in (body["status"] | fields).items() if value is not None}
    return msgspec.convert(body, ServingPod)


@pytest.mark.parametrize(
    ("subject", "counts"),
    [
        (pod(), True),
        (pod(ready=False), False),
        (pod(ip=""), False),
        (pod(deletionTimestamp="2026-01-01T00:00:00Z"), False),
        (with_status(conditions=None), False),
        (with_status(conditions=[]), False),
        (with_status(conditions=[{"type": "Ready", "status": "Unknown"}]), False),
        (with_status(conditions=[{"type": "ContainersReady", "status": "True"}]), False),
        (with_status(podIP=None), True),
        (with_status(podIP=None, podIPs=None), False),
        (with_status(phase="Failed", conditions=[{"type": "Ready", "status": "False"}]), False),
        (with_status(containerStatuses=None), True),
    ],
)
def test_a_pod_counts_when_it_is_ready_stays_and_has_an_address(subject: ServingPod, counts: bool) -> None:
    assert bool(endpoints_of(subject, (8000,))) is counts


def test_the_name_has_the_rank_also_for_one_port() -> None:
    labels = MappingProxyType({"app": "vllm"})
    assert endpoints_of(pod(), (8000,)) == (EndpointSpec(NS, "a-rank-0", "10.0.0.1", 8000, labels, 0, "u-a/0"),)
    assert endpoints_of(pod(), (8000,))[0].id == f"{NS}/a-rank-0"


def test_the_name_is_the_pods_where_there_are_no_ranks() -> None:
    (spec,) = endpoints_of(pod(), (8000,), ranked=False)
    assert (spec.name, spec.rank) == ("a", 0)
    table = EndpointTable((8000,), ranked=False)
    table.put(f"{NS}/a", pod())
    assert states(table) == [("a", True)]


@pytest.mark.parametrize(
    ("ip", "ips", "address"),
    [
        ("fd00::7", ["fd00::7"], "[fd00::7]:8000"),
        ("10.0.0.9", ["10.0.0.9", "fd00::9"], "10.0.0.9:8000"),
        ("fd00::9", ["fd00::9", "10.0.0.9"], "[fd00::9]:8000"),
        (None, ["fd00::9"], "[fd00::9]:8000"),
    ],
)
def test_addresses_of_both_families(ip: str | None, ips: list[str], address: str) -> None:
    (spec,) = endpoints_of(with_status(podIP=ip, podIPs=[{"ip": one} for one in ips]), (8000,))
    assert spec.address == address


def states(table: EndpointTable) -> list[tuple[str, bool]]:
    return [(spec.name, spec.ready) for spec in table.found().endpoints]


def test_a_pod_that_was_ready_in_this_incarnation_is_listed_as_not_ready() -> None:
    table, key = EndpointTable((8000,)), f"{NS}/a"
    table.put(key, pod(ready=False))
    assert states(table) == [], "it was never ready"
    table.put(key, pod())
    assert states(table) == [("a-rank-0", True)]
    table.put(key, pod(ready=False))
    assert states(table) == [("a-rank-0", False)]
    assert table.found().ready == 0
    table.put(key, pod(ready=False, labels={"app": "vllm", "new": "label"}))
    assert states(table) == [("a-rank-0", False)]
    table.put(key, pod())
    assert states(table) == [("a-rank-0", True)]


@pytest.mark.parametrize(
    "changes",
    [
        {"restarts": 1},
        {"uid": "another"},
        {"ip": ""},
        {"deletionTimestamp": "2026-01-01T00:00:00Z"},
    ],
)
def test_what_ends_a_pod_that_is_not_ready(changes: dict[str, object]) -> None:
    table, key = EndpointTable((8000,)), f"{NS}/a"
    table.put(key, pod())
    table.put(key, pod(ready=False))
    table.put(key, pod(ready=False, **changes))  # type: ignore[arg-type]
    assert states(table) == []


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_pod_that_has_ended_is_not_listed(phase: str) -> None:
    table, key = EndpointTable((8000,)), f"{NS}/a"
    table.put(key, with_status())
    table.put(key, with_status(phase=phase, conditions=[{"type": "Ready", "status": "False"}]))
    assert states(table) == []


def test_a_pod_that_left_and_comes_back_was_never_ready() -> None:
    table, key = EndpointTable((8000,)), f"{NS}/a"
    table.put(key, pod())
    table.drop(key)
    table.put(key, pod(ready=False))
    assert states(table) == []


NEW, OLD = "llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports"


@pytest.mark.parametrize(
    ("annotations", "ranks"),
    [
        ({}, [0, 1, 2]),
        ({NEW: "8000,8002"}, [0, 2]),
        ({NEW: " 8002 , 8001 "}, [1, 2]),
        ({OLD: "8001"}, [1]),
        ({OLD: "8001", NEW: "8002"}, [2]),
        ({NEW: "8001,x,-1,9999,8001.5,8002abc"}, [1]),
        ({NEW: "8001,,"}, [1]),
        ({NEW: ""}, []),
        ({NEW: "9999"}, []),
    ],
)
def test_active_ports_leave_ports_out_and_ranks_as_they_are(annotations: dict[str, str], ranks: list[int]) -> None:
    specs = endpoints_of(pod(annotations=annotations), (8000, 8001, 8002))
    assert [spec.rank for spec in specs] == ranks
    assert [spec.name for spec in specs] == [f"a-rank-{rank}" for rank in ranks]
    assert [spec.port for spec in specs] == [8000 + rank for rank in ranks]


def test_a_faulty_annotation_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    table = EndpointTable((8000,))
    with caplog.at_level(logging.WARNING, "epp.discovery"):
        for at in range(5):
            table.put(f"{NS}/p{at}", pod(f"p{at}", annotations={NEW: "8000,eight"}))
            table.put(f"{NS}/p{at}", pod(f"p{at}", annotations={NEW: "8000,eight"}, restarts=1))
    assert [record.getMessage() for record in caplog.records] == [
        f"pod {NS}/p0: annotation {NEW} names 'eight', no target port of the pool (8000); ignored"
    ]
    assert len(table.found().endpoints) == 5


@pytest.mark.parametrize("ip", ["not-an-ip", "127.0.0.1:80", "fe80::1%eth0", " 10.0.0.1", "127.1"])
def test_a_pod_whose_address_is_none_is_left_out_and_said_once(ip: str, caplog: pytest.LogCaptureFixture) -> None:
    table = EndpointTable((8000,))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            table.put("kserve-test/a", with_status(podIP=ip, podIPs=None))
            table.drop("kserve-test/a")
        table.put("kserve-test/a", with_status(podIP=ip, podIPs=None))
    assert (table.found().endpoints, table.found().matched, table.found().ready) == ((), 1, 0)
    assert len(caplog.records) == 1
    assert "is no IPv4 or IPv6 address" in caplog.text


def containers(*each: tuple[str, int, dict[str, object]]) -> ServingPod:
    """A pod with containers (name, restarts, fields of the spec)."""
    body = pod_body(uid="u")
    body["spec"]["containers"] = [{"name": name} | fields for name, _, fields in each]
    body["status"]["containerStatuses"] = [{"name": name, "restartCount": count} for name, count, _ in each]
    body["status"]["initContainerStatuses"] = [{"name": "routing-sidecar", "restartCount": 1000}]
    return msgspec.convert(body, ServingPod)


GPU = {"resources": {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}}}
CLAIM = {"resources": {"claims": [{"name": "gpu"}]}}
CPU = {"resources": {"limits": {"cpu": "4", "memory": "1Gi"}}}
PORT = {"ports": [{"containerPort": 8000}]}


@pytest.mark.parametrize(
    ("subject", "restarts"),
    [
        (containers(("main", 3, {})), 3),
        (containers(("main", 3, {}), ("log", 5, {})), 8),
        (containers(("main", 3, PORT), ("istio-proxy", 5, {"ports": [{"containerPort": 15090}]})), 3),
        (containers(("main", 3, GPU), ("proxy", 5, PORT)), 3),
        (containers(("main", 3, CLAIM | PORT), ("log", 5, CPU)), 3),
        (containers(("prefill", 3, GPU), ("decode", 4, GPU), ("log", 5, PORT)), 7),
        (containers(("main", 3, CPU | PORT), ("log", 5, CPU)), 3),
    ],
)
def test_restarts_count_of_the_containers_that_can_hold_a_cache(subject: ServingPod, restarts: int) -> None:
    assert incarnation(subject, (8000,)) == f"u/{restarts}"


# Increments against the whole, over pods that appear, change and go.

CHANGES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.one_of(
            st.none(),
            st.fixed_dictionaries(
                {
                    "ready": st.booleans(),
                    "ip": st.sampled_from(["", "10.0.0.1", "fd00::1"]),
                    "restarts": st.integers(0, 2),
                    "annotations": st.sampled_from([{}, {NEW: "8001"}, {NEW: "no"}, {"beat": "1"}]),
                }
            ),
        ),
    ),
    max_size=30,
)
PORTS = st.lists(st.sampled_from([8000, 8001, 9000]), min_size=1, max_size=3, unique=True).map(tuple)


@given(CHANGES, PORTS)
def test_a_table_changed_pod_by_pod_is_what_the_pods_come_to(
    changes: list[tuple[int, dict[str, object] | None]], ports: tuple[int, ...]
) -> None:
    table, pods = EndpointTable(ports), {}
    lives: dict[str, str] = {}
    before = table.found()
    for at, fields in changes:
        key = f"{NS}/p{at}"
        if fields is None:
            pods.pop(key, None)
            lives.pop(key, None)
            table.drop(key)
        else:
            pods[key] = pod(f"p{at}", **fields)
            table.put(key, pods[key])
            if fields["ready"] and fields["ip"]:
                lives[key] = incarnation(pods[key], ports)
        found = table.found()
        expected = tuple(spec for name in sorted(pods) for spec in endpoints_of(pods[name], ports, lives.get(name, "")))
        ready = [spec for name in sorted(pods) for spec in endpoints_of(pods[name], ports)]
        assert [spec for spec in found.endpoints if spec.ready] == ready
        assert found.endpoints == expected
        assert (found.endpoints is before.endpoints) == (found.endpoints == before.endpoints)
        assert found.matched == len(pods)
        assert found.ready == sum(
            bool(endpoints_of(each, (1,))) for each in pods.values() if not each.metadata.annotations
        ) + sum(
            bool(
                endpoints_of(
                    msgspec.structs.replace(each, metadata=msgspec.structs.replace(each.metadata, annotations=None)),
                    (1,),
                )
            )
            for each in pods.values()
            if each.metadata.annotations
        )
        assert len({spec.id for spec in found.endpoints}) == len(found.endpoints)
        before = found


@given(st.dictionaries(st.integers(0, 6), st.integers(0, 2)), st.dictionaries(st.integers(0, 6), st.integers(0, 2)))
def test_replaced_names_what_differs(old: dict[int, int], new: dict[int, int]) -> None:
    def store(versions: dict[int, int]) -> dict[str, ServingPod]:
        return {f"{NS}/p{at}": pod(f"p{at}", resourceVersion=str(version)) for at, version in versions.items()}

    differs = {at for at in old.keys() | new.keys() if old.get(at) != new.get(at)}
    keys = replaced(store(old), store(new))
    assert sorted(keys) == sorted(f"{NS}/p{at}" for at in differs)
