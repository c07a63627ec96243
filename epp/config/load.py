# SPDX-License-Identifier: Apache-2.0
"""From the text of a configuration to a checked `Configuration`: decode, take the declared plugins, fill in what is
missing, check.

All mistakes are collected; `ConfigErrors` carries them. Nothing is constructed here: see `epp.config.build`.
"""

from __future__ import annotations

from pathlib import Path

from epp.config.catalog import Catalog
from epp.config.configuration import Configuration, union
from epp.config.detector import choose_detector
from epp.config.document import MAX_BYTES, TOO_LONG, parse_document
from epp.config.draft import Draft
from epp.config.findings import ConfigErrors, Finding, Findings
from epp.config.producers import (
    active_instances,
    add_producers,
    check_parsers,
    check_scraped,
    note_idle,
    producers_of,
)
from epp.config.profiles import build_profiles, choose_handler
from epp.config.schema import Document, read_document
from epp.config.sections import (
    build_sources,
    check_flow_control,
    check_gates,
    choose_discovery,
    choose_parsers,
    data_layer_of,
)

BUILT_IN = "built-in configuration"


def load_file(path: Path | str, catalog: Catalog, *, strict: bool = False) -> Configuration:
    """The configuration in a file. Raises ConfigErrors."""
    return load_text(read_text(path), catalog, source=str(path), strict=strict)


def read_text(path: Path | str) -> str:
    """A configuration file's text, at most one byte over the limit. Raises ConfigErrors when it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        text = f"cannot be read: {error.strerror}; give a readable YAML or JSON file"
        raise ConfigErrors(str(path), [Finding(0, text)]) from error
    return decode(data, str(path))


def decode(data: bytes, source: str) -> str:
    """UTF-8 bytes to text. Raises ConfigErrors."""
    if len(data) > MAX_BYTES:
        raise ConfigErrors(source, [Finding(0, TOO_LONG)])
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigErrors(source, [Finding(line, text)]) from error


def load_text(text: str, catalog: Catalog, *, source: str = BUILT_IN, strict: bool = False) -> Configuration:
    """The configuration in `text`, YAML or JSON; an empty text means the built-in one.

    `strict` makes unknown plugin parameters mistakes instead of warnings. Raises ConfigErrors.
    """
    findings = Findings()
    document = _read(text, findings, source)
    draft = Draft(catalog, findings, strict=strict)
    draft.declare(document.plugins)
    return _complete(document, draft, source)


def _read(text: str, findings: Findings, source: str) -> Document:
    """Decode. Raises ConfigErrors when too little is left to check the rest by."""
    node = parse_document(text, findings)
    document = None if node is None else read_document(node, findings)
    if document is None or (findings.mistakes and not document.plugins):
        # Without the plugins, every reference would look wrong as well.
        raise ConfigErrors(source, findings.mistakes)
    return document


def _complete(document: Document, draft: Draft, source: str) -> Configuration:
    """Fill in what is missing and check the whole. Raises ConfigErrors."""
    check_gates(document, draft)
    profiles = build_profiles(document, draft)
    handler = choose_handler(profiles, draft)
    layer = data_layer_of(document, draft)
    sources = build_sources(layer, draft)
    discovery = choose_discovery(layer, draft)
    parsers, parsers_origin = choose_parsers(document, draft)
    check_flow_control(document, draft)
    detector = choose_detector(document, draft)
    roots = {handler, *parsers, *(member for profile in profiles for member in profile.members)}
    roots |= {name for source_ in sources for name in (source_.name, *source_.extractors)} | {
        discovery or "",
        detector or "",
    }
    add_producers(draft, roots)
    active = active_instances(draft, roots)
    check_scraped(draft, active, sources)
    check_parsers(draft, active, parsers)
    note_idle(draft, active)
    draft.findings.raise_mistakes(source)
    return Configuration(
        source=source,
        instances=tuple(draft.instances.values()),
        profiles=profiles,
        handler=handler,
        producers=tuple(instance.name for instance in producers_of(draft)),
        sources=sources,
        discovery=discovery,
        detector=detector,
        parsers=parsers,
        parsers_origin=parsers_origin,
        active=frozenset(instance.name for instance in active),
        reads=union(instance.reads for instance in active),
        notes=tuple(map(str, draft.findings.notes)),
        warnings=(*draft.catalog.warnings, *map(str, draft.findings.warnings)),
    )
