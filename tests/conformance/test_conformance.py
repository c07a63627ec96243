# SPDX-License-Identifier: Apache-2.0
"""The conformance tests of the Gateway API Inference Extension, as far as they concern an endpoint picker.

Every test bears the name of the original; its first line is what the original asserts. The gateway is a real Envoy with
what a gateway controller would configure (`gateway.py`); pickers run as the original's manifests start them
(`fixture.py`), and pods are echo servers.

Not here, because only a gateway controller can pass or fail them, by the conditions it writes: InferencePoolAccepted,
InferencePoolMissingEPPRef, InferencePoolResolvedRefsCondition, InferencePoolControllerName,
HTTPRouteInvalidInferencePoolRef. The conditions that other originals check on the way are left out for the same reason.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.cluster import cluster
from tests.conformance.fixture import (
    DP,
    H2C,
    NAMESPACE,
    POOLS,
    PRIMARY,
    SECONDARY,
    EndpointsFile,
    Source,
    echo_pods,
    picker,
)
from tests.conformance.gateway import Gateways, Pool, Rule, gateways
from tests.e2e.client import Answer, ask
from tests.e2e.stack import PATIENCE_S, Epp

pytestmark = pytest.mark.envoy

SELECTION = "test-epp-endpoint-selection"
SERVED = "x-conformance-test-served-endpoint"
BODY = json.dumps(
    {"model": "conformance-fake-model", "prompt": "Write as if you were a critic: San Francisco"}
).encode()
OLDER = """\
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: header-based-testing-filter
- type: destination-endpoint-served-verifier
schedulingProfiles:
- name: conformance-profile
  plugins:
  - pluginRef: header-based-testing-filter
"""
RULES = [
    Rule("/primary", {PRIMARY.name: 1}, host="primary.example.com"),
    Rule("/secondary", {SECONDARY.name: 1}, host="primary.example.com"),
    Rule("/dp", {DP.name: 1}, host="primary.example.com"),
    Rule("/h2c", {H2C.name: 1}, host="primary.example.com"),
    Rule("/weighted", {PRIMARY.name: 70, SECONDARY.name: 30}, host="primary.example.com"),
    Rule("/", {SECONDARY.name: 1}, host="secondary.example.com", gateway="secondary"),
]

SOURCES: dict[str, Callable[[Path], contextlib.AbstractContextManager[Source]]] = {
    "endpoints-file": lambda folder: contextlib.nullcontext(EndpointsFile(folder)),
    "kubernetes": cluster,
}
"""Where pickers learn of their pods; every test runs with each."""


class World:
    """The fixture's world: pods, a picker of every pool, two gateways."""

    def __init__(self, source: Source, pickers: Mapping[str, Epp], running: Gateways) -> None:
        self.source = source
        self.pickers = pickers
        self._ports = running.ports

    def post(self, path: str, selection: str = "", gateway: str = "primary") -> Answer:
        """A completion; `selection` for the header, "" for none."""
        return completion(self._ports[gateway], path, f"{gateway}.example.com", selection)

    def get(self, path: str, selection: str = "", gateway: str = "primary") -> Answer:
        """A GET without a body."""
        return ask(self._ports[gateway], head("GET", path, f"{gateway}.example.com", selection))

    def burst(self, path: str, selection: str, total: int = 100, parallel: int = 10) -> list[Any]:
        """Answers to many completions at once, as JSON; all of them are 200."""
        with ThreadPoolExecutor(parallel) as pool:
            answers = list(pool.map(lambda _: self.post(path, selection), range(total)))
        assert Counter(answer.status for answer in answers) == {200: total}
        return [answer.json() for answer in answers]


def head(method: str, path: str, host: str, selection: str = "", length: int | None = None) -> bytes:
    """A request's head."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "connection: close"]
    lines += [f"{SELECTION}: {selection}"] if selection else []
    lines += ["content-type: application/json", f"content-length: {length}"] if length is not None else []
    return "\r\n".join([*lines, "", ""]).encode()


def completion(port: int, path: str, host: str, selection: str = "") -> Answer:
    """POST `BODY`."""
    return ask(port, head("POST", path, host, selection, len(BODY)) + BODY)


@pytest.fixture(scope="module", params=SOURCES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything running, once for all tests."""
    with contextlib.ExitStack() as parts:
        parts.enter_context(echo_pods(*POOLS))
        source = parts.enter_context(SOURCES[request.param](tmp_path_factory.mktemp("source")))
        pickers = {pool.name: parts.enter_context(picker(pool, source)) for pool in POOLS}
        ports = {name: running.port for name, running in pickers.items()}
        yield World(source, pickers, parts.enter_context(gateways(POOLS, ports, RULES)))


