# SPDX-License-Identifier: Apache-2.0
"""YAML or JSON text to nodes that know their lines.

Values are those of JSON. Refused: a key given twice, several documents, tags beyond the JSON types,
NaN and infinities. The tree is built from parser events without recursion, and bounded: 1 MiB of text, 64 levels,
100,000 nodes after expanding aliases.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml import events

from epp.config.findings import Findings, show
from epp.config.scalars import Scalar, resolve

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 100_000
TOO_LONG = f"the text is longer than {MAX_BYTES} bytes; allowed: up to 1 MiB"

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TAGGED: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "bool": ("a boolean", (bool,)),
    "int": ("an integer", (int,)),
    "float": ("a number", (int, float)),
    "null": ("null", (type(None),)),
}
_JSON_STRING_OR_TAB = re.compile(r'"(?:[^"\\]|\\.)*"|\t')
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(slots=True)
class Node:
    """One value of the document. `line` counts from 1; `key_lines` says where each key of a mapping stands.

    `size` and `depth` count the nodes and levels below, aliases expanded.
    """

    line: int
    value: Scalar | list[Node] | dict[str, Node]
    key_lines: dict[str, int] = field(default_factory=dict)
    size: int = 1
    depth: int = 1

    def plain(self) -> Any:
        """The value without lines: dictionaries, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


def parse_document(text: str, findings: Findings) -> Node | None:
    """The document's root, with value None when the text holds nothing. None after a mistake that stops reading."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        findings.mistake(0, f"the text is not Unicode: character {error.start} is half of a surrogate pair")
        return None
    if size > MAX_BYTES:
        findings.mistake(0, TOO_LONG)
        return None
    builder = _Builder(findings)
    try:
        for event in _events(_json_as_yaml(text.removeprefix("\ufeff"))):
            if not builder.take(event):
                return None
    except UnicodeEncodeError:
        findings.mistake(0, "the text is not Unicode: it escapes half of a surrogate pair")
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # The parser's mark may be one line past the end.
        line = min(mark.line, text.count("\n")) + 1 if mark else 0
        findings.mistake(line, f"not YAML: {error.problem or error.context}")
        return None
    except yaml.reader.ReaderError as error:
        findings.mistake(text.count("\n", 0, error.position) + 1, f"not YAML: {error.reason}, #x{error.character:04x}")
        return None
    return builder.root or Node(1, None)


def _events(text: str) -> Iterator[Any]:
    return yaml.parse(text, Loader=_LOADER)


def _json_as_yaml(text: str) -> str:
    """JSON rewritten to its equivalent in YAML, same lines; any other text as it is.

    YAML 1.1 takes neither tabs between tokens nor escaped surrogate pairs, both common in JSON.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text

    def rewrite(match: re.Match[str]) -> str:
        token = match.group()
        if token == "\t":
            return " "
        return _UNPRINTABLE.sub(lambda c: f"\\u{ord(c.group()):04x}", json.dumps(json.loads(token), ensure_ascii=False))

    return _JSON_STRING_OR_TAB.sub(rewrite, text)


class _Open:
    """A mapping or sequence whose end has not come yet."""

    def __init__(self, event: Any) -> None:
        self.node = Node(event.start_mark.line + 1, {} if isinstance(event, events.MappingStartEvent) else [])
        self.anchor: str | None = event.anchor
        self.key: tuple[str, int, bool] | None = None
        self.merged: list[Node] = []


