# SPDX-License-Identifier: Apache-2.0
"""What authorities of every gateway say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.service.pools.authority import Said, read_authority


@pytest.mark.parametrize(
    ("authority", "said"),
    [
        ("s", Said("s")),
        ("s:9002", Said("s", port=9002)),
        ("s.n", Said("s", "n")),
        ("s.n:9002", Said("s", "n", 9002)),
        ("s.n.svc", Said("s", "n")),
        ("s.n.svc:9002", Said("s", "n", 9002)),
        ("s.n.svc.cluster.local", Said("s", "n")),
        ("s.n.svc.cluster.local:9002", Said("s", "n", 9002)),
        ("s.n.svc.corp.example:9002", Said("s", "n", 9002)),
        ("S.N.SVC.Cluster.Local.:9002", Said("s", "n", 9002)),
        ("outbound|9002||s.n.svc.cluster.local", Said("s", "n", 9002)),
        ("outbound|9002|v1|s.n.svc.cluster.local", Said("s", "n", 9002)),
        ("outbound_.9002_._.s.n.svc.cluster.local", Said("s", "n", 9002)),
        ("envoy.clusters.endpointpicker_p_n_ext_proc", Said("p", "n", is_pool=True)),
        ("endpointpicker_my-pool_my-ns_ext_proc", Said("my-pool", "my-ns", is_pool=True)),
        ("endpointpicker_pool.v1_n_ext_proc", Said("pool.v1", "n", is_pool=True)),
        ("", None),
        (":9002", None),
        ("10.0.0.1:9002", None),
        ("10.0.0.1", None),
        ("[::1]:9002", None),
        ("::1", None),
        ("a.b.c.d", None),
        ("www.example.com", None),
        ("localhost:9002", None),
        ("x" * 600, None),
    ],
)
def test_authorities(authority: str, said: Said | None) -> None:
    assert read_authority(authority) == said


@given(st.text())
def test_no_text_raises(authority: str) -> None:
    read_authority(authority)
