# SPDX-License-Identifier: Apache-2.0
"""From the text of a configuration to a checked `Configuration`: decode, take the declared plugins, fill in what is
missing, check.

All mistakes are collected; `ConfigErrors` carries them. Nothing is constructed here: see `epp.config.build`.
"""

from __future__ import annotations

from pathlib import Path

from epp.config.catalog import Catalog
from epp.config.configuration import Configuration, Instance, Origin, Source, union
from epp.config.document import MAX_BYTES, parse_document
from epp.config.draft import Draft
from epp.config.findings import ConfigErrors, Finding, Findings, remedy
from epp.config.parameters import field_value
from epp.config.profiles import build_profiles, choose_handler
from epp.config.schema import Document, read_document
from epp.config.sections import (
    EXTRACTOR,
    build_sources,
    check_flow_control,
    check_gates,
    choose_discovery,
    choose_parsers,
    data_layer_of,
)
from epp.contract.plugins import Kind, Reads
from epp.contract.prefix import PREFIX_MATCH

BUILT_IN = "built-in configuration"
PRODUCER_PARAMETER = "prefixMatchInfoProducerName"
DATA_KEYS = {
    Reads.WAITING: "WaitingQueueSize",
    Reads.RUNNING: "RunningRequestsSize",
    Reads.KV_UTILIZATION: "KVCacheUsagePercent",
}
"""What must be read from metrics pages when a plugin declares it, as the Go EPP calls it."""


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
    try:
        # A cut in the middle of a character is reported as too long by the parser.
        return data.decode("utf-8", "ignore" if len(data) > MAX_BYTES else "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        text = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigErrors(source, [Finding(line, text)]) from error


def load_text(text: str, catalog: Catalog, *, source: str = BUILT_IN, strict: bool = False) -> Configuration:
    """The configuration in `text`, YAML or JSON; an empty text means the built-in one.

    `strict` makes unknown plugin parameters mistakes instead of warnings. Raises ConfigErrors.
    """
    findings = Findings()
    node = parse_document(text, findings)
    document = read_document(node, findings) if node is not None else None
    if document is None or (not document.plugins and findings.mistakes):
        # Without the plugins, every reference would look wrong as well.
        findings.raise_mistakes(source)
    assert document is not None
    draft = Draft(catalog, findings, strict=strict)
    draft.declare(document.plugins)
    configuration = _complete(document, draft, source)
    findings.raise_mistakes(source)
    assert configuration is not None
    return configuration


def _complete(document: Document, draft: Draft, source: str) -> Configuration | None:
    """Fill in what is missing and check the whole; None after a mistake that leaves nothing to run."""
    check_gates(document, draft)
    profiles = build_profiles(document, draft)
    handler = choose_handler(profiles, draft)
    layer = data_layer_of(document, draft)
    sources = build_sources(layer, draft)
    discovery = choose_discovery(layer, draft)
    parsers, parsers_origin = choose_parsers(document, draft)
    check_flow_control(document, draft)
    roots = {handler, *parsers, *(member for profile in profiles for member in profile.members)}
    roots |= {name for source_ in sources for name in (source_.name, *source_.extractors)} | {discovery or ""}
    _add_producers(draft, roots)
    active = _active(draft, roots)
    _check_scraped(draft, active, sources)
    _note_idle(draft, active)
    if draft.findings.mistakes:
        return None
    instances = tuple(draft.instances.values())
    return Configuration(
        source=source,
        instances=instances,
        profiles=profiles,
        handler=handler,
        producers=tuple(instance.name for instance in _producers(draft)),
        sources=sources,
        discovery=discovery,
        parsers=parsers,
        parsers_origin=parsers_origin,
        active=frozenset(instance.name for instance in active),
        reads=union(instance.reads for instance in active),
        notes=tuple(map(str, draft.findings.notes)),
        warnings=(*draft.catalog.warnings, *map(str, draft.findings.warnings)),
    )


def _active(draft: Draft, roots: set[str]) -> list[Instance]:
    """Instances that act: in a profile, as a producer, by a hook, or where a section names them."""
    return [i for i in draft.instances.values() if i.name in roots or i.acts_alone]


def _producers(draft: Draft) -> list[Instance]:
    """In order, but added ones first."""
    producers = [instance for instance in draft.of_kind(Kind.PRODUCER) if instance.acts_alone]
    return sorted(producers, key=lambda instance: instance.origin is Origin.GIVEN)


def _add_producers(draft: Draft, roots: set[str]) -> None:
    """Every reader of prefix matches gets the producer whose name it looks for."""
    wanted: set[str] = set()
    for instance in _active(draft, roots):
        if not _needs_producer(instance):
            continue
        given = field_value(instance.parameters, PRODUCER_PARAMETER)
        name = given or PREFIX_MATCH.producer
        wanted.add(name)
        found = draft.instances.get(name)
        if found is None and name == PREFIX_MATCH.producer and name not in draft.broken:
            draft.add(name, f"'{instance.name}' reads prefix matches")
        elif name not in draft.broken and (found is None or found not in _producers(draft)):
            names = [producer.name for producer in _producers(draft)] or [PREFIX_MATCH.producer]
            text = f"plugin '{instance.name}' ({instance.spec.type}) parameters.{PRODUCER_PARAMETER}: no default"
            text += f" producer found for missing data key {PREFIX_MATCH.name}/{name}{remedy(name, names)}"
            draft.findings.mistake(instance.line, text)
    for producer in draft.of_type(PREFIX_MATCH.producer):
        if producer.name not in wanted:
            text = f"plugin '{producer.name}' ({producer.spec.type}) publishes what no plugin reads; name it in a"
            draft.findings.warn(producer.line, f"{text} scorer's {PRODUCER_PARAMETER}, or remove it")


def _needs_producer(instance: Instance) -> bool:
    """Whether prefix matches must be published for it: not when it keeps an index of its own."""
    if getattr(instance.parameters, "owns_index", False):
        return False
    declared = getattr(instance.entry.target, "needs_default_producer", None)
    return declared if isinstance(declared, bool) else Reads.PREFIX_MATCH in instance.reads


def _check_scraped(draft: Draft, active: list[Instance], sources: tuple[Source, ...]) -> None:
    """What is read from metrics pages must be extracted by somebody."""
    extracting = [name for source in sources for name in source.extractors]
    if draft.broken or any(draft.instances[name].spec.type == EXTRACTOR for name in extracting):
        return
    for instance in active:
        for need in instance.reads & union(DATA_KEYS):
            text = f"plugin '{instance.name}' ({instance.spec.type}): no default producer found for missing data key"
            text += f" {DATA_KEYS[need]}; list '{EXTRACTOR}' as an extractor of a data source in dataLayer.sources,"
            draft.findings.mistake(instance.line, f"{text} or leave out injectDefaults and sources")


def _note_idle(draft: Draft, active: list[Instance]) -> None:
    """Members of no profile that have no other way to act."""
    members = (Kind.FILTER, Kind.SCORER, Kind.PICKER)
    for instance in draft.of_kind(*members):
        if instance not in active:
            text = f"plugin '{instance.name}' ({instance.spec.type}) is in no scheduling profile and has no effect"
            draft.findings.note(instance.line, text)
