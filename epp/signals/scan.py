# SPDX-License-Identifier: Apache-2.0
"""Reads the signals that the configuration needs out of a metrics page, and nothing else.

Only the lines of the families in use are parsed (see `family`); several series of one family, as data-parallel
engines have them, become one number on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from epp.contract.plugins import Reads
from epp.contract.signals import Sample
from epp.signals.engines import Alternatives, EngineMetrics
from epp.signals.family import Family, Page
from epp.signals.series import SeriesSpec, parse_labels

_MAX_NUMBER_BYTES = 64
_BLANKS = b" \t"


class _Signal:
    """One number from the first of several alternative names that the page has."""

    __slots__ = ("_combine", "_sources")

    def __init__(self, alternatives: Alternatives, combine: Callable[[list[float]], float]) -> None:
        self._sources = [(spec, Family(spec.name)) for spec in alternatives]
        self._combine = combine

    def read(self, page: Page, start: int, end: int) -> float | None:
        for position, (spec, family) in enumerate(self._sources):
            values = list(_values(spec, family.lines(page, start, end)))
            if values:
                if position:
                    # The name that this engine uses is searched first from now on: a search in vain costs most.
                    self._sources.insert(0, self._sources.pop(position))
                return self._combine(values)
        return None


class _CacheInfo:
    """Cache configuration from the labels of a series; it hardly ever changes, so equal lines are not parsed again."""

    __slots__ = ("_block_size_label", "_known", "_num_blocks_label", "_seen", "_sources")

    def __init__(self, engine: EngineMetrics) -> None:
        self._sources = [(spec, Family(spec.name)) for spec in engine.cache_info]
        self._block_size_label = engine.block_size_label
        self._num_blocks_label = engine.num_blocks_label
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
        series = [labels for labels in (_labels_of(line) for line in lines) if labels and spec.matches(labels)]
        sizes = list(_positive(labels.get(self._block_size_label) for labels in series))
        blocks = list(_positive(labels.get(self._num_blocks_label) for labels in series))
        return (sizes[0] if sizes else None), (sum(blocks) if blocks else None)


class PageScanner:
    """Reads one endpoint's pages: what `reads` names, as `engine` calls it.

    An endpoint may run several engines (data parallelism), each with series of its own. Requests are routed to the
    endpoint, not to an engine, so the endpoint is judged as a whole, and never by whichever series comes last:

    * waiting, running: the sum. They are amounts of work, and the work of all engines is in the endpoint.
    * kv_utilization: the largest. The endpoint spreads requests over its engines by their number, not by memory, so
      the next request may meet the fullest engine, where it waits or evicts others; a mean would hide that engine.
    * num_blocks: the sum, the endpoint's whole cache; block_size_tokens: of the first series, as all engines of an
      endpoint run with one configuration.

    Values below 0, NaN and infinities count as not said.
    """

    __slots__ = ("_block_size", "_cache_info", "_kv", "_num_blocks", "_running", "_waiting", "wanted")

    def __init__(self, engine: EngineMetrics, reads: Reads) -> None:
        def signal(need: Reads, alternatives: Alternatives, combine: Callable[[list[float]], float]) -> _Signal | None:
            return _Signal(alternatives, combine) if need in reads and alternatives else None

        self._waiting = signal(Reads.WAITING, engine.waiting, sum)
        self._running = signal(Reads.RUNNING, engine.running, sum)
        self._kv = signal(Reads.KV_UTILIZATION, engine.kv_utilization, max)
        self._block_size = signal(Reads.CACHE_CONFIG, engine.block_size_tokens, lambda values: values[0])
        self._num_blocks = signal(Reads.CACHE_CONFIG, engine.num_blocks, sum)
        info = Reads.CACHE_CONFIG in reads and bool(engine.cache_info)
        self._cache_info = _CacheInfo(engine) if info else None
        self.wanted = wanted_fields(engine, reads)

    def scan(self, page: Page, start: int = 0, end: int | None = None) -> Sample:
        """Read `page[start:end]`. Never raises, whatever the page holds."""
        stop = len(page) if end is None else end
        kv = self._kv.read(page, start, stop) if self._kv else None
        size, blocks = self._cache_info.read(page, start, stop) if self._cache_info else (None, None)
        if size is None and self._block_size:
            size = self._block_size.read(page, start, stop) or None
        if blocks is None and self._num_blocks:
            blocks = self._num_blocks.read(page, start, stop) or None
        return Sample(
            waiting=self._waiting.read(page, start, stop) if self._waiting else None,
            running=self._running.read(page, start, stop) if self._running else None,
            kv_utilization=None if kv is None else min(kv, 1.0),
            block_size_tokens=size,
            num_blocks=blocks,
        )


def wanted_fields(engine: EngineMetrics, reads: Reads) -> dict[str, str]:
    """By field of `Sample` that should be filled: the names of the series it is read from, for messages."""
    by_field = (
        (Reads.WAITING, "waiting", engine.waiting),
        (Reads.RUNNING, "running", engine.running),
        (Reads.KV_UTILIZATION, "kv_utilization", engine.kv_utilization),
        (Reads.CACHE_CONFIG, "block_size_tokens", engine.cache_info + engine.block_size_tokens),
        (Reads.CACHE_CONFIG, "num_blocks", engine.cache_info + engine.num_blocks),
    )
    return {field: " or ".join(map(str, specs)) for need, field, specs in by_field if need in reads and specs}


def _values(spec: SeriesSpec, lines: list[bytes]) -> Iterator[float]:
    for line in lines:
        labels, rest = _split(line)
        if spec.labels:
            known = parse_labels(labels)
            if known is None or not spec.matches(known):
                continue
        fields = rest.split()
        if not fields or (len(fields) > 2 and b"#" not in fields[1:3]):
            continue
        value = _number(fields[0].decode("ascii", "replace"))
        if value is not None:
            yield value


def _split(line: bytes) -> tuple[bytes, bytes]:
    """What stands after the name, as (labels without braces, value and timestamp); both empty when malformed."""
    line = line.lstrip(_BLANKS)
    if not line.startswith(b"{"):
        return b"", line
    # Neither value nor timestamp holds a brace, so the last one closes the labels, unless an exemplar follows.
    close = line.rfind(b"}") if b"#" not in line else _closing_brace(line)
    return (line[1:close], line[close + 1 :]) if close >= 0 else (b"", b"")


def _closing_brace(line: bytes) -> int:
    quoted = escaped = False
    for position, byte in enumerate(line):
        if escaped:
            escaped = False
        elif byte == 0x5C:
            escaped = True
        elif byte == 0x22:
            quoted = not quoted
        elif byte == 0x7D and not quoted:
            return position
    return -1


def _labels_of(line: bytes) -> dict[str, str] | None:
    return parse_labels(_split(line)[0])


def _number(text: str) -> float | None:
    """A finite number of at least 0, or None."""
    if len(text) > _MAX_NUMBER_BYTES:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    # Python's floats may have underscores between digits, the format's may not.
    return value if math.isfinite(value) and value >= 0 and "_" not in text else None


def _positive(texts: Iterable[str | None]) -> Iterator[float]:
    for text in texts:
        value = None if text is None else _number(text)
        if value:
            yield value
