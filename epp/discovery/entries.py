# SPDX-License-Identifier: Apache-2.0
"""The schema of an endpoints file, that of the Go EPP's file discovery:

    endpoints:
      - name: pod-0               # required
        namespace: default        # optional
        address: 10.0.0.1         # required, IPv4 or IPv6
        port: "8000"              # required, text or number
        labels: {app: vllm}       # optional, text to text

A bad entry is reported and left out, and the others are used. A document without a usable list is refused whole.
Of two entries with one namespace and name the first counts. Two names may have one address; that is only remarked on.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from types import MappingProxyType

from epp.contract.discovery import EndpointSpec
from epp.contract.errors import DiscoveryError
from epp.discovery.address import SHOWN_CHARACTERS, parse_ip, parse_port
from epp.discovery.document import Kind, Value, parse_document

_FIELDS = ("name", "namespace", "address", "port", "labels")
_NAME = re.compile(r"[^\s/\x00-\x1f\x7f]{1,253}")


@dataclass(frozen=True, slots=True)
class Entries:
    """What a file says: usable endpoints, and one line for each thing that is wrong or odd."""

    specs: tuple[EndpointSpec, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]


def parse_entries(content: bytes) -> Entries:
    """Read a file's content, YAML or JSON. Raises `DiscoveryError` with one line; it does not name the file."""
    items = _endpoint_list(parse_document(content))
    specs: dict[str, EndpointSpec] = {}
    places: dict[str, str] = {}
    by_address: dict[str, str] = {}
    problems, remarks = [], []
    for position, item in enumerate(items):
        place = f"line {item.line}" if item.line else f"endpoints[{position}]"
        try:
            spec = _spec(item)
            if spec.id in specs:
                raise DiscoveryError(f"{spec.id} is already at {places[spec.id]}")
        except DiscoveryError as error:
            problems.append(f"{place}: {error}")
            continue
        specs[spec.id] = spec
        places[spec.id] = place
        other = by_address.setdefault(spec.address, spec.id)
        if other != spec.id:
            remarks.append(f"{place}: {spec.id} has the address of {other}, {spec.address}")
    return Entries(tuple(specs.values()), tuple(problems), tuple(remarks))


def _endpoint_list(root: Value) -> tuple[Value, ...]:
    if root.kind is not Kind.MAPPING:
        raise DiscoveryError(f"it holds {root.kind.value}; it must be a mapping with a list 'endpoints'")
    found = None
    for key, value in root.pairs:
        if key != "endpoints":
            raise DiscoveryError(f"{_at(value)}unknown field {key[:SHOWN_CHARACTERS]!r}{_nearest(key, ('endpoints',))}")
        if found is not None:
            raise DiscoveryError(f"{_at(value)}'endpoints' is there twice")
        found = value
    if found is None or found.kind is not Kind.LIST:
        what = "missing" if found is None else found.kind.value
        raise DiscoveryError(f"{_at(found)}'endpoints' is {what}; it must be a list, [] when there are none")
    return found.items


def _spec(item: Value) -> EndpointSpec:
    if item.kind is not Kind.MAPPING:
        raise DiscoveryError(f"the entry is {item.kind.value}; it must have name, address and port")
    fields: dict[str, Value] = {}
    for key, value in item.pairs:
        if key not in _FIELDS:
            raise DiscoveryError(f"unknown field {key[:SHOWN_CHARACTERS]!r}{_nearest(key, _FIELDS)}")
        if key in fields:
            raise DiscoveryError(f"field {key[:SHOWN_CHARACTERS]!r} is there twice")
        if value.kind is not Kind.NULL:
            fields[key] = value
    missing = [name for name in ("name", "address", "port") if name not in fields]
    if missing:
        raise DiscoveryError(f"{', '.join(missing)} must be given")
    return EndpointSpec(
        namespace=_object_name("namespace", fields.get("namespace", Value(Kind.TEXT, text="default"))),
        name=_object_name("name", fields["name"]),
        ip=parse_ip(_scalar("address", fields["address"])),
        port=parse_port(_scalar("port", fields["port"])),
        labels=_labels(fields.get("labels", Value(Kind.MAPPING))),
    )


def _labels(value: Value) -> MappingProxyType[str, str]:
    if value.kind is not Kind.MAPPING:
        raise DiscoveryError(f"labels is {value.kind.value}; it must be a mapping of text to text")
    labels: dict[str, str] = {}
    for key, item in value.pairs:
        if key in labels:
            raise DiscoveryError(f"label {key[:SHOWN_CHARACTERS]!r} is there twice")
        labels[key] = _text(f"label {key[:SHOWN_CHARACTERS]!r}", item)
    return MappingProxyType(labels)


def _object_name(field: str, value: Value) -> str:
    text = _text(field, value)
    if not _NAME.fullmatch(text):
        raise DiscoveryError(
            f"{field} {text[:SHOWN_CHARACTERS]!r} must be 1 to 253 characters without blanks and slashes"
        )
    return text


def _text(field: str, value: Value) -> str:
    if value.kind is Kind.SCALAR:
        shown = value.text[:SHOWN_CHARACTERS]
        shown = shown if shown.isprintable() else repr(shown)
        raise DiscoveryError(f"{field} is {shown}, which is not text; quote it")
    if value.kind is not Kind.TEXT:
        raise DiscoveryError(f"{field} is {value.kind.value}; it must be text")
    return value.text


def _scalar(field: str, value: Value) -> str:
    if value.kind not in (Kind.TEXT, Kind.SCALAR):
        raise DiscoveryError(f"{field} is {value.kind.value}; it must be text")
    return value.text


def _at(value: Value | None) -> str:
    return f"line {value.line}: " if value is not None and value.line else ""


def _nearest(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key[:SHOWN_CHARACTERS], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
