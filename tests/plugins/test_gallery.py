# SPDX-License-Identifier: Apache-2.0
"""The gallery in plugins/: every file loads, is tagged as its configuration names it, and does what it says.

The README's code blocks are executed as they stand.
"""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from epp.api import Filter, Kind, Reads, Scorer
from epp.contract.plugins import PluginSpec, spec_of
from epp.testing import make_endpoints, make_plugin, make_request

GALLERY = Path(__file__).parents[2] / "plugins"
TYPES = {"free_kv": "free-kv", "tenant_pool": "tenant-pool-filter"}


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(GALLERY / f"{name}.py"))


def tagged(namespace: dict[str, Any]) -> tuple[Any, PluginSpec]:
    """The one tagged object of a namespace, and its spec."""
    found = [(target, spec) for target in namespace.values() if (spec := spec_of(target)) is not None]
    assert len(found) == 1
    return found[0]


def test_every_file_has_its_configuration_and_a_line_in_the_readme() -> None:
    assert {path.stem for path in GALLERY.glob("*.py")} == set(TYPES)
    assert {path.stem for path in GALLERY.glob("*.yaml")} == set(TYPES)
    readme = (GALLERY / "README.md").read_text()
    for name in TYPES:
        assert f"[{name}.py]({name}.py), [{name}.yaml]({name}.yaml)" in readme


@pytest.mark.parametrize("name", TYPES)
def test_the_file_opens_with_how_to_use_it(name: str) -> None:
    doc = load(name)["__doc__"]
    assert f"epp serve --plugin-dir plugins --configFile plugins/{name}.yaml" in doc


@pytest.mark.parametrize("name", TYPES)
def test_the_configuration_uses_the_plugin(name: str) -> None:
    config = yaml.safe_load((GALLERY / f"{name}.yaml").read_text())
    entries = {entry["type"]: entry.get("parameters", {}) for entry in config["plugins"]}
    target, spec = tagged(load(name))
    assert spec.type == TYPES[name]
    assert make_plugin(target, **entries[spec.type]) is not None
    referenced = {ref["pluginRef"] for profile in config["schedulingProfiles"] for ref in profile["plugins"]}
    assert spec.type in referenced <= set(entries)


def test_free_kv() -> None:
    target, spec = tagged(load("free_kv"))
    assert spec.kinds == {Kind.SCORER}
    assert spec.reads == Reads.KV_UTILIZATION
    instance = make_plugin(target)
    assert isinstance(instance, Scorer)
    endpoints = make_endpoints(kv_utilization=[0.0, 0.25, 1.0])
    assert instance.score(make_request(), endpoints).tolist() == [1.0, 0.75, 0.0]


POOL = [{"tenant": "acme"}, {}, {"tenant": "beta"}, {"tenant": "acme"}, {}]
OWNED = [{"tenant": "acme"}, {"tenant": "beta"}]


@pytest.mark.parametrize(
    ("parameters", "headers", "labels", "kept"),
    [
        pytest.param({}, {"x-tenant": "acme"}, POOL, [1, 0, 0, 1, 0], id="its own"),
        pytest.param({}, {"x-tenant": "other"}, POOL, [0, 1, 0, 0, 1], id="owns none: shared"),
        pytest.param({}, {}, POOL, [0, 1, 0, 0, 1], id="no tenant: shared"),
        pytest.param({}, {"x-tenant": ""}, POOL, [0, 1, 0, 0, 1], id="empty tenant: shared"),
        pytest.param({}, {"x-tenant": "other"}, OWNED, [1, 1], id="nothing shared: all"),
        pytest.param({"strict": True}, {"x-tenant": "other"}, OWNED, [0, 0], id="strict: nothing"),
        pytest.param({"strict": True}, {"x-tenant": "beta"}, OWNED, [0, 1], id="strict: its own"),
        pytest.param({"strict": True}, {"x-tenant": "other"}, POOL, [0, 1, 0, 0, 1], id="strict: shared"),
        pytest.param({"header": "X-Team"}, {"x-team": "acme"}, POOL, [1, 0, 0, 1, 0], id="header in any case"),
        pytest.param({"label": "team"}, {"x-tenant": "acme"}, POOL, [1, 1, 1, 1, 1], id="another label"),
    ],
)
def test_tenant_pool(
    parameters: dict[str, Any], headers: dict[str, str], labels: list[dict[str, str]], kept: list[int]
) -> None:
    target, spec = tagged(load("tenant_pool"))
    assert spec.kinds == {Kind.FILTER}
    instance = make_plugin(target, **parameters)
    assert isinstance(instance, Filter)
    mask = instance.filter(make_request(headers=headers), make_endpoints(labels=labels))
    assert mask.dtype == bool
    assert mask.tolist() == [bool(keep) for keep in kept]


@pytest.mark.parametrize("parameters", [{"header": ""}, {"label": ""}])
def test_tenant_pool_refuses_an_empty_name(parameters: dict[str, Any]) -> None:
    target, _ = tagged(load("tenant_pool"))
    with pytest.raises(ValueError, match=r"^header and label must not be empty"):
        make_plugin(target, **parameters)


def test_the_readme_example_works_as_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_code, test_code = re.findall(r"```python\n(.*?)```", (GALLERY / "README.md").read_text(), re.DOTALL)
    module = ModuleType("short_prompts")
    exec(plugin_code, module.__dict__)
    monkeypatch.setitem(sys.modules, "short_prompts", module)
    target, spec = tagged(vars(module))
    assert spec.type == "short-prompts-first"
    namespace: dict[str, Any] = {}
    exec(test_code, namespace)
    namespace["test_idle_endpoints_win_short_prompts"]()
    long = make_request("word " * 1000)
    assert make_plugin(target).score(long, make_endpoints(in_flight_tokens=[0, 9000])).tolist() == [1.0, 1.0]


def test_the_plugin_of_the_front_page_gets_what_it_reads() -> None:
    page = (GALLERY.parent / "README.md").read_text()
    [block] = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "@scorer" in b]
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    _, spec = tagged(namespace)
    assert Reads.KV_UTILIZATION in spec.reads
    scores = make_plugin(namespace["free_kv"]).score(make_request(), make_endpoints(kv_utilization=[0.9, 0.1]))
    assert scores.tolist() == pytest.approx([0.1, 0.9])
