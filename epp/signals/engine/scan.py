# SPDX-License-Identifier: Apache-2.0
"""Reads the signals that the configuration needs out of a metrics page, and nothing else.

Only the lines of the families in use are parsed (see `family`); several series of one family, as data-parallel
engines have them, become one number on purpose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from epp.contract.endpoints import Clock
from epp.contract.plugins import SCRAPED, Reads
from epp.contract.signals import Sample
from epp.signals.engine.adapters import Adapters
from epp.signals.engine.busy import BusyTime
from epp.signals.engine.family import Page
from epp.signals.engine.names import Alternatives, EngineMetrics
from epp.signals.engine.recognise import Engines, wanted_fields
from epp.signals.engine.sources import CacheInfo, Combine, Number

_NOTHING = Sample()
_NO_NUMBERS = (None,) * 5


class EngineScanner:
    """Reads one endpoint's pages: what `reads` names, as `engine` calls it.

    An endpoint may run several engines (data parallelism), each with series of its own. Requests are routed to the
    endpoint, not to an engine, so the endpoint is judged as a whole, and never by whichever series comes last:

    * waiting, running: the sum. They are amounts of work, and the work of all engines is in the endpoint.
    * kv_utilization: the largest. The endpoint spreads requests over its engines by their number, not by memory, so
      the next request may meet the fullest engine, where it waits or evicts others; a mean would hide that engine.
    * num_blocks: the sum, the endpoint's whole cache; block_size_tokens: of the first series, as all engines of an
      endpoint run with one configuration.

    Values below 0, NaN and infinities count as not said. When nothing that `reads` names must be on every page, the
    requests waiting are read as well, so that a page that was read can be told from one that was not.
    """

    __slots__ = (
        "_adapters", "_block_size", "_busy", "_cache_info", "_kv", "_num_blocks", "_running", "_waiting", "engine",
        "families", "wanted",
    )  # fmt: skip

    def __init__(self, engine: EngineMetrics, reads: Reads, clock: Clock = time.monotonic) -> None:
        if reads & SCRAPED and not wanted_fields(engine, reads):
            reads |= Reads.WAITING

        def of(need: Reads, alternatives: Alternatives, combine: Combine) -> Number | None:
            return Number(engine, alternatives, combine) if need in reads and alternatives else None

        self.engine = engine
        self.wanted = wanted_fields(engine, reads)
        self.families = _families(engine, reads)
        self._waiting = of(Reads.WAITING, engine.waiting, sum)
        self._running = of(Reads.RUNNING, engine.running, sum)
        self._busy = BusyTime(engine, clock) if Reads.RUNNING in reads and engine.total_us else None
        self._kv = of(Reads.KV_UTILIZATION, engine.kv_utilization, max)
        self._block_size = of(Reads.CACHE_CONFIG, engine.block_size_tokens, lambda values: values[0])
        self._num_blocks = of(Reads.CACHE_CONFIG, engine.num_blocks, sum)
        self._cache_info = CacheInfo(engine) if Reads.CACHE_CONFIG in reads and engine.cache_info else None
        self._adapters = Adapters(engine) if Reads.LORA in reads and engine.lora else None

    def scan(self, page: Page, start: int, stop: int) -> Sample:
        """Read `page[start:stop]`. Never raises, whatever the page holds."""
        running = self._running.read(page, start, stop) if self._running else None
        if running is None and self._busy:
            running = self._busy.read(page, start, stop)
        kv = self._kv.read(page, start, stop) if self._kv else None
        size, blocks = self._cache_info.read(page, start, stop) if self._cache_info else (None, None)
        if size is None and self._block_size:
            size = self._block_size.read(page, start, stop) or None
        if blocks is None and self._num_blocks:
            blocks = self._num_blocks.read(page, start, stop) or None
        waiting = self._waiting.read(page, start, stop) if self._waiting else None
        lora = None
        if self._adapters is not None:
            lora = self._adapters.read(page, start, stop)
            if lora is None and (waiting, running, kv, size, blocks) != _NO_NUMBERS:
                lora = self._adapters.absent()
        return Sample(waiting, running, None if kv is None else min(kv, 1.0), size, blocks, lora)


class PageScanner:
    """Reads the pages of one endpoint, whichever engine it runs.

    `labels` are the endpoint's. An engine that nobody names is recognised from the first page, and anew when a page
    says nothing in the names of the one it was: another engine may have been started in its place.

    * reads: what is needed, of which only what comes from pages counts
    * clock: monotonic seconds
    """

    __slots__ = ("_clock", "_engines", "_named", "_reads", "_scanner")

    def __init__(
        self, engines: Engines, reads: Reads, labels: Mapping[str, str] | None = None, clock: Clock = time.monotonic
    ) -> None:
        self._engines = engines
        self._reads = reads
        self._clock = clock
        self._named = engines.named(labels or {})
        self._scanner = None if self._named is None else EngineScanner(self._named, reads, clock)

    @property
    def engine(self) -> str:
        """The engine's name, "" while it is not known."""
        return self._scanner.engine.name if self._scanner else ""

    @property
    def wanted(self) -> dict[str, str]:
        """By field of `Sample` that should be filled: the names of the series it is read from, for messages."""
        if self._scanner is not None:
            return self._scanner.wanted
        found: dict[str, str] = {}
        for engine in self._engines.candidates():
            for field, names in EngineScanner(engine, self._reads).wanted.items():
                found[field] = f"{found[field]} or {names}" if field in found else names
        return found

    @property
    def families(self) -> tuple[str, ...]:
        """The names of all families that may be read, () while the engine is not known."""
        return () if self._scanner is None else self._scanner.families

    def scan(self, page: Page, start: int = 0, end: int | None = None) -> Sample:
        """Read `page[start:end]`. Never raises, whatever the page holds."""
        stop = len(page) if end is None else end
        scanner = self._scanner
        sample = _NOTHING if scanner is None else scanner.scan(page, start, stop)
        if sample != _NOTHING or self._named is not None:
            return sample
        engine = self._engines.recognise(page, start, stop)
        if engine is None or (scanner is not None and engine is scanner.engine):
            return sample
        self._scanner = EngineScanner(engine, self._reads, self._clock)
        return self._scanner.scan(page, start, stop)

    def nothing_found(self, page: Page, start: int = 0, end: int | None = None) -> str:
        """Why a page said nothing, in words, with the remedy where it can be seen."""
        stop = len(page) if end is None else end
        if page[start : start + 1] in (b"{", b"["):
            return "the page is JSON; give the path of the Prometheus page (trtllm-serve: /prometheus/metrics)"
        found = self._engines.recognise(page, start, stop)
        if self._scanner is None and found is None:
            known = ", ".join(engine.name for engine in self._engines.candidates())
            return f"the page is of no engine known here ({known})"
        text = f"the page has none of {', '.join(dict.fromkeys(self.wanted.values()))}"
        if self._named is None or found is None or found is self._named:
            return text
        keys = " or ".join(self._engines.label_keys)
        return f"{text}; it looks like a page of {found.name}: correct the label {keys}, or the default engine"


def anything_wanted(engines: Engines, reads: Reads) -> bool:
    """Whether any engine could say something that `reads` names."""
    return any(EngineScanner(engine, reads).wanted for engine in engines.known.values())


def _families(engine: EngineMetrics, reads: Reads) -> tuple[str, ...]:
    by_need = (
        (Reads.WAITING, engine.waiting),
        (Reads.RUNNING, engine.running + engine.total_us + engine.queued_us),
        (Reads.KV_UTILIZATION, engine.kv_utilization),
        (Reads.CACHE_CONFIG, engine.cache_info + engine.block_size_tokens + engine.num_blocks),
        (Reads.LORA, engine.lora),
    )
    return tuple(dict.fromkeys(spec.name for need, specs in by_need if need in reads for spec in specs))
