# SPDX-License-Identifier: Apache-2.0
"""What was read: Kubernetes objects that know their file and lines, endpoint lists, and what there is to say of them.

Nothing here shows a value of an object in its representation: some are secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epp.config.document import Node
from epp.config.findings import one_line
from epp.contract.errors import ConfigError
from epp.manifests.topology import Unsupported

DEFAULT_NAMESPACE = "default"
Step = str | int


class ManifestErrors(ConfigError):
    """Everything that is wrong with a set of manifests. `mistakes` has one line each, `file:line: ` first; `str()` is
    one line: the first mistake and how many more there are."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        more = len(self.mistakes) - 1
        rest = f" (and {more} more mistake{'s' if more > 1 else ''})" if more else ""
        super().__init__(self.mistakes[0] + rest)

    @property
    def log_lines(self) -> tuple[str, ...]:
        """The mistakes."""
        return self.mistakes


@dataclass(slots=True)
class Remarks:
    """Collects while manifests are read and resolved."""

    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unsupported: list[Unsupported] = field(default_factory=list)

    def mistake(self, place: str, text: str) -> None:
        """The manifests cannot be used as they are."""
        _add(self.mistakes, f"{place}: {one_line(text)}")

    def warn(self, place: str, text: str) -> None:
        """Usable, but probably not meant."""
        _add(self.warnings, f"{place}: {one_line(text)}")

    def cannot(self, what: str, why: str) -> None:
        """Asked for and not done."""
        _add(self.unsupported, Unsupported(one_line(what), one_line(why)))

    def raise_mistakes(self) -> None:
        """Raise ManifestErrors when there is any mistake."""
        if self.mistakes:
            raise ManifestErrors(self.mistakes)


def _add(lines: list[Any], line: Any) -> None:
    if line not in lines:
        lines.append(line)


@dataclass(frozen=True, slots=True)
class Document:
    """One object. `offset`: what is added to the lines of its nodes; `text`: as it was written, "" inside a List."""

    source: str
    offset: int
    group: str
    version: str
    kind: str
    namespace: str
    name: str
    node: Node = field(repr=False)
    text: str = field(repr=False, default="")

    @property
    def full_name(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def title(self) -> str:
        """Kind and name, for messages."""
        return f"{self.kind} {self.full_name}" if self.name else self.kind

    def at(self, *path: Step) -> str:
        """`file:line` of the value at `path`, or of the innermost one above it that is there."""
        node, line = self.node, self.node.line
        for step in path:
            inner: Node | None = None
            if isinstance(node.value, dict) and isinstance(step, str):
                inner = node.value.get(step)
                line = node.key_lines.get(step, line)
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                inner = node.value[step]
                line = inner.line
            if inner is None:
                break
            node = inner
        return f"{self.source}:{line + self.offset}"

    def plain(self) -> dict[str, Any]:
        """The whole object without lines and without keys whose value is null, as Kubernetes takes it."""
        value = without_nulls(self.node.plain())
        return value if isinstance(value, dict) else {}

    @property
    def spec(self) -> dict[str, Any]:
        """Its spec; {} when there is none."""
        value = self.plain().get("spec", {})
        return value if isinstance(value, dict) else {}

    @property
    def annotations(self) -> Mapping[str, Any]:
        """Its annotations."""
        metadata = self.plain().get("metadata", {})
        value = metadata.get("annotations", {}) if isinstance(metadata, dict) else {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class EndpointList:
    """One line of an `endpoints:` mapping: `name` (or `namespace/name`) is served by real servers at `addresses`."""

    place: str
    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Documents:
    """All of it, in the order of the files; `remarks` has what was said while reading."""

    items: tuple[Document, ...]
    endpoints: tuple[EndpointList, ...]
    files: tuple[Path, ...]
    remarks: Remarks = field(default_factory=Remarks, repr=False)

    def of(self, *kinds: str) -> tuple[Document, ...]:
        """The objects of these kinds, in their order."""
        return tuple(document for document in self.items if document.kind in kinds)

    def names(self, *kinds: str) -> list[str]:
        """`namespace/name` of the objects of these kinds."""
        return [document.full_name for document in self.of(*kinds)]

    def find(self, kind: str, full_name: str) -> Document | None:
        """The object of this kind and `namespace/name`."""
        return next((item for item in self.items if item.kind == kind and item.full_name == full_name), None)


def without_nulls(value: Any) -> Any:
    """The value without the keys of mappings that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    if isinstance(value, list):
        return [without_nulls(child) for child in value]
    return value