class _Builder:
    """Takes parser events one by one; `root` is the finished document."""

    def __init__(self, findings: Findings) -> None:
        self.root: Node | None = None
        self._findings = findings
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._opening: set[str] = set()
        self._documents = 0

    def take(self, event: Any) -> bool:
        """False when reading must stop; the mistake is recorded."""
        line = event.start_mark.line + 1
        if isinstance(event, events.DocumentStartEvent):
            self._documents += 1
            return self._documents == 1 or self._stop(line, "a second document starts here; allowed: one document")
        if isinstance(event, events.ScalarEvent):
            node = Node(line, self._scalar(event, line))
            if event.anchor:
                self._anchors[event.anchor] = node
            return self._add(node, event)
        if isinstance(event, events.AliasEvent):
            return self._alias(event, line)
        if isinstance(event, events.CollectionStartEvent):
            return self._start(event, line)
        if isinstance(event, events.CollectionEndEvent):
            return self._end(event)
        return True

    def _stop(self, line: int, text: str) -> bool:
        self._findings.mistake(line, text)
        return False

    def _start(self, event: Any, line: int) -> bool:
        if len(self._open) >= MAX_DEPTH:
            return self._stop(line, f"nested too deeply; allowed: {MAX_DEPTH} levels")
        if event.tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
            self._findings.mistake(line, f"tag {show(event.tag)} is not supported; allowed: the types of JSON")
        if event.anchor:
            self._opening.add(event.anchor)
        self._open.append(_Open(event))
        return True

    def _end(self, event: Any) -> bool:
        done = self._open.pop()
        for merged in done.merged:
            self._merge(done.node, merged)
        if done.anchor:
            self._opening.discard(done.anchor)
            self._anchors[done.anchor] = done.node
        return self._add(done.node, event)

    def _alias(self, event: Any, line: int) -> bool:
        if event.anchor in self._opening:
            return self._stop(line, f"alias *{event.anchor[:80]} contains itself")
        node = self._anchors.get(event.anchor)
        if node is None:
            return self._stop(line, f"alias *{event.anchor[:80]} names no anchor")
        return self._add(node, event)

    def _add(self, node: Node, event: Any) -> bool:
        """Put a finished node where it belongs."""
        if not self._open:
            self.root = node
            return True
        parent = self._open[-1]
        if isinstance(parent.node.value, dict) and parent.key is None:
            parent.key = self._key(node, event)
            return True
        if isinstance(parent.node.value, list):
            parent.node.value.append(node)
        elif isinstance(parent.node.value, dict) and parent.key is not None:
            self._put(parent, parent.key, node)
            parent.key = None
        parent.node.size += node.size
        parent.node.depth = max(parent.node.depth, node.depth + 1)
        if parent.node.size > MAX_NODES:
            return self._stop(node.line, f"too many values; allowed: {MAX_NODES}, aliases expanded")
        return parent.node.depth <= MAX_DEPTH or self._stop(
            node.line, f"nested too deeply; allowed: {MAX_DEPTH} levels, aliases expanded"
        )

    def _key(self, node: Node, event: Any) -> tuple[str, int, bool]:
        """Name, line, and whether it is the merge key."""
        line = event.start_mark.line + 1
        if isinstance(event, events.ScalarEvent):
            # Go turns other scalars into strings; the text as written is what a person recognises.
            return (event.value, line, event.value == "<<" and event.implicit[0])
        if isinstance(event, events.AliasEvent) and isinstance(node.value, str):
            return (node.value, line, False)
        self._findings.mistake(line, "a key is a list or a mapping; allowed: a string")
        return ("", line, False)

    def _put(self, parent: _Open, key: tuple[str, int, bool], node: Node) -> None:
        name, line, merges = key
        mapping = parent.node.value
        assert isinstance(mapping, dict)
        if merges:
            parent.merged.extend(node.value if isinstance(node.value, list) else [node])
            return
        if name in mapping:
            first = parent.node.key_lines[name]
            self._findings.mistake(line, f"key {show(name)} already set in map, on line {first}")
            return
        mapping[name] = node
        parent.node.key_lines[name] = line

    def _merge(self, into: Node, merged: Node) -> None:
        if not isinstance(merged.value, dict):
            self._findings.mistake(merged.line, "'<<' merges something that is not a mapping; allowed: a mapping")
            return
        assert isinstance(into.value, dict)
        for key, child in merged.value.items():
            if key not in into.value:
                into.value[key] = child
                into.key_lines[key] = merged.key_lines[key]

    def _scalar(self, event: Any, line: int) -> Scalar:
        text: str = event.value
        tag: str | None = event.tag
        if tag in ("!", f"{_TAG}str") or (tag is None and not event.implicit[0]):
            return text
        value = resolve(text)
        if tag is not None:
            kind, types = _TAGGED.get(tag.removeprefix(_TAG), ("", ()))
            if not kind:
                self._findings.mistake(line, f"tag {show(tag)} is not supported; allowed: the types of JSON")
                return None
            if not isinstance(value, types):
                self._findings.mistake(line, f"{show(text)} is not {kind}, as its tag says")
                return None
        if isinstance(value, float) and not math.isfinite(value):
            self._findings.mistake(line, f"{text[:80]} is not a number of JSON; allowed: a finite number")
            return None
        return value