def test_EppUnAvailableFailOpen(world: World) -> None:
    """Pool with FailOpen: the pod of the header answers; with the picker gone, requests get 200 from any pod of it."""
    rules = [Rule("/", {SECONDARY.name: 1}, host="secondary.example.com", gateway="secondary")]
    target = SECONDARY.names[1]
    with (
        picker(SECONDARY, world.source) as alone,
        gateways([SECONDARY], {SECONDARY.name: alone.port}, rules) as running,
    ):
        port, host = running.ports["secondary"], "secondary.example.com"
        for _ in range(5):
            answer = completion(port, "/failopen-pool-test", host, SECONDARY.pods[target])
            assert (answer.status, answer.json()["pod"]) == (200, target)
        alone.stop()
        deadline_s = time.monotonic() + PATIENCE_S
        while completion(port, "/failopen-pool-test", host).status != 200:
            assert time.monotonic() < deadline_s, "the gateway never fails open"
        for _ in range(20):
            answer = completion(port, "/failopen-pool-test", host, SECONDARY.pods[target])
            assert answer.status == 200
            assert answer.json()["pod"] in SECONDARY.names


def test_GatewayDestinationEndpointServed(world: World) -> None:
    """The pod of the header answers, and the response names it with its port in x-conformance-test-served-endpoint."""
    for name, ip in PRIMARY.pods.items():
        answer = world.post("/primary/destination-endpoint-served-test", ip)
        assert answer.status == 200
        assert answer.json()["pod"] == name
        assert answer.json()["namespace"] == NAMESPACE
        assert answer.get(SERVED) == f"{ip}:3000"


@pytest.mark.parametrize("chosen", [[2], [0, 1], [0, 1, 2]], ids=["one", "two", "three"])
def test_GatewayFollowingEPPRouting(world: World, chosen: list[int]) -> None:
    """One, two or three IPs in the header: of 100 requests, 10 at a time, only those pods answer (here: all of them)."""
    names = [PRIMARY.names[number] for number in chosen]
    answers = world.burst("/primary/primary-gateway-test", ",".join(PRIMARY.pods[name] for name in names))
    assert {answer["pod"] for answer in answers} == set(names)


@pytest.mark.parametrize(
    "allowed",
    [
        {1: ["3000", "3002", "3004"]},
        {0: ["3000", "3002", "3004"], 2: ["3002"]},
        {0: ["3000", "3002", "3004"], 1: ["3000", "3004"], 2: ["3000", "3002", "3004"]},
    ],
    ids=["one pod", "two pods, one of them by one rank", "three pods, one of them by two ranks"],
)
def test_GatewayFollowingEPPRoutingWithDataParallelism(world: World, allowed: dict[int, list[str]]) -> None:
    """IP and IP:port mixed, over ports 3000, 3002, 3004: answers come from allowed pods and ports (here: all of them)."""
    items = []
    for number, ports in allowed.items():
        ip = DP.ips[number]
        items += [ip] if len(ports) == 3 else [f"{ip}:{port}" for port in ports]
    answers = world.burst("/dp/primary-gateway-dp-test", ",".join(items))
    expected = {(DP.names[number], port) for number, ports in allowed.items() for port in ports}
    assert {(answer["pod"], answer["httpPort"]) for answer in answers} == expected


def test_GatewayWeightedAcrossTwoInferencePools(world: World) -> None:
    """A 70/30 route, IPs of both pools in the header: pickers pass over foreign IPs; 200 requests split by weight."""
    answers = world.burst("/weighted/weighted-two-pools-test", ",".join(PRIMARY.ips + SECONDARY.ips), 200, 5)
    pods = Counter(answer["pod"] for answer in answers)
    assert set(pods) == {*PRIMARY.names, *SECONDARY.names}
    share = sum(pods[name] for name in PRIMARY.names) / 200
    assert abs(share - 0.7) <= max(0.1, 3 * math.sqrt(0.7 * 0.3 / 200))


def test_HTTPRouteMultipleGatewaysDifferentPools(world: World) -> None:
    """Two gateways, two pools: GETs get 200 from a pod of the right pool."""
    for _ in range(10):
        for gateway, path, pool in (("primary", "/primary", PRIMARY), ("secondary", "/", SECONDARY)):
            answer = world.get(path, gateway=gateway)
            assert answer.status == 200
            assert answer.json()["pod"] in pool.names


def test_HTTPRouteMultipleRulesDifferentPools(world: World) -> None:
    """Two rules of one route, by path: GETs get 200 from a pod of the right pool."""
    for _ in range(10):
        for path, pool in (("/primary", PRIMARY), ("/secondary", SECONDARY)):
            answer = world.get(path)
            assert answer.status == 200
            assert answer.json()["pod"] in pool.names


