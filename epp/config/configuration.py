# SPDX-License-Identifier: Apache-2.0
"""A configuration that was read, completed and checked: what the service runs and `epp check` prints.

Everything refers to plugins by instance name. Order is the document's; what was added comes after it, except that
added producers run first, as others may read what they publish.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from epp.config.catalog import Entry
from epp.contract.plugins import Kind, PluginSpec, Reads
from epp.contract.prefix import PREFIX_MATCH

HOOKS = ("on_routed", "on_response_headers", "on_done", "on_endpoint_added", "on_endpoint_removed")
"""Methods by which a plugin acts without being in a profile."""


class Origin(enum.Enum):
    """Who decided: the document, or the defaults for what it left out."""

    GIVEN = "given"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Instance:
    """One plugin to construct.

    * type: as the document spells it, possibly an older name; `spec.type` is today's
    * parameters: the typed object, None for plugins that have none
    * reads: what this instance reads, given its parameters
    * line: of its entry in the document, 0 when it was added
    """

    name: str
    type: str
    entry: Entry
    parameters: Any
    reads: Reads
    line: int
    origin: Origin

    @property
    def spec(self) -> PluginSpec:
        """What the plugin's decorator attached."""
        return self.entry.spec

    @property
    def leans_on_producer(self) -> bool:
        """Whether a plugin that could keep a prefix index (`parameters.owns_index`) leaves it to a producer.

        It then acts in profiles alone, whatever methods it has.
        """
        return getattr(self.parameters, "owns_index", None) is False

    @property
    def acts_alone(self) -> bool:
        """Whether the plugin acts outside of profiles, as a producer or by a hook."""
        methods = any(hasattr(self.entry.target, hook) for hook in HOOKS)
        return (self.is_a(Kind.PRODUCER) or methods) and not self.leans_on_producer

    @property
    def publishes_prefixes(self) -> bool:
        """Whether prefix matches are published under this instance's name."""
        return self.spec.type == PREFIX_MATCH.producer or bool(getattr(self.parameters, "owns_index", False))

    def is_a(self, *kinds: Kind) -> bool:
        """Whether the plugin is of any of these kinds."""
        return not self.spec.kinds.isdisjoint(kinds)


@dataclass(frozen=True, slots=True)
class ScorerRef:
    """A scorer in a profile; `origin` says who decided the weight."""

    name: str
    weight: float
    origin: Origin


@dataclass(frozen=True, slots=True)
class Profile:
    """A scheduling profile: filters and scorers in order, and one picker."""

    name: str
    filters: tuple[str, ...]
    scorers: tuple[ScorerRef, ...]
    picker: str
    picker_origin: Origin
    origin: Origin
    line: int

    @property
    def members(self) -> tuple[str, ...]:
        """Every instance the profile names, each once."""
        return tuple(dict.fromkeys((*self.filters, *(scorer.name for scorer in self.scorers), self.picker)))


@dataclass(frozen=True, slots=True)
class Source:
    """A data source and the extractors that read what it fetches."""

    name: str
    extractors: tuple[str, ...]
    origin: Origin


@dataclass(frozen=True, slots=True)
class Configuration:
    """The whole. `active` are the instances that act on requests or endpoints; `reads` is what they read together;
    `detector` is the one that says when the pool is saturated, None for the default one.

    A plugin may settle what it reads only when it is constructed: `epp.config.build` has the last word.
    """

    source: str
    instances: tuple[Instance, ...]
    profiles: tuple[Profile, ...]
    handler: str
    producers: tuple[str, ...]
    sources: tuple[Source, ...]
    discovery: str | None
    detector: str | None
    parsers: tuple[str, ...]
    parsers_origin: Origin
    active: frozenset[str]
    reads: Reads
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def instance(self, name: str) -> Instance:
        """The instance called `name`. Raises KeyError."""
        for instance in self.instances:
            if instance.name == name:
                return instance
        raise KeyError(name)

    def of_type(self, type: str) -> Instance | None:  # noqa: A002 - the field's name
        """The first instance of this type (today's name), or None."""
        return next((instance for instance in self.instances if instance.spec.type == type), None)

    def readers(self, needs: Reads) -> tuple[str, ...]:
        """The active instances that read any of `needs`."""
        return tuple(i.name for i in self.instances if i.name in self.active and i.reads & needs)


def union(reads: Iterable[Reads]) -> Reads:
    """Everything that any of them reads."""
    total = Reads.NOTHING
    for one in reads:
        total |= one
    return total
