# SPDX-License-Identifier: Apache-2.0
"""Whatever is done to the manifests of the tutorials and samples, it ends in values or in one-line mistakes."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.manifests import ManifestErrors, resolve_limits, service_rules
from tests.manifests.support import SAMPLES, documents, topology
from tests.manifests.test_resolve import BACKEND_KIND, CA, HTTP_ROUTE, TLS

FILES = ("inferenceservice", "llminferenceservice", "limits", "own-servers", "external-https-backend")
OBJECTS: list[list[Any]] = [
    [item for item in yaml.safe_load_all((SAMPLES / f"{name}.yaml").read_text()) if item] for name in FILES
]
OBJECTS.append([item for item in yaml.safe_load_all(BACKEND_KIND + CA + HTTP_ROUTE + TLS) if item])
VALUES: list[Any] = [
    None, "", "x", 0, -1, 7, 1.5, True, [], {}, [None], ["x"], [{}], {"name": "x"}, {"x": []}, "a/b", "\n", 1 << 40,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path of a value."""
    found = [path] if path else []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in pairs:
        found += places(child, (*path, key))
    return found


def change(objects: list[Any], path: tuple[Any, ...], how: str, value: Any) -> None:
    """Replace, remove or double what stands at a path; nothing if it is not there any more."""
    node: Any = objects
    for key in path[:-1]:
        if not isinstance(node, dict | list) or (isinstance(node, list) and not isinstance(key, int)):
            return
        try:
            node = node[key]
        except (KeyError, IndexError):
            return
    key = path[-1]
    if isinstance(node, dict) and key in node:
        if how == "remove":
            del node[key]
        elif how == "rename":
            node[f"{key}x"] = node.pop(key)
        else:
            node[key] = value
    elif isinstance(node, list) and isinstance(key, int) and key < len(node):
        if how == "remove":
            del node[key]
        elif how == "double":
            node.append(node[key])
        else:
            node[key] = value


def outcome(text: str) -> None:
    """Read and resolve; anything but values and ManifestErrors gets out."""
    for make in (
        lambda: topology(text, environ={"EPP_SECRET_DEFAULT_PROVIDER_KEY": "k"}),
        lambda: resolve_limits(documents(text)),
    ):
        try:
            found = make()
        except ManifestErrors as error:
            assert error.mistakes
            assert all(line and "\n" not in line for line in error.mistakes)
        else:
            service_rules(found)
            for rule in (rule for route in found.routes for rule in route.rules):
                names = {pool.name for pool in found.pools} | {backend.name for backend in found.backends}
                assert (not found.pools and not found.backends) or {target.name for target in rule.targets} <= names


@settings(max_examples=150)
@given(st.data())
def test_changed_manifests(data: st.DataObject) -> None:
    objects = copy.deepcopy(data.draw(st.sampled_from(OBJECTS)))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(objects)))
        how = data.draw(st.sampled_from(["replace", "replace", "remove", "rename", "double"]))
        change(objects, path, how, copy.deepcopy(data.draw(st.sampled_from(VALUES))))
    outcome("".join(f"---\n{json.dumps(item)}\n" for item in objects))


@settings(max_examples=80)
@given(st.data())
def test_changed_text(data: st.DataObject) -> None:
    """Lines of the tutorial lost, doubled or cut."""
    lines = (SAMPLES / f"{data.draw(st.sampled_from(FILES))}.yaml").read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        how = data.draw(st.sampled_from(["lose", "double", "cut", "indent"]))
        if how == "lose":
            del lines[number]
        elif how == "double":
            lines.insert(number, lines[number])
        elif how == "cut":
            lines[number] = lines[number][: len(lines[number]) // 2]
        else:
            lines[number] = "  " + lines[number]
    outcome("\n".join(lines))