@pytest.mark.parametrize(
    ("path", "pool", "port", "proto"),
    [
        ("/h2c", H2C, 3001, "HTTP/2.0"),
        ("/secondary", SECONDARY, 3000, "HTTP/1.1"),
        ("/primary", PRIMARY, 3000, "HTTP/1.1"),
    ],
    ids=["h2c", "http", "unset"],
)
def test_InferencePoolAppProtocol(world: World, path: str, pool: Pool, port: int, proto: str) -> None:
    """appProtocol h2c, http and none: the pod and port of the header answer over the right protocol."""
    for name, ip in pool.pods.items():
        answer = world.post(f"{path}/inferencepool-app-protocol", f"{ip}:{port}")
        assert answer.status == 200
        assert (answer.json()["pod"], answer.json()["proto"]) == (name, proto)
        assert answer.get(SERVED) == f"{ip}:{port}"


@pytest.mark.parametrize("case", ["unspecified", "matching", "wrong"])
def test_InferencePoolHTTPRoutePortValidation(world: World, case: str) -> None:
    """A backendRef's port, absent, right or wrong, plays no part: GETs get 200 from the pool."""
    # The gateway ignores it when it configures Envoy; what is left for a picker is the GET.
    answer = world.get(f"/primary/test-port-{case}")
    assert answer.status == 200
    assert answer.json()["pod"] in PRIMARY.names


def test_InferencePoolInvalidEPPService(world: World) -> None:
    """A pool whose picker is no service: requests get 500 to 504."""
    rules = [Rule("/", {PRIMARY.name: 1})]
    nobody = 1
    with gateways([PRIMARY], {PRIMARY.name: nobody}, rules) as running:
        answer = completion(running.ports["primary"], "/invalid-epp-test", "any.example.com")
        assert answer.status in (500, 501, 502, 503, 504)


def test_without_the_header_requests_are_routed_as_ever(world: World) -> None:
    """Not an original; lwepp: any ready pod answers, and the response names it."""
    for send in (world.post, world.get):
        answers = [send("/primary/no-header") for _ in range(10)]
        assert {answer.status for answer in answers} == {200}
        for answer in answers:
            assert answer.get(SERVED) == f"{PRIMARY.pods[answer.json()['pod']]}:3000"


def test_a_get_without_a_body_obeys_the_header(world: World) -> None:
    """Not an original; lwepp: the header decides for GETs, too."""
    for name, ip in DP.pods.items():
        answer = world.get("/dp/anything", f"{ip}:3004")
        assert (answer.status, answer.json()["pod"], answer.json()["httpPort"]) == (200, name, "3004")


def test_a_header_that_names_nobody_of_the_pool_is_refused(world: World) -> None:
    """Not an original; the full picker: 429. Nobody else answers in place of those that were named."""
    for selection in ("192.0.2.1", ",".join(SECONDARY.ips), f"{PRIMARY.ips[0]}:3002", "no-address", ","):
        for send in (world.post, world.get):
            answer = send("/primary/nobody", selection)
            assert (answer.status, answer.get("x-llm-d-request-dropped-reason")) == (429, "rejected-saturated")


def test_the_response_names_pool_and_choice(world: World) -> None:
    """Not an original; lwepp: which picker was asked, and what it chose."""
    answer = world.post("/secondary/named", SECONDARY.ips[2])
    assert answer.get("x-conformance-test-epp-pool") == SECONDARY.name
    assert answer.get("x-conformance-test-selected-endpoint") == f"{SECONDARY.ips[2]}:3000"


def test_the_older_manifests_configuration(world: World) -> None:
    """Not an original; up to v1.3 the full picker ran, with this configuration: completions need the header, GETs go on
    without it, as HTTPRouteMultipleGatewaysDifferentPools and its like ask for."""
    rules = [Rule("/", {DP.name: 1})]
    with (
        picker(DP, world.source, "--conformance=off", "--config-text", OLDER) as alone,
        gateways([DP], {DP.name: alone.port}, rules) as running,
    ):
        port = running.ports["primary"]
        assert completion(port, "/dp", "a").status == 429
        assert ask(port, head("GET", "/", "a")).json()["pod"] in DP.names
        answers = [completion(port, "/dp", "a", f"{DP.ips[1]},192.0.2.1") for _ in range(20)]
        assert {answer.json()["pod"] for answer in answers} == {DP.names[1]}
        assert {answer.get(SERVED) for answer in answers} <= {f"{DP.ips[1]}:{port}" for port in DP.ports}


def test_the_mode_is_announced_once(world: World) -> None:
    """Not an original: whoever runs a picker that obeys clients is told so."""
    for running in world.pickers.values():
        assert sum("conformance mode" in line for line in running.lines) == 1
