# SPDX-License-Identifier: Apache-2.0
"""Rules as YAML text, or as a mapping somebody made, to items that know their lines.

Scalars keep their text, because keys and values of descriptors are strings whatever they look like: `value: 0123` is
"0123", as with the Go service. Refused: keys given twice, several documents, tags of other types. Bounds: 4 MiB of
text, 64 levels, 500,000 items after aliases are followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from epp.ratelimit.errors import RulesError

MOST_CHARACTERS = 4 << 20
MOST_LEVELS = 64
MOST_ITEMS = 500_000

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_TRUE = frozenset({"yes", "true", "on", "y"})

Scalar = str | int | bool | None


@dataclass(frozen=True, slots=True)
class Item:
    """One value at `line` (from 1; 0: no lines known). `kind` names its type in words; `text` is what a scalar looks
    like; `keys` are the lines of a mapping's keys."""

    source: str
    line: int
    kind: str
    value: Scalar | Sequence[Item] | Mapping[str, Item]
    text: str = ""

    def wrong(self, text: str) -> RulesError:
        """The error that says `text` about this place."""
        at = f"{self.source}: line {self.line}: " if self.line else f"{self.source}: "
        return RulesError(" ".join(f"{at}{text}".split()))


def read_text(text: str, source: str) -> Item:
    """The document in `text`. Raises `RulesError` for what is not YAML, or beyond the bounds."""
    if len(text) > MOST_CHARACTERS:
        raise RulesError(f"{source}: the text is longer than {MOST_CHARACTERS} characters; split it over several files")
    try:
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"line {mark.line + 1}: " if mark else ""
        raise RulesError(f"{source}: {at}not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise RulesError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    if root is None:
        return Item(source, 1, "nothing", None)
    return _Reader(source).read(root, 1)


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._items = 0

    def read(self, node: yaml.Node, level: int) -> Item:
        line = node.start_mark.line + 1
        self._items += 1
        if level > MOST_LEVELS or self._items > MOST_ITEMS:
            what = f"more than {MOST_LEVELS} levels" if level > MOST_LEVELS else f"more than {MOST_ITEMS} items"
            raise RulesError(f"{self._source}: line {line}: {what}; make the rules smaller")
        if isinstance(node, yaml.MappingNode):
            return Item(self._source, line, "a mapping", self._mapping(node, level))
        if isinstance(node, yaml.SequenceNode):
            return Item(self._source, line, "a list", [self.read(child, level + 1) for child in node.value])
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, line)

    def _mapping(self, node: yaml.MappingNode, level: int) -> dict[str, Item]:
        items: dict[str, Item] = {}
        for key, value in node.value:
            at = Item(self._source, key.start_mark.line + 1, "a key", None)
            if not isinstance(key, yaml.ScalarNode) or key.tag != f"{_TAG}str":
                raise at.wrong(f"a key is not a string: {str(key.value)[:80]}; quote it")
            if key.value in items:
                raise at.wrong(f"key '{key.value}' is given twice; remove one")
            items[key.value] = self.read(value, level + 1)
        return items

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Item:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        if tag == "str":
            return Item(self._source, line, "a string", text, text)
        if tag == "bool":
            return Item(self._source, line, "a boolean", text.lower() in _TRUE, text)
        if tag == "null":
            return Item(self._source, line, "nothing", None)
        if tag == "int":
            try:
                return Item(self._source, line, "an integer", int(LOADER("").construct_yaml_int(node)), text)
            except ValueError:
                pass
        raise Item(self._source, line, tag, None).wrong(
            f"{text[:80]!r} is of type {tag}; allowed are strings, integers and booleans: quote it"
        )


def read_mapping(value: object, source: str, level: int = 1) -> Item:
    """A mapping made by a program, in the form of the YAML. Raises `RulesError` for values of other types."""
    if level > MOST_LEVELS:
        raise RulesError(f"{source}: more than {MOST_LEVELS} levels; make the rules smaller")
    match value:
        case Mapping():
            wrong = next((key for key in value if not isinstance(key, str)), None)
            if wrong is not None:
                raise RulesError(f"{source}: a key is not a string: {wrong!r}; quote it")
            return Item(
                source, 0, "a mapping", {key: read_mapping(child, source, level + 1) for key, child in value.items()}
            )
        case str():
            return Item(source, 0, "a string", value, value)
        case bool():
            return Item(source, 0, "a boolean", value, str(value).lower())
        case int():
            return Item(source, 0, "an integer", value, str(value))
        case None:
            return Item(source, 0, "nothing", None)
        case list() | tuple():
            return Item(source, 0, "a list", [read_mapping(child, source, level + 1) for child in value])
    raise RulesError(
        f"{source}: {value!r:.80} is of type {type(value).__name__}; allowed are strings, integers and booleans"
    )
