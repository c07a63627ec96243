# SPDX-License-Identifier: Apache-2.0
"""The files that parts are started with, written into the private directory of the run."""

from __future__ import annotations

import json
from pathlib import Path

from epp.gateway.config import write_config
from epp.gateway.from_topology import config_of
from epp.local.chain.folder import Folder
from epp.local.chain.parts import Files
from epp.local.chain.plan import Plan, endpoints_file
from epp.manifests.limits import ServiceRules

ENVOY_FILE = "envoy.json"


def write_files(plan: Plan, rules: ServiceRules, folder: Folder) -> Files:
    """What all parts but Envoy read. Raises `EppError`."""
    limits = None
    if plan.places.ratelimit is not None:
        limits = folder.path / "limits"
        limits.mkdir(mode=0o700)
        for number, domain in enumerate(rules.domains):
            folder.write(f"limits/{number}.yaml", json.dumps(domain, indent=2) + "\n")
    gateway = config_of(plan.topology, include_usage=plan.wishes.include_usage)
    pickers, endpoints = {}, {}
    for number, pool in enumerate(plan.pools):
        pickers[pool.pool.name] = folder.write(f"picker-{number}.yaml", pool.config.text)
        listed = json.dumps(endpoints_file(pool), indent=2) + "\n"
        endpoints[pool.pool.name] = folder.write(f"endpoints-{number}.json", listed)
    return Files(
        envoy=folder.path / ENVOY_FILE,
        gateway=folder.write("gateway.json", write_config(gateway).decode()),
        limits=limits,
        pickers=pickers,
        endpoints=endpoints,
    )


def write_bootstrap(plan: Plan, folder: Folder) -> None:
    """What Envoy reads, and its keys. Takes the better part of a second; safe in a thread. Raises `EppError`."""
    from epp.local.gateway.bootstrap import write

    write(folder.path, plan.topology, plan.places, access_log=Path("/dev/stdout"))
