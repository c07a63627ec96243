# SPDX-License-Identifier: Apache-2.0
"""The plugins of the conformance tests: who the header names, and what responses tell."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from epp.api import Columns, Decision, Endpoint, Endpoints, ProfileResult, ResponseHead
from epp.plugins.filters.header_based_testing import HEADER, HeaderBasedTestingFilter
from epp.plugins.responses.destination_endpoint_served import DestinationEndpointServedVerifier
from epp.testing import make_endpoints, make_plugin, make_request

PLACES = [
    ("10.0.0.1", 3000), ("10.0.0.1", 3002), ("10.0.0.2", 3000), ("10.0.0.2", 3002), ("fd00::1", 3000), ("fd00::1", 3002),
]  # fmt: skip


def pool(*places: tuple[str, int]) -> Endpoints:
    """Candidates at `places`; their rows are in the opposite order."""
    columns = Columns(2 * len(places))
    rows = np.arange(len(places))[::-1] + len(places)
    living: list[Endpoint | None] = [None] * columns.capacity
    for row, (ip, port) in zip(rows.tolist(), places, strict=True):
        living[row] = Endpoint("default", f"{ip}-{port}", ip, port, row=row)
    columns.replace_endpoints(tuple(living))
    return Endpoints(columns, rows, 0.0)


def kept(plugin: Any, endpoints: Endpoints, named: str | None, body_bytes: int = 10) -> list[int]:
    headers = {} if named is None else {HEADER: named}
    mask = plugin.filter(make_request("Hi", headers=headers, body_bytes=body_bytes), endpoints)
    assert mask.dtype == np.bool_
    assert mask.shape == (len(endpoints),)
    return mask.nonzero()[0].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("10.0.0.1", [0, 1]),
        ("10.0.0.1:3002", [1]),
        ("10.0.0.2:3002, 10.0.0.1:3000", [0, 3]),
        ("10.0.0.1,10.0.0.1:3000,10.0.0.1", [0, 1]),
        ("10.0.0.1,10.0.0.2:3000", [0, 1, 2]),
        ("fd00::1", [4, 5]),
        ("[fd00::1]", [4, 5]),
        ("[fd00::1]:3002", [5]),
        ("FD00:0:0::1", [4, 5]),
        ("192.0.2.1,10.0.0.2:3000,192.0.2.2:3000", [2]),
        # Nobody, or no address.
        ("192.0.2.1", []),
        ("10.0.0.1:3004", []),
        ("fd00::1:3000", []),
        (",", []),
        ("pod-a", []),
        ("10.0.0.1:", []),
        ("10.0.0.1:0", []),
        ("10.0.0.1:x", []),
        ("10.0.0.1:99999999999999999999", []),
        ("[fd00::1", []),
        ("[fd00::1]3000", []),
        ("[]", []),
        (":3000", []),
    ],
)
@pytest.mark.parametrize("required", [True, False])
def test_the_header_names_endpoints(named: str, expected: list[int], required: bool) -> None:
    plugin = make_plugin(HeaderBasedTestingFilter, required=required)
    assert kept(plugin, pool(*PLACES), named) == expected


@pytest.mark.parametrize("named", [None, "", "  "])
def test_without_the_header_nobody_or_everybody_is_kept(named: str | None) -> None:
    endpoints = pool(*PLACES)
    assert kept(make_plugin(HeaderBasedTestingFilter), endpoints, named) == []
    assert kept(make_plugin(HeaderBasedTestingFilter), endpoints, named, body_bytes=0) == [0, 1, 2, 3, 4, 5]
    assert kept(make_plugin(HeaderBasedTestingFilter, required=False), endpoints, named) == [0, 1, 2, 3, 4, 5]


def test_named_endpoints_have_their_turns_in_the_order_of_the_header() -> None:
    plugin, endpoints = make_plugin(HeaderBasedTestingFilter, inTurn=True), pool(*PLACES)
    turns = [kept(plugin, endpoints, "10.0.0.2:3000,10.0.0.1:3002,fd00::1,10.0.0.2") for _ in range(10)]
    assert all(len(turn) == 1 for turn in turns)
    assert turns[:2] == [[2], [1]]
    assert Counter(position for [position] in turns) == dict.fromkeys((1, 2, 3, 4, 5), 2)


def test_a_turn_is_given_to_candidates_alone() -> None:
    plugin, endpoints = make_plugin(HeaderBasedTestingFilter, inTurn=True), pool(*PLACES)
    few = endpoints.where(np.array([True, False, True, False, False, False]))
    assert [kept(plugin, few, "10.0.0.1,10.0.0.2") for _ in range(4)] == [[0], [1], [0], [1]]
    assert kept(plugin, few, "fd00::1") == []


def test_endpoints_that_come_and_go_are_followed() -> None:
    plugin = make_plugin(HeaderBasedTestingFilter)
    assert kept(plugin, pool(("10.0.0.1", 1)), "10.0.0.1") == [0]
    assert kept(plugin, pool(("10.0.0.2", 1), ("10.0.0.3", 1)), "10.0.0.1,10.0.0.3") == [1]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.1:3000"}}, "10.0.0.1:3000"),
        ({"envoy.lb": {"x-gateway-destination-endpoint-served": 7.0}},
         "fail: missing destination endpoint served metadata"),
        ({"envoy.lb": {}}, "fail: missing destination endpoint served metadata"),
        ({"other": {"x-gateway-destination-endpoint-served": "10.0.0.1:3000"}}, "fail: missing envoy lb metadata"),
        ({}, "fail: missing envoy lb metadata"),
    ],
)  # fmt: skip
def test_the_response_tells_who_answered(metadata: dict[str, Any], told: str) -> None:
    plugin = make_plugin(DestinationEndpointServedVerifier)
    headers = plugin.on_response_headers(make_request(), decision(), ResponseHead(200, {}, metadata))
    assert headers == {
        "x-conformance-test-served-endpoint": told,
        "x-conformance-test-selected-endpoint": "127.0.1.1:8000",
    }


def test_the_pool_is_told_where_it_is_known() -> None:
    plugin = make_plugin(DestinationEndpointServedVerifier, pool="primary")
    headers = plugin.on_response_headers(make_request(), decision(), ResponseHead(200, {}, {}))
    assert headers["x-conformance-test-epp-pool"] == "primary"


def decision() -> Decision:
    endpoints = make_endpoints(1)
    result = ProfileResult("default", endpoints, (), (), np.zeros(1), (0,))
    return Decision("id", "m", "m", "default", {"default": result}, 1, 0.0)
