# SPDX-License-Identifier: Apache-2.0
"""Nodes of a document to dataclasses, every mistake collected, none raised.

A field's type says what is allowed: bool, int, float, str, Literal, dataclasses, lists and tuples of them, `| None`,
`Node` for "as it stands", and anything else msgspec converts. Ranges and patterns come from `msgspec.Meta`; its
`extra` may hold `check` (a function of the text that raises ValueError) and `allowed` (the words for the message).
As in Go, null means "not given".

Two ways to match names: exactly, an unknown one is a mistake (the document); or ignoring case and underscores, an
unknown one is a warning unless strict (plugin parameters).
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from epp.config.document import Node
from epp.config.findings import Findings, remedy, show
from epp.config.words import choices, describe, fits, kind_of
from epp.contract.errors import EppError

T = TypeVar("T")

KEY = "key"
"""Field metadata: the name in the document, where it is not the field's name in camelCase."""


class _Missing:
    """The value could not be read; the mistake is recorded."""


MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class Lines:
    """Where a section stands: its own line, and the line of each key that was given."""

    own: int = 0
    keys: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, key: str) -> int:
        return self.keys.get(key, self.own)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the document that remembers its lines: `section.at["weight"]`."""

    at: Lines = field(default_factory=Lines, kw_only=True)


@dataclass(frozen=True, slots=True)
class Reader:
    """How to read, and where to leave remarks.

    * subject: what messages start with, for instance `plugin 'x' (queue-scorer) `
    * exact: match names exactly, and an unknown one is a mistake; otherwise see the module. What cannot be read is
      left out of its list, so that the rest can be checked too
    * strict: an unknown name is a mistake even when matching loosely
    * any_names: say nothing of unknown names
    """

    findings: Findings
    subject: str = ""
    exact: bool = True
    strict: bool = True
    any_names: bool = False

    def record(self, node: Node, cls: type[T], path: str = "", *, partial: bool = False) -> T | None:
        """An instance of the dataclass `cls`, or None when anything in it is a mistake.

        With `partial`, fields that are mistakes keep their default instead.
        """
        if node.value is None:
            node = Node(node.line, {})
        if not isinstance(node.value, dict):
            self._refuse(node, path, "a mapping", f"a mapping with {', '.join(document_names(cls)) or 'no keys'}")
            return None
        hints = typing.get_type_hints(cls, include_extras=True)
        names = {document_name(f): f for f in _fields(cls)}
        values: dict[str, Any] = {}
        for name, key in self._match(node, names, path).items():
            child = node.value[key]
            if child.value is not None:
                values[names[name].name] = self.value(child, hints[names[name].name], _join(path, name))
        self._require(node, names, values, path)
        readable = {name: value for name, value in values.items() if value is not MISSING}
        if len(readable) < len(values) and not partial:
            return None
        values = readable
        if issubclass(cls, Section):
            values["at"] = Lines(node.line, dict(node.key_lines))
        try:
            return cls(**values)
        except (ValueError, TypeError, EppError) as error:
            self.findings.mistake(node.line, f"{self.subject}{path or 'parameters'}: {error}")
            return None

    def value(self, node: Node, annotation: Any, path: str) -> Any:
        """The value of `node` as `annotation` says, or MISSING."""
        annotation = _without_none(annotation)
        if annotation is Node:
            return node
        if dataclasses.is_dataclass(annotation):
            found = self.record(node, typing.cast("type[Any]", annotation), path)
            return MISSING if found is None else found
        item = _item_type(annotation)
        if item is not None:
            return self._list(node, annotation, item, path)
        return self._leaf(node, annotation, path)

    def _list(self, node: Node, annotation: Any, item: Any, path: str) -> Any:
        if not isinstance(node.value, list):
            return self._refuse(node, path, "a list", "a list")
        values = [self.value(child, item, f"{path}[{i}]") for i, child in enumerate(node.value)]
        readable = [value for value in values if value is not MISSING]
        if len(readable) < len(values) and not self.exact:
            return MISSING
        values = readable
        return tuple(values) if get_origin(annotation) is tuple else values

    def _leaf(self, node: Node, annotation: Any, path: str) -> Any:
        plain = node.plain()
        try:
            value = msgspec.convert(plain, annotation)
        except msgspec.ValidationError:
            return self._refuse_leaf(node, plain, annotation, path)
        extra = _extra(annotation)
        if "check" in extra:
            try:
                extra["check"](str(value))
            except ValueError:
                return self._refuse(node, path, kind_of(extra["allowed"]), extra["allowed"])
        return value

    def _refuse_leaf(self, node: Node, plain: Any, annotation: Any, path: str) -> Any:
        info = inspect.type_info(annotation)
        known = choices(info)
        if known and isinstance(plain, str):
            self.findings.mistake(node.line, f"{self._at(path)}{show(plain)} is not known{remedy(plain, known)}")
            return MISSING
        kind, allowed = describe(info)
        return self._refuse(node, path, "in range" if fits(plain, info) else kind, allowed)

    def _refuse(self, node: Node, path: str, kind: str, allowed: str) -> Any:
        self.findings.mistake(node.line, f"{self._at(path)}{show(node.plain())} is not {kind}; allowed: {allowed}")
        return MISSING

    def _at(self, path: str) -> str:
        return f"{self.subject}{path}: " if self.subject or path else "the document: "

    def _match(self, node: Node, names: Iterable[str], path: str) -> dict[str, str]:
        """Field name in the document -> the key that was given; remarks on every other key."""
        assert isinstance(node.value, dict)
        if self.exact:
            by_key = {name: name for name in names}
            found = {by_key[key]: key for key in node.value if key in by_key}
        else:
            by_key = {_folded(name): name for name in names}
            found = {}
            for key in node.value:
                name = by_key.get(_folded(key))
                if name in found:
                    text = f"{self._at(_join(path, key))}given twice, also as {show(found[name])}"
                    self.findings.mistake(node.key_lines[key], text)
                elif name is not None:
                    found[name] = key
        for key in node.value:
            if (key if self.exact else _folded(key)) not in by_key:
                self._unknown(node.key_lines[key], key, path, list(by_key.values()))
        return found

    def _unknown(self, line: int, key: str, path: str, names: Sequence[str]) -> None:
        shown = show(key)
        if self.exact:
            where = f"{path}: " if path else ""
            self.findings.mistake(line, f"{where}unknown field {shown}{remedy(key, names)}")
        elif self.any_names:
            return
        elif self.strict:
            self.findings.mistake(line, f"{self.subject}{path}: unknown parameter {shown}{remedy(key, names)}")
        else:
            text = f"{self.subject}{path}: unknown parameter {shown} is ignored{remedy(key, names)}"
            self.findings.warn(line, text)

    def _require(self, node: Node, names: Mapping[str, Any], values: dict[str, Any], path: str) -> None:
        for name, declared in names.items():
            has_default = (
                declared.default is not dataclasses.MISSING or declared.default_factory is not dataclasses.MISSING
            )
            if declared.name not in values and not has_default:
                values[declared.name] = MISSING
                self.findings.mistake(node.line, f"{self._at(_join(path, name))}required")


def document_names(cls: type) -> list[str]:
    """The keys that the dataclass `cls` takes, as they are written in documents."""
    return [document_name(declared) for declared in _fields(cls)]


def document_name(declared: dataclasses.Field[Any]) -> str:
    """A field's name in documents: camelCase."""
    given = declared.metadata.get(KEY)
    if given is not None:
        return str(given)
    first, *rest = declared.name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def _fields(cls: type) -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(cls) if f.init and not (f.name == "at" and issubclass(cls, Section))]


def _extra(annotation: Any) -> Mapping[str, Any]:
    for part in get_args(annotation)[1:] if hasattr(annotation, "__metadata__") else ():
        if isinstance(part, msgspec.Meta) and part.extra:
            return part.extra
    return {}


def _without_none(annotation: Any) -> Any:
    """`X` for `X | None`; other annotations as they are."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return annotation


def _item_type(annotation: Any) -> Any:
    """`X` for `list[X]`, `tuple[X, ...]` and the like; None for other annotations."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (list, Sequence) and arguments:
        return arguments[0]
    if get_origin(annotation) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0]
    return None


def _folded(name: str) -> str:
    return name.replace("_", "").casefold()


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
