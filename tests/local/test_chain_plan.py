# SPDX-License-Identifier: Apache-2.0
"""What a topology becomes: processes, addresses and configurations, before anything is started."""

from __future__ import annotations

import json
import random
import socket
from contextlib import closing
from dataclasses import replace

import pytest

from epp.config.findings import ConfigErrors
from epp.contract.errors import StartError
from epp.local.chain.addresses import resolved
from epp.local.chain.pickerconfig import costs_of, parameters, picker_config
from epp.local.chain.plan import Plan, Wishes, endpoints_file, make_plan
from epp.local.gateway.places import Address
from epp.local.ports import Ports
from epp.manifests.topology import Backend, Cost, Listener, PickerText, Pool, Target, Tls, Topology
from tests.e2e.stack import SEED_YAML
from tests.local.chain_parts import BACKEND, LLAMA, POOL, QWEN, TOTAL, both, planned, route


def test_pods_have_addresses_of_their_own_and_one_port_and_kserves_names() -> None:
    plan = planned()
    pool, backend = plan.pools[0], plan.backends[0]
    assert [pod.name for pod in pool.pods] == [f"qwen-instruct-kserve-{number}" for number in range(4)]
    assert [pod.place.host for pod in pool.pods] == ["127.0.1.1", "127.0.1.2", "127.0.1.3", "127.0.1.4"]
    assert len({pod.place.port for pod in pool.pods}) == 1
    assert [pod.place.host for pod in backend.pods] == ["127.0.2.1"]
    assert {pod.models for pod in pool.pods} == {(QWEN,)}
    assert {pod.models for pod in backend.pods} == {(LLAMA,)}
    assert len({pod.seed for pod in plan.all_pods}) == 5
    entries = endpoints_file(pool)["endpoints"]
    assert [entry["name"] for entry in entries] == [pod.name for pod in pool.pods]
    assert {entry["namespace"] for entry in entries} == {"kserve-test"}


def test_no_port_is_given_twice_and_all_listen_on_loopback() -> None:
    plan = planned()
    places, pool = plan.places, plan.pools[0]
    assert places.ratelimit is not None
    here = [*places.listeners.values(), places.admin, places.gateway, places.ratelimit, pool.picker]
    assert {place.host for place in here} == {"127.0.0.1"}
    ports = [place.port for place in here] + [pool.health, pool.metrics, plan.gateway_page, plan.limits_page]
    ports += [pool.pods[0].place.port, plan.backends[0].pods[0].place.port]
    assert len(set(ports)) == len(ports)


def test_listeners_follow_the_wished_port_in_the_order_of_theirs() -> None:
    listeners = tuple(Listener("g/g", f"l{port}", port) for port in (8443, 80, 90, 80))

    def plan_at(port: int) -> Plan:
        with closing(Ports(random.Random(5), usual=True)) as ports:
            return make_plan(both(listeners=listeners), Wishes(port=port), ports)

    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
        with pytest.raises(StartError, match=f"port {free} is taken"):
            plan_at(free)
    plan = plan_at(free)
    assert {port: place.port for port, place in plan.places.listeners.items()} == {
        80: free,
        90: free + 1,
        8443: free + 2,
    }
    assert plan.url == f"http://localhost:{free}"
    with pytest.raises(StartError, match="port 65536 for a listener"):
        plan_at(65534)


def test_without_limits_there_is_no_rate_limit_service() -> None:
    assert planned(both(limits=())).places.ratelimit is None


@pytest.mark.parametrize("missing", ["listeners", "routes"])
def test_manifests_that_would_serve_nothing_are_told(missing: str) -> None:
    with pytest.raises(StartError, match=r"there is no (Gateway|AIGatewayRoute)"):
        planned(both(**{missing: ()}))


def test_real_servers_take_the_place_of_pods_and_names_are_looked_up() -> None:
    topology = both(
        pools=(Pool(POOL, (QWEN,), endpoints=("10.0.0.1:8000", "gpu-box:8001", "[::1]:8002")),),
        backends=(Backend(BACKEND, (LLAMA,), endpoints=("api.example.com:443",), tls=Tls("api.example.com")),),
    )
    plan = planned(topology)
    assert list(plan.all_pods) == []
    found = [(server.name, str(server.place)) for server in plan.pools[0].servers]
    assert found == [
        ("qwen-instruct-kserve-0", "10.0.0.1:8000"),
        ("qwen-instruct-kserve-1", "10.0.0.9:8001"),
        ("qwen-instruct-kserve-2", "[::1]:8002"),
    ]
    # Envoy looks names of plain backends up itself, and again.
    assert plan.places.backends[BACKEND] == (Address("api.example.com", 443),)
    assert plan.topology.backends[0].tls == Tls("api.example.com")


def test_what_simulated_backends_cannot_do_is_told_and_left_out() -> None:
    topology = both(backends=(Backend(BACKEND, (LLAMA,), tls=Tls("x.example"), prefix="/v1beta/openai"),))
    plan = planned(topology)
    assert [str(item) for item in plan.unsupported] == [
        f"AIServiceBackend {BACKEND} TLS: its simulated pods speak plain HTTP",
        f"AIServiceBackend {BACKEND} schema.prefix /v1beta/openai: its simulated pods are asked under /v1",
    ]
    assert plan.topology.backends[0] == Backend(BACKEND, (LLAMA,))


