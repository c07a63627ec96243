# SPDX-License-Identifier: Apache-2.0
"""What the built-in plugins declare: names, kinds, parameters, needs, and the order of their documentation."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import epp.plugins
from epp.api import (
    Filter,
    Kind,
    Picker,
    ProfileHandler,
    Reads,
    ResponseEndHook,
    ResponseHook,
    SaturationDetector,
    Scorer,
)
from epp.contract.plugins import PluginSpec, spec_of
from epp.testing import make_plugin

HEADINGS = ["Formula:", "Range:", "Reads:", "Cost:", "Without data:", "Origin:"]
PROTOCOLS = {
    Kind.SCORER: Scorer,
    Kind.FILTER: Filter,
    Kind.PICKER: Picker,
    Kind.PROFILE_HANDLER: ProfileHandler,
    Kind.PASSIVE: ResponseHook | ResponseEndHook,
    Kind.DETECTOR: SaturationDetector,
}


class Declared(NamedTuple):
    module: str
    type: str
    kind: Kind
    reads: Reads = Reads.NOTHING
    parameters: dict[str, Any] = {}  # noqa: RUF012 - read only
    any_parameters: bool = False
    aliases: tuple[str, ...] = ()
    also: tuple[Kind, ...] = ()


COUNT = {"maxNumOfEndpoints": 1}
TABLE = [
    Declared("scorers.queue", "queue-scorer", Kind.SCORER, Reads.WAITING, any_parameters=True),
    Declared(
        "scorers.kv_cache",
        "kv-cache-utilization-scorer",
        Kind.SCORER,
        Reads.KV_UTILIZATION,
        any_parameters=True,
        aliases=("kv-cache-scorer",),
    ),
    Declared("scorers.load_aware", "load-aware-scorer", Kind.SCORER, Reads.WAITING, {"threshold": 128}),
    Declared(
        "scorers.running_requests", "running-requests-size-scorer", Kind.SCORER, Reads.RUNNING, any_parameters=True
    ),
    Declared(
        "scorers.active_request",
        "active-request-scorer",
        Kind.SCORER,
        Reads.IN_FLIGHT,
        {"idleThreshold": 0, "maxBusyScore": 1.0, "requestTimeout": "", "inFlightLoadProducerName": ""},
    ),
    Declared("scorers.lora_affinity", "lora-affinity-scorer", Kind.SCORER, Reads.LORA, any_parameters=True),
    Declared("pickers.max_score", "max-score-picker", Kind.PICKER, Reads.IN_FLIGHT, COUNT),
    Declared("pickers.random", "random-picker", Kind.PICKER, Reads.NOTHING, COUNT),
    Declared("pickers.weighted_random", "weighted-random-picker", Kind.PICKER, Reads.NOTHING, COUNT),
    Declared("handlers.single_profile", "single-profile-handler", Kind.PROFILE_HANDLER, any_parameters=True),
    Declared(
        "filters.header_based_testing",
        "header-based-testing-filter",
        Kind.FILTER,
        parameters={"required": True, "inTurn": False},
    ),
    Declared(
        "responses.destination_endpoint_served",
        "destination-endpoint-served-verifier",
        Kind.PASSIVE,
        Reads.RESPONSE_HEADERS,
        {"pool": ""},
    ),
    Declared(
        "detectors.utilization",
        "utilization-detector",
        Kind.DETECTOR,
        Reads.WAITING | Reads.KV_UTILIZATION,
        {
            "queueDepthThreshold": 5,
            "kvCacheUtilThreshold": 0.8,
            "metricsStalenessThreshold": "200ms",
            "headroom": 0.0,
        },
        also=(Kind.FILTER,),
    ),
    Declared(
        "costs.llm_request_costs",
        "llm-request-costs",
        Kind.PASSIVE,
        Reads.BODY | Reads.RESPONSE_BODY,
        {
            "costs": (),
            "llmRequestCosts": (),
            "metadataNamespace": "io.envoy.ai_gateway",
            "tenantHeader": "x-user-id",
            "includeUsage": "off",
            "backend": "",
        },
    ),
]
PARTS = {"costs.rules", "costs.cel"}
"""Modules of a plugin that hold no plugin themselves."""
every_plugin = pytest.mark.parametrize("declared", TABLE, ids=lambda declared: declared.type)


def load(declared: Declared) -> ModuleType:
    return importlib.import_module(f"epp.plugins.{declared.module}")


def tagged(module: ModuleType) -> tuple[Any, PluginSpec]:
    """The one tagged object of a module, and its spec."""
    found = [(target, spec) for target in vars(module).values() if (spec := spec_of(target)) is not None]
    assert len(found) == 1
    return found[0]


@every_plugin
def test_spec(declared: Declared) -> None:
    _, spec = tagged(load(declared))
    assert spec.type == declared.type
    assert spec.kinds == {declared.kind, *declared.also}
    assert spec.reads == declared.reads
    assert spec.aliases == declared.aliases
    assert spec.any_parameters == declared.any_parameters


@every_plugin
def test_parameters_and_their_defaults(declared: Declared) -> None:
    _, spec = tagged(load(declared))
    defaults = dataclasses.asdict(spec.parameters()) if spec.parameters else {}
    assert defaults == declared.parameters
    for name in defaults:
        assert f"* {name}: " in (spec.parameters.__doc__ or "")


@every_plugin
def test_an_instance_satisfies_its_protocol(declared: Declared) -> None:
    target, _ = tagged(load(declared))
    for kind in (declared.kind, *declared.also):
        assert isinstance(make_plugin(target), PROTOCOLS[kind])


@every_plugin
def test_documentation_has_every_heading_in_order(declared: Declared) -> None:
    _, spec = tagged(load(declared))
    found = [word for line in inspect.cleandoc(spec.doc).splitlines() for word in HEADINGS if line.startswith(word)]
    assert found == HEADINGS


@every_plugin
def test_of_this_package_only_the_public_face_is_imported(declared: Declared) -> None:
    tree = ast.parse(inspect.getsource(load(declared)))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = f"epp.plugins.{declared.module.partition('.')[0]}."
    assert {name for name in imported if name and name.startswith("epp") and not name.startswith(own)} == {"epp.api"}


@pytest.mark.parametrize("folder", ["scorers", "pickers", "handlers", "filters", "responses", "detectors", "costs"])
def test_the_table_is_complete(folder: str) -> None:
    files = (Path(epp.plugins.__path__[0]) / folder).glob("[a-z]*.py")
    found = {f"{folder}.{file.stem}" for file in files} - PARTS
    assert found == {d.module for d in TABLE if d.module.startswith(folder)}
