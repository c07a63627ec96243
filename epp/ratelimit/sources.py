# SPDX-License-Identifier: Apache-2.0
"""Configuration files to one book of rules: files in the form of envoyproxy/ratelimit, and Kubernetes manifests.

A file is of one kind: rules (its documents have `domain`), or manifests (they have `kind`; Markdown always). A folder
stands for its .yaml, .yml and .json files, and for those of its subfolder `config`, where the Go service looks; names
that begin with a dot are left out, as the folder may be a mounted ConfigMap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from epp.config.document import MAX_BYTES
from epp.manifests.blocks import documents_of
from epp.ratelimit.errors import RulesError
from epp.ratelimit.manifests import rules_of_manifests
from epp.ratelimit.reading import LOADER
from epp.ratelimit.rules import RuleBook, load_rules

_SUFFIXES = (".yaml", ".yml", ".json")
_GO_FOLDER = "config"
_MARKDOWN = ".md"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files say. `notes`: what they ask for that is not done, and what was probably not meant, one line
    each."""

    book: RuleBook
    notes: tuple[str, ...] = ()


class Sources:
    """The files that `paths` (files and folders) stand for, now and later. Everything here reads disks: not for the
    event loop."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def files(self) -> list[Path]:
        """The files, in their order. Raises `RulesError` for a folder without any."""
        return [file for path in self._paths for file in _files_of(path)]

    def digest(self) -> bytes:
        """Another one when a file has come, gone or changed. Raises `RulesError`."""
        digest = hashlib.sha256()
        for file in self.files():
            for part in (str(file).encode("utf-8", "surrogateescape"), _bytes_of(file)):
                digest.update(len(part).to_bytes(8, "big") + part)
        return digest.digest()

    def load(self) -> Loaded:
        """Read and check everything. Raises `EppError` with the first mistake."""
        rules: list[tuple[str, Mapping[str, object] | str]] = []
        manifests: list[Path] = []
        for file in self.files():
            documents = [] if file.suffix == _MARKDOWN else list(_documents(file))
            if documents:
                rules += documents
            else:
                manifests.append(file)
        notes: tuple[str, ...] = ()
        if manifests:
            made, notes = rules_of_manifests(manifests)
            rules += made
        return Loaded(load_rules(rules), notes)


def _files_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [
        file
        for folder in (path, path / _GO_FOLDER)
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if file.suffix in _SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not found:
        raise RulesError(f"{path}: the folder holds no file of rules; their names end with {', '.join(_SUFFIXES)}")
    return found


def _bytes_of(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise RulesError(f"{file}: cannot be read: {error.strerror}; give a readable file or folder") from error
    if len(data) > MAX_BYTES:
        raise RulesError(f"{file}: is longer than {MAX_BYTES} bytes; split it")
    return data


def _documents(file: Path) -> Iterator[tuple[str, str]]:
    """(source, text) of each document of a file of rules; nothing for a file of manifests."""
    source = str(file)
    try:
        text = _bytes_of(file).decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise RulesError(f"{source}: is not UTF-8 text; save it as UTF-8") from None
    pieces = list(documents_of(text))
    if not pieces:
        raise RulesError(f"{source}: is empty; write `domain: NAME` and `descriptors:`")
    kinds = {_is_manifest(piece) for _, piece in pieces}
    if kinds == {True}:
        return
    if len(kinds) > 1:
        line = next(offset for offset, piece in pieces if not _is_manifest(piece)) + 1
        raise RulesError(f"{source}: line {line}: rules among manifests; put them into a file of their own")
    # Each document has its lines' numbers of the file.
    yield from [(source, "\n" * offset + piece) for offset, piece in pieces]


def _is_manifest(text: str) -> bool:
    """Whether the document says what kind it is, or which endpoints there are. What is no YAML is left to the reader of
    rules to complain about."""
    try:
        root = yaml.compose(text, Loader=LOADER)
    except (yaml.YAMLError, RecursionError):
        return False
    if not isinstance(root, yaml.MappingNode):
        return False
    keys = {key.value for key, _ in root.value if isinstance(key, yaml.ScalarNode)}
    return "kind" in keys or keys == {"endpoints"}
