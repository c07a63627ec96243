# SPDX-License-Identifier: Apache-2.0
"""Who acts, and who reads what whom publishes: producers of prefix matches are added where somebody looks for them.

A match is published under the producer's instance name, and a reader looks for one name: the one its parameter
`prefixMatchInfoProducerName` gives, or the default producer's.
"""

from __future__ import annotations

from epp.config.configuration import Instance, Origin, Source, union
from epp.config.draft import Draft
from epp.config.findings import remedy
from epp.config.parameters import field_value
from epp.config.sections import EXTRACTOR
from epp.contract.plugins import Kind, Reads
from epp.contract.prefix import PREFIX_MATCH

PASSTHROUGH = "passthrough-parser"
PRODUCER_PARAMETER = "prefixMatchInfoProducerName"
DATA_KEYS = {
    Reads.WAITING: "WaitingQueueSize",
    Reads.RUNNING: "RunningRequestsSize",
    Reads.KV_UTILIZATION: "KVCacheUsagePercent",
    Reads.LORA: "ActiveModels",
}
"""What must be read from metrics pages when a plugin declares it, as the Go EPP calls it."""


def active_instances(draft: Draft, roots: set[str]) -> list[Instance]:
    """Instances that act: in a profile, as a producer, by a hook, or where a section names them."""
    return [i for i in draft.instances.values() if i.name in roots or i.acts_alone]


def producers_of(draft: Draft) -> list[Instance]:
    """In order, but added ones first."""
    producers = [instance for instance in draft.of_kind(Kind.PRODUCER) if instance.acts_alone]
    return sorted(producers, key=lambda instance: instance.origin is Origin.GIVEN)


def add_producers(draft: Draft, roots: set[str]) -> None:
    """Every reader of prefix matches gets the producer whose name it looks for."""
    wanted: set[str] = set()
    for instance in active_instances(draft, roots):
        if not _needs_producer(instance):
            continue
        given = field_value(instance.parameters, PRODUCER_PARAMETER)
        name = given or PREFIX_MATCH.producer
        wanted.add(name)
        found = draft.instances.get(name)
        if found is None and name == PREFIX_MATCH.producer and name not in draft.broken:
            draft.add(name, f"'{instance.name}' reads prefix matches")
        elif name not in draft.broken and (found is None or found not in producers_of(draft)):
            names = [producer.name for producer in producers_of(draft)] or [PREFIX_MATCH.producer]
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


def check_scraped(draft: Draft, active: list[Instance], sources: tuple[Source, ...]) -> None:
    """What is read from metrics pages must be extracted by somebody."""
    extracting = [name for source in sources for name in source.extractors]
    if draft.broken or any(draft.instances[name].spec.type == EXTRACTOR for name in extracting):
        return
    for instance in active:
        for need in instance.reads & union(DATA_KEYS):
            text = f"plugin '{instance.name}' ({instance.spec.type}): no default producer found for missing data key"
            text += f" {DATA_KEYS[need]}; list '{EXTRACTOR}' as an extractor of a data source in dataLayer.sources,"
            draft.findings.mistake(instance.line, f"{text} or leave out injectDefaults and sources")


def check_parsers(draft: Draft, active: list[Instance], parsers: tuple[str, ...]) -> None:
    """A plugin that reads prompts finds none when nothing parses them."""
    if not parsers or any(draft.instances[name].spec.type != PASSTHROUGH for name in parsers):
        return
    for instance in active:
        if Reads.PROMPT in instance.reads:
            text = f"plugin '{instance.name}' ({instance.spec.type}) reads the prompt, but {PASSTHROUGH} leaves every"
            draft.findings.warn(instance.line, f"{text} body unread; add openai-parser to requestHandler.parsers")


def note_idle(draft: Draft, active: list[Instance]) -> None:
    """Members of no profile that have no other way to act."""
    members = (Kind.FILTER, Kind.SCORER, Kind.PICKER)
    for instance in draft.of_kind(*members):
        if instance not in active:
            text = f"plugin '{instance.name}' ({instance.spec.type}) is in no scheduling profile and has no effect"
            draft.findings.note(instance.line, text)
