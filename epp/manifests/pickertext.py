# SPDX-License-Identifier: Apache-2.0
"""The text of an EndpointPickerConfig that stands inside a manifest, and which lines of which file it has, so that what
is wrong with it is told where it stands.

What is given as a mapping becomes JSON with the line breaks of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from epp.config.document import Node
from epp.manifests.documents import Document, without_nulls
from epp.manifests.topology import PickerText


def whole(document: Document) -> PickerText:
    """A document that is a configuration."""
    if document.text:
        return PickerText(document.text, document.source, document.offset + 1)
    return PickerText(lined(document.node), document.source, document.offset + document.node.line)


def within(value: object, documents: Iterable[Document]) -> PickerText:
    """A configuration, text or mapping, that is a value somewhere in one of the documents."""
    for document in documents:
        node = _holding(document.node, value)
        if node is None:
            continue
        if not isinstance(value, str):
            return PickerText(lined(node), document.source, document.offset + node.line)
        # The text of a block begins below its mark.
        below = 1 if "\n" in value else 0
        return PickerText(value, document.source, document.offset + node.line + below)
    return PickerText(value if isinstance(value, str) else json.dumps(value))


def lined(node: Node) -> str:
    """The value as JSON, each part as many lines below the first as in the document; keys without a value left out."""
    line = node.line
    parts: list[str] = []

    def go_to(wanted: int) -> None:
        nonlocal line
        # What an alias names stands above.
        parts.append("\n" * max(0, wanted - line))
        line = max(line, wanted)

    def write(one: Node) -> None:
        go_to(one.line)
        if isinstance(one.value, dict):
            parts.append("{")
            given = [(key, child) for key, child in one.value.items() if child.value is not None]
            for number, (key, child) in enumerate(given):
                parts.append(", " if number else "")
                go_to(one.key_lines[key])
                parts.append(f"{json.dumps(key)}: ")
                write(child)
            parts.append("}")
        elif isinstance(one.value, list):
            parts.append("[")
            for number, child in enumerate(one.value):
                parts.append(", " if number else "")
                write(child)
            parts.append("]")
        else:
            parts.append(json.dumps(one.value))

    write(node)
    return "".join(parts)


def _holding(node: Node, value: object) -> Node | None:
    """The first node with this value, nulls left out."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(value, str):
            if one.value == value:
                return one
        elif isinstance(one.value, dict) and without_nulls(one.plain()) == value:
            return one
        if isinstance(one.value, dict):
            pending.extend(list(one.value.values())[::-1])
        elif isinstance(one.value, list):
            pending.extend(one.value[::-1])
    return None
