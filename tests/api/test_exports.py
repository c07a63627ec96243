# SPDX-License-Identifier: Apache-2.0
"""The public face: what is exported is what is listed, and everything in it is documented."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import epp.api
import epp.testing

EXPORTED = {name: getattr(epp.api, name) for name in epp.api.__all__}
OBJECTS = {name: value for name, value in EXPORTED.items() if inspect.isclass(value) or inspect.isfunction(value)}


def own_doc(value: Any) -> str:
    """A docstring somebody wrote: neither inherited nor made by `dataclass`."""
    doc = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    if not doc or doc.startswith(f"{value.__name__}("):
        return ""
    return str(doc).strip()


def test_all_is_the_namespace() -> None:
    public = {name for name in vars(epp.api) if not name.startswith("_")}
    assert set(epp.api.__all__) == public


def test_all_is_sorted_and_without_doubles() -> None:
    names = epp.api.__all__
    assert len(set(names)) == len(names)
    # Constants, then classes, then functions, each in alphabetical order.
    assert names == sorted(names, key=lambda name: (not name.isupper(), name.islower(), name))


@pytest.mark.parametrize("name", OBJECTS)
def test_every_class_and_function_is_documented(name: str) -> None:
    assert own_doc(OBJECTS[name]), f"epp.api.{name} has no docstring"


@pytest.mark.parametrize("name", [name for name, value in OBJECTS.items() if inspect.isclass(value)])
def test_every_public_method_is_documented(name: str) -> None:
    members = vars(OBJECTS[name]).items()
    bare = [
        member
        for member, value in members
        if not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
        and not inspect.getdoc(value)
    ]
    assert not bare, f"epp.api.{name}: no docstring on {', '.join(bare)}"


def test_what_cannot_carry_a_docstring_is_known() -> None:
    aliases_and_keys = set(EXPORTED) - set(OBJECTS)
    assert aliases_and_keys == {"BoolArray", "Clock", "Duration", "FloatArray", "IntArray", "PREFIX_MATCH"}


def test_the_smallest_plugin_in_the_module_docstring_works() -> None:
    code = inspect.cleandoc(epp.api.__doc__ or "").split("\n\n", 1)[1]
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    plugin = epp.testing.make_plugin(namespace["free_kv"])
    endpoints = epp.testing.make_endpoints(kv_utilization=[0.25, 1.0])
    assert plugin.score(epp.testing.make_request(), endpoints).tolist() == [0.75, 0.0]
