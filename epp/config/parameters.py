# SPDX-License-Identifier: Apache-2.0
"""A plugin's `parameters` to the typed object that its factory is given.

Names match as in Go, ignoring case. What releases of the Go EPP before May 2026 did with an unknown name (ignore it)
is a warning here; strict reading makes it a mistake, as later releases do.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from epp.config.catalog import Entry
from epp.config.document import Node
from epp.config.findings import Findings, remedy, show
from epp.config.typed import MISSING, Reader


def read_parameters(entry: Entry, name: str, node: Node | None, findings: Findings, *, line: int, strict: bool) -> Any:
    """The parameters object, None for a plugin without parameters, MISSING after a mistake.

    `line` is used when there are no parameters to point at.
    """
    spec = entry.spec
    subject = f"plugin '{name}' ({spec.type}) "
    if node is None:
        node = Node(line, {})
    if spec.any_parameters and not isinstance(node.value, dict):
        _note_ignored(node, subject, [show(node.plain())], findings)
        node = Node(node.line, {})
    if spec.parameters is None:
        _read_none(node, subject, spec.any_parameters, strict, findings)
        return None
    reader = Reader(findings, subject, exact=False, strict=strict, any_names=spec.any_parameters)
    try:
        parameters = reader.record(node, spec.parameters, "parameters")
    except (NameError, TypeError, AttributeError) as error:
        findings.mistake(line, f"{subject}declares parameters that cannot be read ({entry.place}): {error}")
        return MISSING
    return MISSING if parameters is None else parameters


def field_value(parameters: Any, name: str) -> Any:
    """The parameter called `name` in documents, whatever its field's case and underscores; None without such a one."""
    if not dataclasses.is_dataclass(parameters):
        return None
    folded = name.casefold()
    for declared in dataclasses.fields(parameters):
        if declared.name.replace("_", "").casefold() == folded:
            return getattr(parameters, declared.name)
    return None


def _read_none(node: Node, subject: str, any_parameters: bool, strict: bool, findings: Findings) -> None:
    """A plugin without parameters: what is given has no effect."""
    if not isinstance(node.value, dict):
        if node.value is not None:
            text = f"{subject}parameters: {show(node.plain())} is not a mapping; allowed: no parameters"
            findings.mistake(node.line, text)
        return
    if any_parameters and node.value:
        _note_ignored(node, subject, list(node.value), findings)
        return
    for key in node.value:
        text = f"{subject}parameters: unknown parameter {show(key)}"
        if strict:
            findings.mistake(node.key_lines[key], text + remedy(key, ()))
        else:
            findings.warn(node.key_lines[key], f"{text} is ignored{remedy(key, ())}")


def _note_ignored(node: Node, subject: str, names: list[str], findings: Findings) -> None:
    findings.note(node.line, f"{subject}takes no parameters and ignores {', '.join(names)}")
