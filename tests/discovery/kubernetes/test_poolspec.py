# SPDX-License-Identifier: Apache-2.0
"""Pools from objects of both groups and from flags."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from epp.contract.errors import DiscoveryError, EppError, StartError
from epp.discovery.kubernetes.objects import PoolV1, PoolV1Alpha2
from epp.discovery.kubernetes.poolspec import pool_of, pool_resource, selector_pool
from epp.kube.resource import POOLS, POOLS_X
from tests.discovery.kubernetes.support import GIE, GIE_X, NS, pool_v1, pool_x


def v1(**spec: Any) -> PoolV1:
    body = pool_v1(uid="u", annotations={"k": "v"})
    return msgspec.convert(body | {"spec": body["spec"] | spec}, PoolV1)


def test_v1() -> None:
    pool = pool_of(
        v1(targetPorts=[{"number": 8000}, {"number": 8001}, {"number": 8000}], appProtocol="kubernetes.io/h2c")
    )
    assert (pool.group, pool.key, str(pool.selector), pool.ports) == (GIE, f"{NS}/x", "app=vllm", (8000, 8001))
    assert (pool.app_protocol, pool.picker_name, pool.picker_port) == ("kubernetes.io/h2c", "epp", 9002)
    assert pool.ranked
    assert (pool.uid, dict(pool.annotations), str(pool)) == ("u", {"k": "v"}, f"inferencepool {NS}/x")


def test_v1_with_the_least() -> None:
    pool = pool_of(msgspec.convert({"metadata": {"name": "x"}, "spec": {"targetPorts": [{"number": 1}]}}, PoolV1))
    assert (pool.app_protocol, pool.picker_name, pool.picker_port, str(pool.selector)) == ("http", "", None, "")
    assert pool.selector.matches({"any": "pod"})


def test_v1alpha2() -> None:
    pool = pool_of(msgspec.convert(pool_x(selector={"a": "b", "c": ""}), PoolV1Alpha2))
    assert (pool.group, str(pool.selector), pool.ports) == (GIE_X, "a=b,c=", (8000,))
    assert (pool.app_protocol, pool.picker_name, pool.picker_port) == ("http", "epp", None)
    assert not pool.ranked


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"targetPorts": []}, "0 target ports; there must be 1 to 8"),
        ({"targetPorts": [{"number": port} for port in range(1, 10)]}, "9 target ports; there must be 1 to 8"),
        ({"targetPorts": [{"number": 0}]}, "target port 0 must be from 1 to 65535"),
        ({"targetPorts": [{"number": 65536}]}, "target port 65536 must be from 1 to 65535"),
        ({"selector": {"matchLabels": {"a b": "c"}}}, "is no valid label"),
    ],
)
def test_what_makes_no_sense_is_one_line_with_the_object(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        pool_of(v1(**spec))
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"inferencepool {NS}/x: ")
    assert "\n" not in str(caught.value)


def test_a_pool_of_flags() -> None:
    pool = selector_pool(NS, "epp", "app in (a,b),!gone", [8000, 8000, 8001])
    assert (pool.group, pool.name, pool.ports, str(pool)) == ("", "epp", (8000, 8001), f"pool {NS}/epp")
    assert pool.ranked
    assert pool.selector.matches({"app": "b"})
    for selector, ports in (("app in", [8000]), ("a=b", []), ("a=b", list(range(1, 10))), ("a=b", [0])):
        with pytest.raises(EppError):
            selector_pool(NS, "epp", selector, ports)


def test_groups() -> None:
    assert (pool_resource(GIE), pool_resource(GIE_X)) == (POOLS, POOLS_X)
    with pytest.raises(StartError, match="'apps'"):
        pool_resource("apps")
