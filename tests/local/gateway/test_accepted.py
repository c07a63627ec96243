# SPDX-License-Identifier: Apache-2.0
"""Envoy takes what is generated: for every sample, and for topologies that nobody would write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epp.local.gateway.bootstrap import write
from epp.manifests.limits import Absent, Charge, LimitPolicy, LimitRule, Match, Selector, Unit
from epp.manifests.read import read_files
from epp.manifests.resolve import resolve
from epp.manifests.service import service_rules
from epp.manifests.topology import (
    ApiKey,
    Backend,
    HeaderMatch,
    Listener,
    Pool,
    Route,
    Rule,
    Secret,
    Target,
    Tls,
    Topology,
)
from tests.local.gateway.build import places_of
from tests.local.gateway.certificates import Authority

SAMPLES = sorted((Path(__file__).parents[3] / "deploy" / "local").glob("*.yaml"))
KEY = "sk-of-the-test"


class AnyKey(dict[str, str]):
    """An environment in which every key is set."""

    def __missing__(self, name: str) -> str:
        return KEY

    def get(self, name: str, default: Any = None) -> Any:
        return KEY

    def __contains__(self, name: object) -> bool:
        return True


def topology_of(sample: Path) -> Topology:
    return resolve(read_files([sample]), environ=AnyKey())


@pytest.mark.envoy
@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_envoy_takes_every_sample(sample: Path, tmp_path: Path, accepted: Callable[[Path], None]) -> None:
    topology = topology_of(sample)
    assert topology.routes
    bootstrap = write(tmp_path, topology, places_of(topology))
    accepted(bootstrap)
    assert KEY not in bootstrap.read_text()


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_descriptor_of_a_sample_has_its_limit_at_the_service(sample: Path, tmp_path: Path) -> None:
    topology = topology_of(sample)
    trees = {domain["domain"]: domain["descriptors"] for domain in service_rules(topology).domains}
    found = list(sent(json.loads(write(tmp_path, topology, places_of(topology)).read_text())))
    assert bool(found) is bool(topology.limits)
    for domain, entries in found:
        node: Mapping[str, Any] = {"descriptors": trees[domain]}
        for key, value in entries:
            fitting = [one for one in node["descriptors"] if one["key"] == key and one.get("value", value) == value]
            assert fitting, (key, value, node)
            node = next((one for one in fitting if "value" in one), fitting[0])
        assert "rate_limit" in node


def sent(value: Any, domain: str = "") -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Domain and descriptor of every rate limit in a bootstrap; the value of a header is None."""
    if isinstance(value, list):
        for one in value:
            yield from sent(one, domain)
    elif isinstance(value, dict):
        for limit in value.get("rate_limits", ()):
            yield value["domain"], [entry(action) for action in limit["actions"]]
        for one in value.values():
            yield from sent(one, domain)


def entry(action: Mapping[str, Any]) -> tuple[str, str | None]:
    ((_, shape),) = action.items()
    return shape["descriptor_key"], shape.get("descriptor_value")


NAMES = st.sampled_from(["d/a", "d/b", "kserve-test/c"])
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)
KEYS = st.none() | st.builds(
    ApiKey, st.just(Secret(KEY)), st.sampled_from(["authorization", "x-api-key"]), st.sampled_from(["", "Bearer "])
)
HEADERS = st.builds(HeaderMatch, st.sampled_from(["x-ai-eg-model", "x-tier", "accept"]), TEXTS) | st.just(
    HeaderMatch("x-ai-eg-model", "Qwen/.*", regex=True)
)
CHARGES = st.none() | st.builds(Charge, st.integers(0, 10**9)) | st.just(Charge(None, "io.envoy.ai_gateway", "k"))
SELECTORS = st.builds(
    Selector,
    st.sampled_from(["rule-0-match-0", "rule-0-match-1"]),
    st.sampled_from(["x-user-id", ":path", ":method", "x-ai-eg-model"]),
    st.sampled_from([Match.EXACT, Match.DISTINCT, Match.PREFIX]),
    TEXTS,
    st.booleans(),
)
LIMITS = st.builds(
    LimitRule,
    st.lists(SELECTORS, max_size=3).map(tuple),
    st.integers(0, 2**32 - 1),
    st.sampled_from(Unit),
    CHARGES,
    CHARGES,
    st.booleans(),
    st.booleans(),
)
HOSTS = st.sampled_from(["", "a.example", "*.example"])
BACKENDS = st.builds(
    Backend,
    st.just(""),
    endpoints=st.lists(st.sampled_from(["10.0.0.1:80", "api.example.com:443", "[::1]:8000"]), max_size=3).map(tuple),
    prefix=st.sampled_from(["", "/", "/v1beta/openai", "a\\1b"]),
    tls=st.none() | st.sampled_from([Tls("api.example.com", Authority().pem), Tls("10.0.0.1", Authority().pem)]),
    key=KEYS,
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    pools = draw(st.lists(NAMES, unique=True))
    backends = draw(st.dictionaries(NAMES, BACKENDS))
    targets = [Target(name, True) for name in pools] + [Target(name, False) for name in backends]
    chosen = st.lists(st.sampled_from(targets), max_size=3) if targets else st.just([])
    rules = st.builds(
        Rule,
        TEXTS,
        st.lists(st.lists(HEADERS, max_size=2).map(tuple), max_size=2).map(tuple),
        chosen.map(tuple),
        st.none() | st.floats(0, 3600),
    )
    gateways = st.sampled_from([("d/gw",), ("d/gw", "d/other/http"), ("d/none",)])
    return Topology(
        listeners=tuple(
            Listener(gateway, "http", draw(st.sampled_from([80, 8080])), draw(HOSTS)) for gateway in ("d/gw", "d/other")
        ),
        routes=tuple(draw(st.lists(st.builds(Route, NAMES, gateways, st.lists(rules, max_size=3).map(tuple))))),
        pools=tuple(Pool(name, key=draw(KEYS)) for name in pools),
        backends=tuple(
            Backend(name, endpoints=one.endpoints, prefix=one.prefix, tls=one.tls, key=one.key)
            for name, one in backends.items()
        ),
        limits=tuple(
            draw(
                st.lists(
                    st.builds(
                        LimitPolicy,
                        st.just("d/p"),
                        st.lists(LIMITS, max_size=3).map(tuple),
                        st.just(("d/gw", "d/other/http")),
                        st.lists(NAMES).map(tuple),
                        st.sampled_from(Absent),
                    ),
                    max_size=2,
                )
            )
        ),
    )


@pytest.mark.envoy
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(topology=topologies())
def test_envoy_takes_any_topology(topology: Topology, tmp_path: Path, accepted: Callable[[Path], None]) -> None:
    accepted(write(tmp_path, topology, places_of(topology), access_log=tmp_path / "access.log"))
