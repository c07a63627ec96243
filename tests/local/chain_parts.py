# SPDX-License-Identifier: Apache-2.0
"""A topology of both kinds of targets, for tests of what is made of it: a pool of four, a plain backend, two limits."""

from __future__ import annotations

import random
from typing import Any

from epp.local.chain.plan import Plan, Wishes, make_plan
from epp.local.ports import Ports
from epp.manifests.limits import Charge, LimitPolicy, LimitRule, Match, Selector, Unit
from epp.manifests.topology import Backend, Cost, HeaderMatch, Listener, Pool, Route, Rule, Target, Topology

QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
LLAMA = "llama3-1b"
POOL = "kserve-test/qwen-instruct-inference-pool"
BACKEND = "default/llama"
TOTAL = Cost("llm_total_token", "TotalToken")


def tokens_per_user(model: str, requests: int = 1000, unit: Unit = Unit.HOUR, **options: Any) -> LimitRule:
    """The tutorials' limit."""
    selectors = (
        Selector("rule-0-match-0", "x-user-id", Match.DISTINCT),
        Selector("rule-0-match-1", "x-ai-eg-model", Match.EXACT, model),
    )
    charge = Charge(namespace="io.envoy.ai_gateway", key="llm_total_token")
    return LimitRule(selectors, requests, unit, Charge(number=0), charge, **options)


def route(name: str, gateway: str, model: str, *targets: Target, costs: tuple[Cost, ...] = (TOTAL,)) -> Route:
    """A route of one rule."""
    match = HeaderMatch("x-ai-eg-model", model)
    return Route(name, (gateway,), (Rule(f"{name}/rule/0", ((match,),), targets, 60.0),), costs)


def both(**changes: Any) -> Topology:
    """Two gateways on one port."""
    values: dict[str, Any] = {
        "listeners": (Listener("kserve-test/ai-gateway", "http", 80), Listener("default/basic", "http", 80)),
        "routes": (
            route("kserve-test/qwen", "kserve-test/ai-gateway", QWEN, Target(POOL, pool=True)),
            route("default/llama", "default/basic", LLAMA, Target(BACKEND, pool=False)),
        ),
        "pools": (Pool(POOL, (QWEN,), replicas=4),),
        "backends": (Backend(BACKEND, (LLAMA,)),),
        "limits": (
            LimitPolicy("kserve-test/limit", (tokens_per_user(QWEN),), gateways=("kserve-test/ai-gateway",)),
            LimitPolicy("default/limit", (tokens_per_user(LLAMA),), gateways=("default/basic",)),
        ),
    }
    return Topology(**{**values, **changes})


def planned(topology: Topology | None = None, seed: int = 1, **wishes: Any) -> Plan:
    """The plan, on free ports."""
    wished = Wishes(**{"port": 0, **wishes})
    ports = Ports(random.Random(seed), usual=False)
    try:
        return make_plan(topology or both(), wished, ports, lookup=lambda name: "10.0.0.9")
    finally:
        ports.close()
