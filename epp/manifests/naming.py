# SPDX-License-Identifier: Apache-2.0
"""The names KServe gives to what it creates, and the few template expressions of its presets that matter here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_LONGEST = 63
_HASH_CHARACTERS = 32
_CHILD = re.compile(r"ChildName\s+\.ObjectMeta\.Name\s+[`\"]([^`\"]*)[`\"]")
_EXPRESSION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)


def child_name(parent: str, suffix: str) -> str:
    """`parent` + `suffix`, or, where that is longer than 63 characters, what begins with as much of the parent as there
    is room for beside its MD5 (Knative's kmeta.ChildName, which KServe uses)."""
    if len(parent) + len(suffix) <= _LONGEST:
        return parent + suffix
    head = _LONGEST - _HASH_CHARACTERS - len(suffix)
    if head > 0:
        return parent[:head] + _md5(parent) + suffix
    name = parent[: _LONGEST - _HASH_CHARACTERS] + _md5(parent + suffix)
    return (name + suffix)[:_LONGEST].rstrip("-._")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def expand(text: str, *, name: str, namespace: str, model: str) -> str:
    """A text of a preset with the expressions that name the service, its namespace or its model filled in; others stay
    as they are."""
    values: Mapping[str, str] = {
        ".ObjectMeta.Name": name,
        ".Name": name,
        ".ObjectMeta.Namespace": namespace,
        ".Namespace": namespace,
        ".Spec.Model.Name": model,
    }

    def fill(match: re.Match[str]) -> str:
        child = _CHILD.fullmatch(match[1])
        if child:
            return child_name(name, child[1])
        return values.get(match[1], match[0])

    return _EXPRESSION.sub(fill, text)
