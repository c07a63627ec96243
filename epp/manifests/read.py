# SPDX-License-Identifier: Apache-2.0
"""Files to documents: YAML with many documents or Lists, JSON, YAML blocks of Markdown, directories of these, stdin.

A mistake does not end the reading: all of them are collected, and raised together. What is in a Secret is never part
of a message.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from epp.config.document import MAX_BYTES, Node, parse_document
from epp.config.findings import Findings, show
from epp.contract.errors import EppError
from epp.discovery.address import parse_port
from epp.manifests.blocks import blocks_of, documents_of
from epp.manifests.documents import DEFAULT_NAMESPACE, Document, Documents, EndpointList, Remarks
from epp.manifests.kinds import UNNAMED, check, is_namespaced

STDIN = "-"
_SUFFIXES = (".yaml", ".yml", ".json", ".md")
_LOOKS_LIKE_OBJECT = re.compile(r"^\s*[\"']?kind[\"']?\s*:", re.MULTILINE)
_LOOKS_LIKE_SECRET = re.compile(r"\bkind[\"']?\s*:\s*[\"']?Secret\b")
_HOST = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:/\[\]]+)):(?P<port>[0-9]+)")


def read_files(paths: Sequence[Path], *, stdin: TextIO | None = None) -> Documents:
    """Everything in the files, checked field by field. `-` is `stdin` (the process's if None). Of two objects of one
    kind and name the later counts, as with `kubectl apply`. Raises ManifestErrors."""
    remarks = Remarks()
    reader = _Reader(remarks)
    files: list[Path] = []
    for path in paths:
        for file in _files_of(path, remarks):
            text = _text_of(file, stdin or sys.stdin, remarks)
            if text is not None:
                files.append(file)
                reader.read(str(file), text, markdown=file.suffix == ".md")
    documents = Documents(tuple(reader.items.values()), tuple(reader.endpoints), tuple(files), remarks)
    for document in documents.items:
        check(document, remarks)
    remarks.raise_mistakes()
    return documents


def _files_of(path: Path, remarks: Remarks) -> list[Path]:
    if str(path) == STDIN or not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not found:
        remarks.mistake(
            str(path), f"no file of this directory is a manifest; their names end with {', '.join(_SUFFIXES)}"
        )
    return found


def _text_of(file: Path, stdin: TextIO, remarks: Remarks) -> str | None:
    try:
        if str(file) == STDIN:
            text = stdin.read(MAX_BYTES + 1)
        else:
            with file.open("rb") as stream:
                text = stream.read(MAX_BYTES + 1).decode()
    except OSError as error:
        remarks.mistake(str(file), f"cannot be read: {error.strerror}; give a file or a directory of manifests")
        return None
    except UnicodeDecodeError:
        remarks.mistake(str(file), "is not UTF-8 text; give YAML, JSON or Markdown")
        return None
    if len(text) > MAX_BYTES:
        remarks.mistake(str(file), f"is longer than {MAX_BYTES} bytes; split it")
        return None
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


class _Reader:
    """Collects objects and endpoint lists. `items` is keyed by kind and name, in the order of the files."""

    def __init__(self, remarks: Remarks) -> None:
        self.items: dict[tuple[str, str, str], Document] = {}
        self.endpoints: list[EndpointList] = []
        self._remarks = remarks
        self._unnamed = 0

    def read(self, source: str, text: str, *, markdown: bool) -> None:
        """One file."""
        for before, block in blocks_of(text) if markdown else ((0, text),):
            for offset, piece in documents_of(block, before):
                self._piece(source, offset, piece, markdown=markdown)

    def _piece(self, source: str, offset: int, piece: str, *, markdown: bool) -> None:
        findings = Findings()
        root = parse_document(piece, findings)
        if findings.mistakes:
            if markdown and not _LOOKS_LIKE_OBJECT.search(piece):
                return
            hidden = "not YAML (what is wrong is not shown: it is a Secret)"
            for finding in findings.mistakes:
                text = hidden if _LOOKS_LIKE_SECRET.search(piece) else finding.text
                self._remarks.mistake(f"{source}:{finding.line + offset}", text)
            return
        if root is not None and root.value is not None:
            self._root(source, offset, root, piece, markdown=markdown)

    def _root(self, source: str, offset: int, root: Node, text: str, *, markdown: bool) -> None:
        place = f"{source}:{root.line + offset}"
        fields = root.value if isinstance(root.value, dict) else {}
        if "kind" not in fields:
            if set(fields) == {"endpoints"} and isinstance(fields["endpoints"].value, dict):
                self.endpoints += _endpoint_lists(source, offset, fields["endpoints"], self._remarks)
            elif not markdown:
                self._remarks.mistake(
                    place, "no Kubernetes object: it has no kind; allowed besides: endpoints: {NAME: [host:port]}"
                )
            return
        kind = fields["kind"].value
        if (
            isinstance(kind, str)
            and kind.endswith("List")
            and isinstance(getattr(fields.get("items"), "value", None), list)
        ):
            for item in fields["items"].value:  # type: ignore[union-attr]
                assert isinstance(item, Node)
                self._root(source, offset, item, "", markdown=False)
            return
        document = _document(source, offset, root, text, self._remarks)
        if document is not None:
            self._keep(document)

    def _keep(self, document: Document) -> None:
        key = (f"{document.group}/{document.kind}", document.namespace, document.name)
        if not document.name:
            self._unnamed += 1
            key = (*key[:2], f"#{self._unnamed}")
        earlier = self.items.pop(key, None)
        if earlier is not None and earlier.plain() != document.plain():
            self._remarks.warn(
                document.at(), f"{document.title} is already at {earlier.at()}; this one counts, as with kubectl apply"
            )
        self.items[key] = document


def _document(source: str, offset: int, root: Node, text: str, remarks: Remarks) -> Document | None:
    """The object with its identity; None after a mistake."""
    place = f"{source}:{root.line + offset}"
    assert isinstance(root.value, dict)
    kind, version = (_string(root.value.get(field)) for field in ("kind", "apiVersion"))
    if not kind or not version:
        remarks.mistake(
            place, f"{'kind' if not kind else f'apiVersion of this {kind}'} must be a text that is not empty"
        )
        return None
    group, _, version = version.rpartition("/")
    metadata = root.value.get("metadata")
    fields = metadata.value if metadata is not None and isinstance(metadata.value, dict) else {}
    name, namespace = _string(fields.get("name")), _string(fields.get("namespace"))
    if name is None and "name" in fields:
        line = fields["name"].line + offset
        remarks.mistake(f"{source}:{line}", f"metadata.name of this {kind} must be a text; quote it")
        return None
    if not name and kind not in UNNAMED:
        remarks.mistake(place, f"metadata.name of this {kind} is missing; give it a name")
        return None
    home = (namespace or DEFAULT_NAMESPACE) if is_namespaced(kind) else ""
    return Document(source, offset, group, version, kind, home, name or "", root, text)


def _string(node: Node | None) -> str | None:
    return node.value if node is not None and isinstance(node.value, str) else None


def _endpoint_lists(source: str, offset: int, node: Node, remarks: Remarks) -> Iterator[EndpointList]:
    assert isinstance(node.value, dict)
    for name, child in node.value.items():
        place = f"{source}:{node.key_lines[name] + offset}"
        if not isinstance(child.value, list) or not child.value:
            remarks.mistake(place, f"endpoints of {show(name)} must be a list of host:port that is not empty")
            continue
        addresses = []
        for item in child.value:
            try:
                addresses.append(checked_address(str(item.value)))
            except ValueError as error:
                remarks.mistake(f"{source}:{item.line + offset}", f"endpoint of {show(name)}: {error}")
        if addresses:
            yield EndpointList(place, name, tuple(addresses))


def checked_address(text: str) -> str:
    """`host:port` as it is, IPv6 in brackets. Raises ValueError with one line."""
    match = _HOST.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        parse_port(match["port"])
    except (ValueError, EppError):
        raise ValueError(
            f"{show(text)} is no host:port; allowed: a name or address and a port from 1 to 65535"
        ) from None
    return text
