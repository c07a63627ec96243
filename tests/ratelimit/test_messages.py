# SPDX-License-Identifier: Apache-2.0
"""Our messages are Envoy's on the wire, held against an independent codec."""

from __future__ import annotations

import importlib

import pytest

from epp.protos import rls_pb2

pytestmark = pytest.mark.filterwarnings("ignore:Using .@model_validator:DeprecationWarning")


def test_a_request_of_envoy() -> None:
    rls = importlib.import_module("envoy_data_plane.envoy.service.ratelimit.v3")
    common = importlib.import_module("envoy_data_plane.envoy.extensions.common.ratelimit.v3")
    types = importlib.import_module("envoy_data_plane.envoy.type.v3")
    theirs = rls.RateLimitRequest(
        domain="ns/gw/http",
        hits_addend=3,
        descriptors=[
            common.RateLimitDescriptor(
                entries=[common.RateLimitDescriptorEntry(key="user", value="ü")], hits_addend=0, is_negative_hits=True
            ),
            common.RateLimitDescriptor(
                limit=common.RateLimitDescriptorRateLimitOverride(requests_per_unit=9, unit=types.RateLimitUnit.YEAR)
            ),
        ],
    )
    ours = rls_pb2.RateLimitRequest.FromString(bytes(theirs))
    assert (ours.domain, ours.hits_addend) == ("ns/gw/http", 3)
    first, second = ours.descriptors
    assert [(entry.key, entry.value) for entry in first.entries] == [("user", "ü".encode())]
    assert (first.HasField("hits_addend"), first.hits_addend.value, first.is_negative_hits) == (True, 0, True)
    assert (second.HasField("hits_addend"), second.limit.requests_per_unit, second.limit.unit) == (
        False,
        9,
        rls_pb2.YEAR,
    )


def test_a_response_of_ours() -> None:
    rls = importlib.import_module("envoy_data_plane.envoy.service.ratelimit.v3")
    ours = rls_pb2.RateLimitResponse(overall_code="OVER_LIMIT", raw_body=b"no")
    status = ours.statuses.add(code="OVER_LIMIT", limit_remaining=7)
    status.current_limit.requests_per_unit, status.current_limit.unit, status.current_limit.name = (
        1000,
        rls_pb2.WEEK,
        "n",
    )
    status.duration_until_reset.seconds = 61
    ours.response_headers_to_add.add(key="a", value="b")
    ours.request_headers_to_add.add(key="c", raw_value=b"d")
    ours.dynamic_metadata["e"] = 1
    theirs = rls.RateLimitResponse.parse(ours.SerializeToString())
    assert (theirs.overall_code.name, theirs.raw_body) == ("OVER_LIMIT", b"no")
    [read] = theirs.statuses
    assert (read.code.name, read.limit_remaining, read.duration_until_reset.total_seconds()) == ("OVER_LIMIT", 7, 61)
    limit = read.current_limit
    assert (limit.requests_per_unit, limit.unit.name, limit.name) == (1000, "WEEK", "n")
    assert [(header.key, header.value) for header in theirs.response_headers_to_add] == [("a", "b")]
    assert [(header.key, header.raw_value) for header in theirs.request_headers_to_add] == [("c", b"d")]
    assert "e" in theirs.dynamic_metadata.fields


@pytest.mark.parametrize(
    ("ours", "module", "theirs"),
    [
        (rls_pb2.Unit, "service.ratelimit.v3", "RateLimitResponseRateLimitUnit"),
        (rls_pb2.RateLimitResponse.Code, "service.ratelimit.v3", "RateLimitResponseCode"),
    ],
)
def test_numbers_are_envoys(ours: object, module: str, theirs: str) -> None:
    enum = getattr(importlib.import_module(f"envoy_data_plane.envoy.{module}"), theirs)
    assert dict(ours.items()) == {member.name: member.value for member in enum}  # type: ignore[attr-defined]
