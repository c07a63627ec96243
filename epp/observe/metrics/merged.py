# SPDX-License-Identifier: Apache-2.0
"""The families of many pools as families of one page: each once, with a label `pool` that tells the pools apart.

Where one pool is served nothing of this is used, and its page has no such label. What is said of the process and not
of a pool (`PROCESS_WIDE`) is left out here: one collector of the process says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from epp.observe.metrics import families
from epp.observe.metrics.families import Family
from epp.observe.metrics.rows import FamilyCollector, Row

LABEL = "pool"
PROCESS_WIDE = frozenset(
    family.names[0].name
    for family in (
        families.INFO,
        families.LOG_LINES_DROPPED,
        families.DECISION_LOG_LINES,
        families.DECISION_LOG_DROPPED,
    )
)

Parts = Callable[[], Iterable[tuple[str, Iterable[FamilyCollector]]]]
"""The pools there are now, each by the label's value and with its collectors. Called from any thread."""


class MergedCollector(FamilyCollector):
    """Shows what the collectors of all pools show."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._labelled: dict[str, Family] = {}

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Each family once, in the order in which the pools first show them."""
        merged: dict[str, tuple[Family, list[Row]]] = {}
        for pool, collectors in self._parts():
            for collector in collectors:
                for family, rows in collector.families():
                    name = family.names[0].name
                    if not rows or name in PROCESS_WIDE:
                        continue
                    into = merged.get(name)
                    if into is None:
                        into = merged[name] = (self._with_label(family), [])
                    into[1].extend([({**labels, LABEL: pool}, value) for labels, value in rows])
        yield from merged.values()

    def _with_label(self, family: Family) -> Family:
        name = family.names[0].name
        labelled = self._labelled.get(name)
        if labelled is None:
            names = tuple([replace(one, labels=(*one.labels, LABEL)) for one in family.names])
            labelled = self._labelled[name] = replace(family, names=names)
        return labelled
