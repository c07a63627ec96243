# SPDX-License-Identifier: Apache-2.0
"""Row `gateway`: the CPU of `epp gateway` for a request, behind real Envoy, next to the bare echo and to our own picker
in the same run: for a model of a pool, whose answer it does not see, and for one that it counts.

The answers are JSON; requests are sent on whole (FULL_DUPLEX_STREAMED), answers are shown as copies (STREAMED).
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.legs import Load, run_leg
from benchmarks.rows import Row
from benchmarks.stack import ECHO, OURS_PLAIN, PODS, Served, Stack, Variant, open_stack, wait_for_port
from epp.local.envoy import EnvoyConfig, bootstrap, find_envoy

GATEWAY = "gateway"
ROUNDS = 5
WARM_UP_S = 1.0
CONNECTIONS = 32
_COSTS = [{"metadataKey": "llm_total_token", "type": "TotalToken"}]
POOLED = Variant("model of a pool", tls=False)
COUNTED = Variant("model counted here", tls=False)
ENTRIES: dict[Variant, dict[str, Any]] = {
    POOLED: {"target": "pool"},
    COUNTED: {"target": "backend", "counts": True, "costs": _COSTS},
}


async def measure(folder: Path, seconds: float) -> list[Row]:
    """A stretch takes `seconds`."""
    async with open_stack(folder) as stack:
        pods = await stack.pods(PODS)
        served = [await stack.path(variant, pods) for variant in (ECHO, OURS_PLAIN)]
        served += [await _path(stack, variant, pods) for variant in ENTRIES]
        costs: dict[Variant, list[float]] = {one.variant: [] for one in served}
        for one in served:
            await run_leg(one, Load(WARM_UP_S, CONNECTIONS))
        for _ in range(ROUNDS):
            for one in served:
                leg = await run_leg(one, Load(seconds, CONNECTIONS))
                costs[one.variant].append(leg.cpu_us_per_stream)
    return rows(costs)


def rows(costs: dict[Variant, list[float]]) -> list[Row]:
    """From the costs of each stretch: both kinds of models, each next to the echo and to the picker."""
    medians = {variant: statistics.median(values) for variant, values in costs.items()}
    details = {variant.name: [round(value, 1) for value in values] for variant, values in costs.items()}
    return [
        Row(GATEWAY, variant.name, medians[variant], "us", medians[reference], name, details={"cpu_us": details})
        for variant in ENTRIES
        for reference, name in ((ECHO, ECHO.name), (OURS_PLAIN, "our own picker, plaintext"))
    ]


async def _path(stack: Stack, variant: Variant, pods: Sequence[str]) -> Served:
    """Start a gateway process, and an Envoy that sends everything to the first pod."""
    port, envoy_port, admin_port = stack.port(), stack.port(), stack.port()
    config_file = stack.folder / f"gateway-{port}.json"
    config_file.write_text(json.dumps({"listeners": {"80": {"models": {"bench": ENTRIES[variant]}}}}))
    argv = ["-m", "epp", "gateway", "--config", str(config_file), "--port", str(port), "--metrics-port", "0"]
    process = await stack.children.start(variant.name, [sys.executable, *argv, "--drain-timeout", "0s"])
    await wait_for_port(process, port)
    bootstrap_file = stack.folder / f"envoy-{port}.json"
    bootstrap_file.write_text(json.dumps(_bootstrap(EnvoyConfig(envoy_port, port, admin_port, epp_tls=False), pods[0])))
    options = ["--config-path", str(bootstrap_file), "--concurrency", "1", "--log-level", "warning"]
    envoy = await stack.children.start("Envoy", [str(find_envoy()), *options, "--disable-hot-restart"])
    await wait_for_port(envoy, envoy_port)
    return Served(variant, process, envoy_port, admin_port)


def _bootstrap(config: EnvoyConfig, pod: str) -> dict[str, Any]:
    document = bootstrap(config)
    resources = document["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    processor = manager["http_filters"][0]["typed_config"]
    processor["processing_mode"]["response_body_mode"] = "STREAMED"
    processor["metadata_options"] = {"receiving_namespaces": {"untyped": ["io.envoy.ai_gateway"]}}
    pool = next(cluster for cluster in resources["clusters"] if cluster["name"] == "pool")
    host, _, port = pod.rpartition(":")
    address = {"socket_address": {"address": host, "port_value": int(port)}}
    for gone in ("lb_policy", "original_dst_lb_config"):
        del pool[gone]
    pool["type"] = "STATIC"
    pool["load_assignment"] = {
        "cluster_name": "pool",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }
    return document
