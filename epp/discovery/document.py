# SPDX-License-Identifier: Apache-2.0
"""Reads YAML or JSON into values that remember their line, for readers that must point at mistakes.

Scalars keep the text that was written, so that an address like `1:2:3:4:5:6:7:8` is not taken for a number; `TEXT`
says that the document's own rules make it a string. JSON has no line numbers here. The text may be anything: YAML is
built from parser events, because the composers overflow the C stack when a document is nested deeply.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any

import yaml

from epp.contract.errors import DiscoveryError

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TEXT_TAG = "tag:yaml.org,2002:str"
_NULL_TAG = "tag:yaml.org,2002:null"
MAX_DEPTH = 32
_TOO_DEEP = f"it is nested more than {MAX_DEPTH} deep"


class Kind(enum.Enum):
    """What a value is, in the words of messages."""

    NULL = "nothing"
    TEXT = "text"
    SCALAR = "a number or other scalar"
    MAPPING = "a mapping"
    LIST = "a list"


@dataclass(frozen=True, slots=True)
class Value:
    """One value. `pairs` may hold a key twice. `line` is counted from 1, 0 when unknown."""

    kind: Kind
    line: int = 0
    text: str = ""
    pairs: tuple[tuple[str, Value], ...] = ()
    items: tuple[Value, ...] = ()


def parse_document(content: bytes) -> Value:
    """Read one document. Raises `DiscoveryError` with one line; it does not name the file."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DiscoveryError(f"byte {error.start} is not UTF-8 text") from None
    if text.lstrip()[:1] not in ("{", "["):
        return _parse_yaml(text)
    # JSON is nearly YAML, but not quite: tabs, and escapes such as \/. And YAML may begin with a brace as well.
    try:
        return _from_json(json.loads(text, object_pairs_hook=_Pairs), MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        try:
            return _parse_yaml(text)
        except DiscoveryError:
            if not isinstance(error, json.JSONDecodeError):
                raise
            raise DiscoveryError(f"line {error.lineno}: {error.msg}") from None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with keys that come twice."""


def _from_json(value: Any, depth: int) -> Value:
    if not depth:
        raise DiscoveryError(_TOO_DEEP)
    if isinstance(value, _Pairs):
        keys = [_from_json(key, depth).text for key, _ in value]
        values = [_from_json(item, depth - 1) for _, item in value]
        return Value(Kind.MAPPING, pairs=tuple(zip(keys, values, strict=True)))
    if isinstance(value, list):
        return Value(Kind.LIST, items=tuple(_from_json(item, depth - 1) for item in value))
    if value is None:
        return Value(Kind.NULL)
    if isinstance(value, str):
        if not _is_unicode(value):
            raise DiscoveryError("a text escapes half of a surrogate pair, which is no character")
        return Value(Kind.TEXT, text=value)
    return Value(Kind.SCALAR, text=json.dumps(value))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_yaml(text: str) -> Value:
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.add(event)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise DiscoveryError(f"{line}{' '.join((error.problem or 'not YAML').split())}") from None
    except yaml.YAMLError as error:
        raise DiscoveryError(" ".join(str(error).split())) from None
    return builder.root or Value(Kind.NULL)


@dataclass(slots=True)
class _Open:
    """A mapping or list that has begun. Of a mapping, keys and values take turns in `values`."""

    kind: Kind
    line: int
    anchor: str | None
    values: list[Value]

    def close(self) -> Value:
        if self.kind is Kind.LIST:
            return Value(Kind.LIST, self.line, items=tuple(self.values))
        keys, values = self.values[0::2], self.values[1::2]
        pairs = tuple((key.text, value) for key, value in zip(keys, values, strict=True))
        return Value(Kind.MAPPING, self.line, pairs=pairs)


class _Builder:
    """Puts the values of one document together from parser events."""

    def __init__(self) -> None:
        self.root: Value | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, Value] = {}
        self._resolver: Any = yaml.resolver.Resolver()

    def add(self, event: Any) -> None:
        """The next event. Raises `DiscoveryError`."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent):
            self._put(self._scalar(event, line), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(str(event.anchor))
            if known is None:
                name = str(event.anchor)[:80]
                raise DiscoveryError(f"line {line}: *{name} stands for nothing that is complete before it")
            self._put(known, None)
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(self._open) == MAX_DEPTH:
                raise DiscoveryError(f"line {line}: {_TOO_DEEP}")
            kind = Kind.MAPPING if isinstance(event, yaml.MappingStartEvent) else Kind.LIST
            self._open.append(_Open(kind, line, event.anchor, []))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            self._put(closed.close(), closed.anchor)
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise DiscoveryError(f"line {line}: a second document begins; there must be one")

    def _put(self, value: Value, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = value
        if self._open:
            self._open[-1].values.append(value)
        else:
            self.root = value

    def _scalar(self, event: Any, line: int) -> Value:
        tag = event.tag
        if tag is None or tag == "!":
            tag = self._resolver.resolve(yaml.ScalarNode, event.value, event.implicit)
        if tag == _NULL_TAG:
            return Value(Kind.NULL, line)
        return Value(Kind.TEXT if tag == _TEXT_TAG else Kind.SCALAR, line, text=event.value)
