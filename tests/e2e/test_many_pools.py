# SPDX-License-Identifier: Apache-2.0
"""Many pools in one process behind real Envoy: every request reaches its own pool, whatever happens to the others."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.client import Answer, Load, chat, head, post
from tests.e2e.stack import PATIENCE_S, Envoy, Epp, Page, connection_manager, envoy, pods, serving

pytestmark = pytest.mark.envoy

BROKEN = "plugins: [{type: no-such-plugin}]\n"
RANDOM = (
    "plugins: [{type: random-picker}]\nschedulingProfiles: [{name: default, plugins: [{pluginRef: random-picker}]}]\n"
)
RAISING = """\
from epp.api import scorer

@scorer("raising")
class Raising:
    def __init__(self, context):
        raise RuntimeError("no luck today")
    def score(self, request, endpoints):
        return endpoints.rows * 0.0
"""
USES_RAISING = "plugins: [{type: raising}, {type: max-score-picker}]\n"


def grpc_service(authority: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "epp", "authority": authority}}
    service["initial_metadata"] = [{"key": key, "value": value} for key, value in metadata.items()]
    return service


def routed(ways: Mapping[str, tuple[str, Mapping[str, str]]]) -> Callable[[dict[str, Any]], None]:
    """A route for each way, by the header `x-way`: the authority and metadata that the picker is called with."""

    def adapt(document: dict[str, Any]) -> None:
        [host] = connection_manager(document)["route_config"]["virtual_hosts"]
        [plain] = host["routes"]
        kind = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
        host["routes"] = [
            {
                "match": {"prefix": "/", "headers": [{"name": "x-way", "string_match": {"exact": way}}]},
                "route": plain["route"],
                "typed_per_filter_config": {
                    "envoy.filters.http.ext_proc": {
                        "@type": kind,
                        "overrides": {"grpc_service": grpc_service(authority, metadata)},
                    }
                },
            }
            for way, (authority, metadata) in ways.items()
        ]

    return adapt


WAYS: dict[str, tuple[str, Mapping[str, str]]] = {
    "a": ("pool-a.team.svc:9002", {}),
    "b": ("pool-b.team.svc.cluster.local", {}),
    "c": ("whatever:1", {"x-epp-pool": "team/pool-c"}),
    "generated": ("envoy.clusters.endpointpicker_pool-a_team_ext_proc", {}),
    "d": ("pool-d.team", {}),
    "stranger": ("other.team.svc:9002", {}),
    "mistaken": ("pool-a.team.svc:9002", {"x-epp-pool": "team/none"}),
}


def listed(name: str, addresses: Sequence[str]) -> str:
    entries = [address.rpartition(":") for address in addresses]
    lines = [f"- {{name: {name}-{at}, address: {ip}, port: {port}}}" for at, (ip, _, port) in enumerate(entries)]
    return "\n".join(["endpoints:", *lines, ""])


class Running:
    """Three pools of two pods each, a picker, and Envoy with a route for each way."""

    def __init__(self, folder: Path, addresses: Sequence[str]) -> None:
        self.endpoints, self.configs = folder / "endpoints", folder / "configs"
        self.endpoints.mkdir()
        self.configs.mkdir()
        self.addresses = {
            f"pool-{name}": addresses[at : at + 2] for name, at in (("a", 0), ("b", 2), ("c", 4), ("d", 6))
        }
        for pool in ("pool-a", "pool-b", "pool-c"):
            self.list(pool)
        (self.configs / "default.yaml").write_text(RANDOM)
        (self.configs / "team.pool-b.yaml").write_text(BROKEN)
        (self.configs / "pool-c.yaml").write_text(USES_RAISING)
        (self.configs / "pool-z.yaml").write_text(RANDOM)
        self.plugins = folder / "plugins"
        self.plugins.mkdir()
        (self.plugins / "raising.py").write_text(RAISING)
        self.epp: Epp
        self.envoy: Envoy

    def flags(self) -> list[str]:
        return [
            f"--endpoints-dir={self.endpoints}", f"--config-dir={self.configs}", f"--plugin-dir={self.plugins}",
            "--secure-serving=false",
        ]  # fmt: skip

    def list(self, pool: str) -> None:
        (self.endpoints / f"team.{pool}.yaml").write_text(listed(pool, self.addresses[pool]))

    def ask(self, way: str, **headers: str) -> Answer:
        return post(self.envoy.port, chat("hello"), {"x-way": way, "x-do": "echo", **headers})

    def served_by(self, way: str) -> str:
        """The address of the pod that got a request sent this way."""
        answer = self.ask(way)
        assert answer.status == 200, answer
        return str(dict(answer.json()["headers"])["x-gateway-destination-endpoint"])

    def page(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.epp.metrics_port}{path}", timeout=PATIENCE_S) as response:
            return json.loads(response.read())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pods(*["127.0.0.1:0"] * 8) as served:
        stack = Running(tmp_path_factory.mktemp("pools"), served.addresses)
        with serving(*stack.flags()) as epp, envoy(epp.port, adapt=routed(WAYS), epp_tls=False) as gateway:
            stack.epp, stack.envoy = epp, gateway
            epp.say("pools known: 3")
            yield stack


@pytest.mark.parametrize(("way", "pool"), [("a", "pool-a"), ("b", "pool-b"), ("c", "pool-c"), ("generated", "pool-a")])
def test_every_request_reaches_its_pool(running: Running, way: str, pool: str) -> None:
    for _ in range(6):
        assert running.served_by(way) in running.addresses[pool]


@pytest.mark.parametrize(
    ("way", "named"), [("stranger", "'other.team.svc:9002'"), ("mistaken", "'team/none'"), ("d", "'pool-d.team'")]
)
def test_an_unknown_pool_is_answered_with_the_remedy(running: Running, way: str, named: str) -> None:
    answer = running.ask(way)
    text = answer.body.decode()
    assert (answer.status, answer.get("x-llm-d-request-dropped-reason")) == (503, "rejected-unknown-pool")
    assert text.startswith("inference error: ServiceUnavailable - no pool")
    assert named in text
    assert "x-epp-pool" in text
    assert running.epp.metrics().sum("epp_unknown_pool_streams_total") > 0


def test_what_is_wrong_with_a_pool_stays_there(running: Running) -> None:
    page = running.epp.metrics()
    assert page.sum("epp_degraded", what="team/pool-b/configuration") == 1
    assert page.sum("epp_degraded", what="team/pool-c/configuration") == 1
    assert not [labels for labels, _ in page.samples["epp_degraded"] if "pool-a" in labels["what"]]
    running.epp.say("no-such-plugin")
    running.epp.say("no luck today")
    running.epp.say("no pool uses pool-z.yaml")


def test_one_page_tells_pools_apart(running: Running) -> None:
    before = running.epp.metrics()
    for _ in range(3):
        assert running.ask("a").status == 200
    page = running.epp.settled()

    def grown(name: str, page: Page, pool: str) -> float:
        return page.sum(name, pool=pool) - before.sum(name, pool=pool)

    for name in ("llm_d_epp_request_total", "inference_objective_request_total", "inference_model_request_total"):
        assert grown(name, page, "team/pool-a") == 3
        assert grown(name, page, "team/pool-b") == 0
    assert {labels["pool"] for labels, _ in page.samples["inference_pool_ready_pods"]} == {
        "team/pool-a", "team/pool-b", "team/pool-c",
    }  # fmt: skip
    assert len(page.samples["llm_d_epp_info"]) == 1
    assert page.sum("epp_pools") == 3


def test_decisions_name_their_pool(running: Running) -> None:
    assert running.ask("a", **{"x-request-id": "of-a"}).status == 200
    assert running.ask("b", **{"x-request-id": "of-b"}).status == 200
    assert running.epp.handled("of-b")["pool"] == "team/pool-b"
    every = running.page("/debug/decisions?limit=2")
    assert [decision["pool"] for decision in every["decisions"]] == ["team/pool-b", "team/pool-a"]
    of_a = running.page("/debug/decisions?pool=team/pool-a&limit=1000")
    assert {decision["pool"] for decision in of_a["decisions"]} == {"team/pool-a"}
    [found] = running.page("/debug/decisions?request_id=of-a")["decisions"]
    assert found["pool"] == "team/pool-a"


def test_pools_come_go_and_are_mended_under_load(running: Running) -> None:
    since = len(running.epp.lines)

    async def change() -> None:
        body = chat("hello")
        loads = [
            Load(
                running.envoy.port,
                lambda _, way=way: (
                    head(
                        "POST",
                        "/v1/chat/completions",
                        {"x-way": way, "content-type": "application/json", "content-length": str(len(body))},
                    )
                    + body
                ),
                connections=4,
            )
            for way in ("a", "b")
        ]
        going = [asyncio.create_task(load.run()) for load in loads]
        running.list("pool-d")
        await asyncio.to_thread(running.epp.say, "pool team/pool-d is served", since=since)
        for _ in range(50):
            if (await asyncio.to_thread(running.ask, "d")).status == 200:
                break
        assert await asyncio.to_thread(running.served_by, "d") in running.addresses["pool-d"]
        (running.configs / "team.pool-b.yaml").write_text(RANDOM)
        await asyncio.to_thread(running.epp.say, "team/pool-b/configuration: well again", since=since)
        (running.endpoints / "team.pool-d.yaml").unlink()
        await asyncio.to_thread(running.epp.say, "pool team/pool-d is gone", since=since)
        for load in loads:
            load.stop()
        await asyncio.gather(*going)
        for load in loads:
            assert load.answers.keys() == {200}
            assert load.failed == {}

    asyncio.run(change())
    assert running.ask("d").status == 503


def test_it_stops_as_ever(tmp_path: Path) -> None:
    with pods(*["127.0.0.1:0"] * 8) as served:
        stack = Running(tmp_path, served.addresses)
        with serving(*stack.flags(), "--drain-timeout=0s") as epp:
            epp.signal(signal.SIGTERM)
            assert epp.ended() == 0
            assert not any("Traceback" in line for line in epp.lines)


def test_one_access_log_tells_the_ends_of_all_pools(tmp_path: Path) -> None:
    with pods(*["127.0.0.1:0"] * 8) as served:
        stack = Running(tmp_path, served.addresses)
        flags = [*stack.flags(), "--response-phase=release"]
        with serving(*flags) as epp, envoy(epp.port, adapt=routed(WAYS), epp_tls=False, access_log=True) as gateway:
            stack.epp, stack.envoy = epp, gateway
            # One request in so many is followed to its end, in order to learn.
            for way in ("a", "b") * 10:
                assert stack.ask(way).status == 200
            page = epp.settled()
            assert page.sum("epp_access_log_streams") == 1
            assert page.sum("epp_access_log_entries_total", result="matched") > 0
            for pool in ("team/pool-a", "team/pool-b"):
                assert page.sum("epp_unwatched_ends_total", pool=pool, source="log") > 0
                assert page.sum("epp_unwatched_requests", pool=pool) == 0
