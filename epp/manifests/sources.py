# SPDX-License-Identifier: Apache-2.0
"""What objects refer to: other objects, real endpoints, secrets, and whether a reference may leave its namespace."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epp.config.findings import nearest, show
from epp.contract.units import parse_duration_s
from epp.manifests.documents import Document, Documents, EndpointList, Remarks, Step

_DURATION = re.compile(r"(?:[0-9]{1,5}(?:h|m|s|ms)){1,4}")


class EndpointBook:
    """Real endpoints by the names they were given for. A list of the command line counts before one of the files."""

    def __init__(self, lists: Sequence[EndpointList]) -> None:
        self._lists = {entry.name: entry for entry in reversed(lists)}
        self._used: set[str] = set()

    def find(self, *full_names: str) -> tuple[str, ...]:
        """The endpoints of the first of these names (`namespace/name`) that has some; ()."""
        for full_name in full_names:
            for name in (full_name, full_name.partition("/")[2]):
                entry = self._lists.get(name)
                if entry is not None:
                    self._used.add(name)
                    return entry.addresses
        return ()

    def unused(self) -> tuple[EndpointList, ...]:
        """Lists whose name nothing has asked for."""
        return tuple(entry for name, entry in self._lists.items() if name not in self._used)


@dataclass(frozen=True, slots=True)
class Sources:
    """All that resolving looks things up in. `used`: titles of the objects that something refers to; `stand_in`: what
    takes the place of a key that is not to be found, "" where that is a mistake."""

    documents: Documents
    remarks: Remarks
    endpoints: EndpointBook
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets_dir: Path | None = None
    stand_in: str = field(default="", repr=False)
    used: set[str] = field(default_factory=set)

    def find(self, kind: str, full_name: str) -> Document | None:
        """The object, which counts as used from now on."""
        found = self.documents.find(kind, full_name)
        if found is not None:
            self.used.add(found.title)
        return found

    def mistake(self, document: Document, path: tuple[Step, ...], text: str) -> None:
        """The object cannot be used as it is."""
        self.remarks.mistake(document.at(*path), f"{document.title}: {text}")

    def warn(self, document: Document, path: tuple[Step, ...], text: str) -> None:
        """Probably not meant."""
        self.remarks.warn(document.at(*path), f"{document.title}: {text}")

    def check_grant(
        self, document: Document, path: tuple[Step, ...], kinds: tuple[str, ...], to: str, name: str
    ) -> None:
        """Tell when a reference of one of `kinds` in the document's namespace to `name` of kind `to` in another one has
        no ReferenceGrant there: a cluster would refuse it, here it is followed all the same."""
        namespace, _, bare = name.partition("/")
        if namespace == document.namespace:
            return
        for grant in self.documents.of("ReferenceGrant"):
            if grant.namespace != namespace:
                continue
            spec = grant.spec
            given = any(a["kind"] in kinds and a["namespace"] == document.namespace for a in spec["from"])
            if given and any(b["kind"] == to and b.get("name", bare) == bare for b in spec["to"]):
                self.used.add(grant.title)
                return
        self.warn(
            document,
            path,
            f"no ReferenceGrant in namespace {namespace} lets it refer to {to} {name}; a cluster would refuse",
        )


def full_name(reference: Mapping[str, Any], document: Document) -> str:
    """`namespace/name` of what a reference of `document` names."""
    return f"{reference.get('namespace') or document.namespace}/{reference['name']}"


def not_found(what: str, name: str, known: Iterable[str]) -> str:
    """The end of a message about a reference that leads nowhere."""
    names = list(known)
    same = [other for other in names if other.partition("/")[2] == name.partition("/")[2]]
    meant = same[0] if same else nearest(name, names)
    guess = f" (did you mean '{meant}'?)" if meant else ""
    return f"{what} {name} is not in the files{guess}"


def seconds(text: str) -> float | None:
    """A duration of the Gateway API (`1h30m`, `500ms`; a part of Go's) in seconds; None if it is none."""
    return parse_duration_s(text) if _DURATION.fullmatch(text) else None


def replicas_of(sources: Sources, document: Document, annotation: str) -> int:
    """How many pods to simulate, by an annotation; 1 without it."""
    value = document.annotations.get(annotation, "1")
    if not re.fullmatch(r"[0-9]{1,3}", str(value)) or int(value) < 1:
        path = ("metadata", "annotations", annotation)
        sources.mistake(document, path, f'{annotation} is {show(value)}; allowed: "1" to "999"')
        return 1
    return int(value)
