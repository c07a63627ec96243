# SPDX-License-Identifier: Apache-2.0
"""Endpoints from the command line."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.contract.discovery import Discovery, EndpointSpec
from epp.contract.errors import UsageError
from epp.discovery.flags import StaticDiscovery, parse_endpoints


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" , ", []),
        ("10.0.0.1:8000", [("default/10.0.0.1-8000", "10.0.0.1:8000")]),
        (
            "10.0.0.1:8000, 10.0.0.1:8001,",
            [("default/10.0.0.1-8000", "10.0.0.1:8000"), ("default/10.0.0.1-8001", "10.0.0.1:8001")],
        ),
        ("[::1]:80", [("default/0-0-0-0-0-0-0-1-80", "[::1]:80")]),
        ("[2001:DB8::10]:80", [("default/2001-db8-0-0-0-0-0-10-80", "[2001:db8::10]:80")]),
    ],
)
def test_lists_are_read(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(spec.id, spec.address) for spec in parse_endpoints(text)] == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("10.0.0.1", "write IP:PORT"),
        ("::1:80", "write IP:PORT"),
        ("[::1:80", "write IP:PORT"),
        ("[::1]", "write IP:PORT"),
        ("pod-0:8000", "'pod-0' is no IPv4 or IPv6 address; host names are not looked up"),
        ("10.0.0.256:8000", "10.0.0.256"),
        ("10.0.0.1:0", "1 to 65535"),
        ("10.0.0.1:65536", "1 to 65535"),
        ("10.0.0.1:80a", "1 to 65535"),
        ("10.0.0.1:+80", "1 to 65535"),
        ("10.0.0.1:", "1 to 65535"),
        ("[fe80::1%eth0]:80", "leave '%eth0' out"),
        ("10.0.0.1:80,10.0.0.1:80", "listed twice"),
        ("[::1]:80,[0:0::1]:80", "listed twice"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match="--endpoints: ") as caught:
        parse_endpoints(text)
    assert message in str(caught.value)


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.ip_addresses(v=6), st.integers(1, 65535))
def test_every_ipv6_address_has_a_valid_name_of_its_own(ip: object, port: int) -> None:
    (spec,) = parse_endpoints(f"[{ip}]:{port}")
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", spec.name)
    assert len(spec.name) <= 63
    assert (spec.ip, spec.port) == (str(ip), port)
    *groups, last = spec.name.split("-")
    assert (int("".join(group.zfill(4) for group in groups), 16), int(last)) == (int(ip), port)  # type: ignore[call-overload]


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=30))
def test_any_text_is_a_list_or_a_usage_error(text: str) -> None:
    try:
        parse_endpoints(text)
    except UsageError as error:
        assert "\n" not in str(error).replace("\\n", "")


async def test_they_are_published_once() -> None:
    published: list[list[EndpointSpec]] = []
    source = StaticDiscovery(parse_endpoints("10.0.0.1:8000"))
    assert isinstance(source, Discovery)
    task = asyncio.create_task(source.run(lambda specs: published.append(list(specs))))
    for _ in range(5):
        await asyncio.sleep(0)
    assert [[spec.address for spec in specs] for specs in published] == [["10.0.0.1:8000"]]
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
