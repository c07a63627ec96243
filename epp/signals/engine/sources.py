# SPDX-License-Identifier: Apache-2.0
"""Reads one signal out of a page: a number, the cache configuration.

Series of one family that differ in an engine's `shard_labels` alone speak of the same requests and the same cache,
and count as one: the largest of them. Which series are meant is decided by their labels, and labels hardly ever
change, so what was decided for the bytes of a label set is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from epp.signals.engine.family import Family, Page
from epp.signals.engine.lines import labels_of, positive, split_line, value_of
from epp.signals.engine.names import Alternatives, EngineMetrics
from epp.signals.engine.series import SeriesSpec, parse_labels

_MAX_REMEMBERED = 1024
_OTHER: Final = ()
"""The group of series that are not meant."""

Group = tuple[tuple[str, str], ...]
Combine = Callable[[list[float]], float]


class Number:
    """One number from the first of several alternative names that the page has."""

    __slots__ = ("_combine", "_shard_labels", "_sources")

    def __init__(self, engine: EngineMetrics, alternatives: Alternatives, combine: Combine) -> None:
        self._sources = [_Source(spec, engine.shard_labels) for spec in alternatives]
        self._combine = combine

    def read(self, page: Page, start: int, end: int) -> float | None:
        """None when the page does not say."""
        for position, source in enumerate(self._sources):
            values = source.values(page, start, end)
            if values:
                if position:
                    # The name that this engine uses is searched first from now on: a search in vain costs most.
                    self._sources.insert(0, self._sources.pop(position))
                return self._combine(values)
        return None


class CacheInfo:
    """Cache configuration from the labels of a series; it hardly ever changes, so equal lines are not parsed again."""

    __slots__ = ("_engine", "_known", "_seen", "_sources")

    def __init__(self, engine: EngineMetrics) -> None:
        self._sources = [(spec, Family(spec.name)) for spec in engine.cache_info]
        self._engine = engine
        self._seen: list[bytes] = []
        self._known: tuple[float | None, float | None] = (None, None)

    def read(self, page: Page, start: int, end: int) -> tuple[float | None, float | None]:
        """(block_size_tokens of the first series, num_blocks over all series); None for what no series has."""
        for spec, family in self._sources:
            lines = family.lines(page, start, end)
            if not lines:
                continue
            if lines != self._seen:
                self._seen, self._known = lines, self._parse(spec, lines)
            return self._known
        return None, None

    def _parse(self, spec: SeriesSpec, lines: list[bytes]) -> tuple[float | None, float | None]:
        engine = self._engine
        found = [labels for labels in map(labels_of, lines) if labels and spec.matches(labels)]
        series = list({_group(labels, engine.shard_labels): labels for labels in reversed(found)}.values())[::-1]
        sizes = list(positive(labels.get(engine.block_size_label) for labels in series))
        blocks = list(positive(labels.get(engine.num_blocks_label) for labels in series))
        return (sizes[0] if sizes else None), (sum(blocks) if blocks else None)


class _Source:
    """The series that one specification names."""

    __slots__ = ("_family", "_groups", "_shard_labels", "_spec")

    def __init__(self, spec: SeriesSpec, shard_labels: frozenset[str]) -> None:
        self._spec = spec
        self._family = Family(spec.name)
        self._shard_labels = shard_labels
        self._groups: dict[bytes, Group] = {}

    def values(self, page: Page, start: int, end: int) -> list[float]:
        lines = self._family.lines(page, start, end)
        if not self._spec.labels and (len(lines) < 2 or not self._shard_labels):
            found = [value_of(split_line(line)[1]) for line in lines]
            return [value for value in found if value is not None]
        largest: dict[Group | bytes, float] = {}
        for line in lines:
            labels, rest = split_line(line)
            group = self._group_of(labels)
            value = value_of(rest) if group is not _OTHER else None
            if value is not None:
                largest[group] = max(value, largest.get(group, value))
        return list(largest.values())

    def _group_of(self, raw: bytes) -> Group:
        group = self._groups.get(raw)
        if group is None:
            labels = parse_labels(raw)
            meant = labels is not None and self._spec.matches(labels)
            group = (("", ""), *_group(labels or {}, self._shard_labels)) if meant else _OTHER
            if len(self._groups) >= _MAX_REMEMBERED:
                self._groups.clear()
            self._groups[raw] = group
        return group


def _group(labels: dict[str, str], shard_labels: frozenset[str]) -> Group:
    return tuple(sorted((key, value) for key, value in labels.items() if key not in shard_labels))