def test_many_replicas_are_capped_and_it_is_said() -> None:
    topology = both(pools=(Pool(POOL, (QWEN,), replicas=40),))
    plan = planned(topology)
    assert len(plan.pools[0].pods) == 8
    assert [str(item) for item in plan.unsupported] == [
        f"InferencePool {POOL} replicas 40: 8 pods are simulated; --pods says how many"
    ]
    wished = planned(topology, pods=3)
    assert (len(wished.pools[0].pods), len(wished.backends[0].pods), wished.unsupported) == (3, 3, ())


def test_costs_are_those_of_all_routes_to_the_pool_and_a_conflict_is_told() -> None:
    target = Target(POOL, pool=True)
    routes = (
        route("a/one", "g/g", "m", target, costs=(TOTAL, Cost("in", "InputToken"))),
        route("a/two", "g/g", "n", target, costs=(Cost("in", "OutputToken"), Cost("out", "OutputToken"), TOTAL)),
        route("a/other", "g/g", "o", Target("x/y", pool=False), costs=(Cost("z", "InputToken"),)),
    )
    costs, told = costs_of(routes, POOL)
    assert costs == (TOTAL, Cost("in", "InputToken"), Cost("out", "OutputToken"))
    assert [str(item) for item in told] == [
        (
            f"AIGatewayRoute a/two llmRequestCosts in: a/one means InputToken by it for the same pool {POOL}: "
            "that is counted for both"
        )
    ]


COUNTED = parameters([TOTAL], "off", POOL)
SEED = SEED_YAML.replace("plugins:\n", "plugins:   # a comment\n", 1)


def test_the_manifests_configuration_gets_one_plugin_more() -> None:
    config = picker_config(SEED, parameters([TOTAL, Cost("c", "CEL", "input_tokens")], "hidden", POOL), "x")
    document = json.loads(config.text)
    *before, added = document["plugins"]
    assert [plugin["type"] for plugin in before] == [
        "single-profile-handler", "prefix-cache-scorer", "load-aware-scorer", "max-score-picker"
    ]  # fmt: skip
    assert before[2]["parameters"] == {"threshold": 100}
    assert added == {
        "type": "llm-request-costs",
        "parameters": {
            "costs": [
                {"metadataKey": "llm_total_token", "type": "TotalToken"},
                {"metadataKey": "c", "type": "CEL", "cel": "input_tokens"},
            ],
            "includeUsage": "hidden",
            "backend": POOL,
        },
    }
    assert document["schedulingProfiles"][0]["plugins"][0] == {"pluginRef": "prefix-cache-scorer", "weight": 2.0}


def test_without_a_configuration_the_built_in_scorers_stay() -> None:
    config = picker_config(None, COUNTED, "x")
    assert [plugin["type"] for plugin in json.loads(config.text)["plugins"]] == ["llm-request-costs"]
    scorers = [scorer.name for scorer in config.checked.profiles[0].scorers]
    assert scorers == ["queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer"]


def test_one_that_counts_already_and_one_without_costs_stay_as_they_are() -> None:
    own = SEED.replace("  - type: max-score", "  - type: llm-request-costs\n  - type: max-score", 1)
    assert json.loads(picker_config(own, COUNTED, "x").text)["plugins"].count({"type": "llm-request-costs"}) == 1
    assert "llm-request-costs" not in picker_config(SEED, parameters([], "off", POOL), "x").text


def test_a_mistake_is_told_with_the_line_of_the_manifest() -> None:
    with pytest.raises(ConfigErrors, match=r"of InferencePool p.*line 6: .*load-aware-scor"):
        picker_config(SEED.replace("load-aware-scorer", "load-aware-scorrer", 1), COUNTED, "of InferencePool p")


def test_what_is_odd_in_a_pickers_configuration_is_a_note_with_the_line_of_its_file() -> None:
    text = "plugins:\n- {type: load-aware-scorer, parameters: {treshold: 100}}\n- type: llm-request-costs\n"
    text += "schedulingProfiles: [{name: default, plugins: [{pluginRef: load-aware-scorer}]}]\n"
    odd = both(pools=(Pool(POOL, (QWEN,), picker_config=PickerText(text, "pool.yaml", 31)),), warnings=("x: y",))
    first, second, third = planned(odd).notes
    assert first == "x: y"
    assert second.startswith(f"the EndpointPickerConfig of InferencePool {POOL} in pool.yaml: line 32: ")
    assert "\"treshold\" is ignored; did you mean 'threshold'?" in second
    assert "line 33: llm-request-costs: no costs are given" in third


@pytest.mark.parametrize("text", ["nothing", "host:", "host:0", "host:65536", ":80"])
def test_an_address_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(StartError, match="is not HOST:PORT"):
        resolved(text, lambda name: "10.0.0.9")


def test_a_pool_is_replaced_in_a_copy_alone() -> None:
    topology: Topology = both()
    planned(replace(topology))
    assert topology == both()
