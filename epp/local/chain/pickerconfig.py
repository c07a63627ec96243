# SPDX-License-Identifier: Apache-2.0
"""The configuration of a pool's picker: the manifest's, and one plugin more that counts the tokens of its answers.

The edit is made on the parsed document, and the result is written as JSON, which is YAML: what the manifest's author
wrote is neither matched by text nor reformatted. Mistakes are told with the lines of the original.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epp.config.build import assemble
from epp.config.catalog import collect
from epp.config.configuration import Configuration
from epp.config.document import parse_document
from epp.config.findings import Findings
from epp.config.load import load_text
from epp.config.schema import API_VERSION, KIND
from epp.manifests.topology import Cost, Route, Unsupported

PLUGIN = "llm-request-costs"


@dataclass(frozen=True, slots=True)
class PickerConfig:
    """A configuration's text, and what it was before the plugin was added, checked."""

    text: str
    checked: Configuration


def costs_of(routes: Iterable[Route], target: str) -> tuple[tuple[Cost, ...], tuple[Unsupported, ...]]:
    """What answers of the pool `target` cost: of all routes to it. Where two mean different things by one metadata
    key, the first holds and the other is told."""
    found: dict[str, tuple[Cost, str]] = {}
    told = []
    for route in routes:
        if not any(aim.pool and aim.name == target for rule in route.rules for aim in rule.targets):
            continue
        for cost in route.costs:
            first, owner = found.setdefault(cost.key, (cost, route.name))
            if first != cost:
                what = f"AIGatewayRoute {route.name} llmRequestCosts {cost.key}"
                why = f"{owner} means {first.type} by it for the same pool {target}: that is counted for both"
                told.append(Unsupported(what, why))
    return tuple(cost for cost, _ in found.values()), tuple(told)


def picker_config(
    text: str | None, added: Mapping[str, Any], source: str, plugin_dirs: Sequence[Path] = ()
) -> PickerConfig:
    """The configuration `text` (None: the built-in one) with the plugin, whose parameters are `added`; with no costs in
    them, and where the configuration counts by itself, as it is.

    `source` is what mistakes are told of. Raises `ConfigErrors`.
    """
    catalog = collect(*plugin_dirs)
    checked = assemble(load_text(text or "", catalog, source=source), lambda: 0.0, rng_seed=0).configuration
    node = parse_document(text or "", Findings())
    document: dict[str, Any] = (node.plain() if node is not None else None) or {
        "apiVersion": API_VERSION,
        "kind": KIND,
    }
    plugins = list(document.get("plugins") or ())
    if added["costs"] and not any(isinstance(plugin, dict) and plugin.get("type") == PLUGIN for plugin in plugins):
        plugins.append({"type": PLUGIN, "parameters": dict(added)})
        document["plugins"] = plugins
    written = json.dumps(document, indent=2) + "\n"
    load_text(written, catalog, source=f"{source} with {PLUGIN}")
    return PickerConfig(written, checked)


def parameters(costs: Sequence[Cost], include_usage: str, backend: str) -> dict[str, Any]:
    """The plugin's parameters; `backend` is what CEL expressions see under that name."""
    told = [{"metadataKey": cost.key, "type": cost.type, **({"cel": cost.cel} if cost.cel else {})} for cost in costs]
    return {"costs": told, "includeUsage": include_usage, "backend": backend}
