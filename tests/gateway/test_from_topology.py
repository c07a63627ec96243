# SPDX-License-Identifier: Apache-2.0
"""From manifests to what the process knows of each model."""

from __future__ import annotations

from epp.gateway.config import CostConfig, ModelConfig, read_config, write_config
from epp.gateway.from_topology import config_of
from epp.manifests.topology import Cost, HeaderMatch, Listener, Route, Rule, Target, Topology

GATEWAY = "test/gw"
TOTAL = Cost("llm_total_token", "TotalToken")
HTTP = Listener(GATEWAY, "http", 80)


def model(name: str, *more: HeaderMatch) -> tuple[HeaderMatch, ...]:
    return (HeaderMatch("x-ai-eg-model", name), *more)


def rule(*matches: tuple[HeaderMatch, ...], pool: str = "", backend: str = "", number: int = 0) -> Rule:
    targets = [Target(pool, True)] * bool(pool) + [Target(backend, False)] * bool(backend)
    return Rule(f"test/r/rule/{number}", matches, tuple(targets))


def route(*rules: Rule, costs: tuple[Cost, ...] = (TOTAL,), gateways: tuple[str, ...] = (GATEWAY,)) -> Route:
    return Route("test/r", gateways, rules, costs)


def one(*routes: Route) -> dict[str, ModelConfig | None]:
    """The entries of the only listener; those for models without a name under ""."""
    served = config_of(Topology((HTTP,), routes)).listeners["80"]
    return {**served.models, **({"": served.others} if served.others is not None else {})}


COSTS = (CostConfig("llm_total_token", "TotalToken"),)
POOL = ModelConfig("pool", "test/p")
BACKEND = ModelConfig("backend", "test/b", True, COSTS, "hidden")


def test_a_pool_is_not_counted_here_and_a_backend_is() -> None:
    entries = one(route(rule(model("a"), pool="test/p"), rule(model("b"), backend="test/b")))
    assert entries == {"a": POOL, "b": BACKEND}


def test_without_costs_nothing_is_injected() -> None:
    assert one(route(rule(model("b"), backend="test/b"), costs=())) == {"b": ModelConfig("backend", "test/b", True)}


def test_several_matches_are_several_models() -> None:
    assert set(one(route(rule(model("a"), model("b"), backend="test/b")))) == {"a", "b"}


def test_a_pool_beside_a_backend_is_counted_here_too() -> None:
    assert one(route(rule(model("a"), pool="test/p", backend="test/b"))) == {"a": BACKEND}


def test_rules_with_other_headers_are_put_together() -> None:
    beta = HeaderMatch("x-beta", "1")
    price = Cost("price", "CEL", "1u")
    entries = one(
        route(rule(model("a", beta), backend="test/b")),
        route(rule(model("a"), pool="test/p")),
        route(rule(model("c", beta), backend="test/b")),
        route(rule(model("c"), backend="test/d"), costs=(price, TOTAL)),
    )
    assert entries["a"] == BACKEND
    both = (*COSTS, CostConfig("price", "CEL", "1u"))
    assert entries["c"] == ModelConfig("backend", "test/b", True, both, "hidden")


def test_the_first_rule_that_takes_all_of_a_model_wins() -> None:
    entries = one(route(rule(model("a"), pool="test/p")), route(rule(model("a"), backend="test/b")))
    assert entries == {"a": POOL}


def test_rules_without_a_name_are_for_the_others() -> None:
    regex = (HeaderMatch("x-ai-eg-model", "gpt-.*", regex=True),)
    assert one(route(rule(regex, pool="test/p"), rule(regex, backend="test/b"))) == {"": BACKEND}
    assert one(route(rule(pool="test/p"), rule(backend="test/b"))) == {"": POOL}
    assert one(route(rule((HeaderMatch("x-beta", "1"),), backend="test/b"))) == {"": BACKEND}


def test_listeners_of_one_port_are_one_and_others_apart() -> None:
    second = Listener("test/gw2", "http", 80)
    private = Listener(GATEWAY, "private", 8080)
    routes = (
        route(rule(model("a"), pool="test/p")),
        route(rule(model("b"), backend="test/b"), gateways=("test/gw2",)),
        route(rule(model("c"), backend="test/b"), gateways=("test/gw/private",)),
        route(rule(model("d"), backend="test/b"), gateways=("test/elsewhere",)),
    )
    config = config_of(Topology((HTTP, second, private), routes), include_usage="off")
    assert {key: set(one.models) for key, one in config.listeners.items()} == {"80": {"a", "b"}, "8080": {"a", "c"}}
    assert config.listeners["80"].models["b"].include_usage == "off"
    assert read_config(write_config(config), "written") == config
