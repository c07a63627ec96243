# SPDX-License-Identifier: Apache-2.0
"""What the fields of a kind may be, written down as values, and the check of an object against it.

Every field a kind has is one of: read (`Text`, `Whole`, ...), harmless (on one machine nothing is to be done about it),
or unsupported (listed, with what happens instead). A field the kind does not have is a warning, a value of the wrong
type a mistake. A null is as good as an absent field, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from epp.config.document import Node
from epp.config.findings import nearest, remedy, show
from epp.manifests.documents import Document, Remarks, Step

MAX_WHOLE = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class Text:
    """A string; one of `choices` if there are any."""

    choices: tuple[str, ...] = ()
    may_be_empty: bool = True


@dataclass(frozen=True, slots=True)
class Whole:
    """An integer from `least` to `most`."""

    least: int = 0
    most: int = MAX_WHOLE


@dataclass(frozen=True, slots=True)
class Truth:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Texts:
    """A mapping of text to text; `secret`: its values are never shown."""

    secret: bool = False


@dataclass(frozen=True, slots=True)
class Harmless:
    """Any value; nothing is to be done about it."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Any value. It is listed with `instead`, unless it is one of `unless` or empty: then it asks for nothing."""

    instead: str
    unless: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    of: Shape
    least: int = 0


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping with these fields. `without`: what holds where one of them is absent, told of what is probably a typo
    of it."""

    fields: dict[str, Shape]
    required: tuple[str, ...] = ()
    without: Mapping[str, str] = field(default_factory=dict)


Shape: TypeAlias = Text | Whole | Truth | Texts | Harmless | Unsupported | Items | Fields


def harmless(names: str) -> dict[str, Shape]:
    """Fields to do nothing about, by their names."""
    return dict.fromkeys(names.split(), Harmless())


def unsupported(instead: str, names: str) -> dict[str, Shape]:
    """Fields that are listed, by their names."""
    return dict.fromkeys(names.split(), Unsupported(instead))


def dotted(path: tuple[Step, ...]) -> str:
    """A path as people write it: `spec.rules[0].name`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


class Check:
    """Walks one object along the shape of its kind and says what it finds."""

    def __init__(self, document: Document, remarks: Remarks) -> None:
        self._document = document
        self._remarks = remarks

    def take(self, node: Node, shape: Shape, path: tuple[Step, ...]) -> None:
        """Check `node`, the value at `path`."""
        value = node.value
        if value is None or isinstance(shape, Harmless):
            return
        if isinstance(shape, Unsupported):
            self._listed(node, shape, path)
        elif isinstance(shape, Fields):
            self._fields(node, shape, path)
        elif isinstance(shape, Items):
            if not isinstance(value, list):
                self._wrong(path, "a list", value)
                return
            if len(value) < shape.least:
                self._mistake(path, f"must have at least {shape.least} item")
            for index, item in enumerate(value):
                if item.value is None and not isinstance(shape.of, Harmless | Unsupported):
                    self._mistake((*path, index), "must not be null")
                self.take(item, shape.of, (*path, index))
        elif isinstance(shape, Texts):
            self._texts(node, shape, path)
        elif isinstance(shape, Truth):
            if not isinstance(value, bool):
                self._wrong(path, "true or false", value)
        elif isinstance(shape, Whole):
            if not isinstance(value, int) or isinstance(value, bool) or not shape.least <= value <= shape.most:
                self._wrong(path, f"an integer from {shape.least} to {shape.most}", value)
        else:
            self._text(shape, path, value)

    def _text(self, shape: Text, path: tuple[Step, ...], value: object) -> None:
        if not isinstance(value, str):
            quote = "; quote it" if isinstance(value, bool | int | float) else ""
            self._wrong(path, f"a text{quote}", value)
        elif shape.choices and value not in shape.choices:
            self._mistake(path, f"{show(value)} is unknown{remedy(value, shape.choices)}")
        elif not value and not shape.may_be_empty:
            self._mistake(path, "must not be empty")

    def _texts(self, node: Node, shape: Texts, path: tuple[Step, ...]) -> None:
        if not isinstance(node.value, dict):
            self._wrong(path, "a mapping of text to text", None if shape.secret else node.value)
            return
        for key, child in node.value.items():
            if child.value is not None and not isinstance(child.value, str):
                self._wrong((*path, key), "a text; quote it", None if shape.secret else child.value)

    def _fields(self, node: Node, shape: Fields, path: tuple[Step, ...]) -> None:
        if not isinstance(node.value, dict):
            self._wrong(path, "a mapping", node.value)
            return
        for name, child in node.value.items():
            known = shape.fields.get(name)
            if known is None:
                text = f"unknown field {show(name)}{_meant(name, shape)}"
                self._remarks.warn(self._document.at(*path, name), f"{self._document.title}: {_in(path)}{text}")
            else:
                self.take(child, known, (*path, name))
        for name in shape.required:
            if name not in node.value or node.value[name].value is None:
                self._mistake(path, f"{name} is missing")

    def _listed(self, node: Node, shape: Unsupported, path: tuple[Step, ...]) -> None:
        value = node.value
        if value in ("", [], {}) or any(value == fine and type(value) is type(fine) for fine in shape.unless):
            return
        shown = "" if isinstance(value, list | dict) else f" {show(value)}"
        self._remarks.cannot(f"{self._document.title} {dotted(path)}{shown}", shape.instead)

    def _wrong(self, path: tuple[Step, ...], allowed: str, value: object) -> None:
        """A value of another type; None is not shown."""
        is_what = "a list" if isinstance(value, list) else "a mapping" if isinstance(value, dict) else show(value)
        shown = "" if value is None else f", not {is_what}"
        self._mistake(path, f"must be {allowed}{shown}")

    def _mistake(self, path: tuple[Step, ...], text: str) -> None:
        self._remarks.mistake(self._document.at(*path), f"{self._document.title}: {_in(path)}{text}")


def _in(path: tuple[Step, ...]) -> str:
    return f"{dotted(path)}: " if path else ""


def _meant(name: str, shape: Fields) -> str:
    guess = remedy(name, shape.fields).partition(" allowed:")[0].rstrip(";")
    instead = shape.without.get(nearest(name, shape.fields) or "")
    return f"{guess}; it has no effect" + (f", and {instead}" if instead else "")
