# SPDX-License-Identifier: Apache-2.0
"""Which engine an endpoint runs: what its label says, else the configuration, else what its metrics page looks like.

An endpoint's label is the word of whoever deployed it and counts most. Names on the page are the engine's own, with a
prefix that no other engine uses, so a page can tell its engine when nobody else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from epp.contract.plugins import Reads
from epp.signals.engine.family import Page
from epp.signals.engine.names import ENGINES, EngineMetrics

LABEL = "llm-d.ai/engine-type"
LEGACY_LABEL = "inference.networking.k8s.io/engine-type"

_MOST_SHOWN = 63
"""Characters of a label's value that are shown; Kubernetes allows no more."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines there are, and how an endpoint's is found.

    * known: by name; the order is that in which pages are compared with them
    * default: the engine of endpoints whose labels do not name a known one; "" to recognise it from the page
    * label_keys: labels that name the engine, the first that an endpoint has counts
    """

    known: Mapping[str, EngineMetrics] = field(default_factory=lambda: ENGINES)
    default: str = ""
    label_keys: tuple[str, ...] = (LABEL, LEGACY_LABEL)

    def named(self, labels: Mapping[str, str]) -> EngineMetrics | None:
        """The engine that `labels` or the configuration names, None when the page has to tell."""
        return self.known.get(self._told(labels)[1]) or self.known.get(self.default)

    def named_by(self, labels: Mapping[str, str]) -> str:
        """Whose word `named` takes: label, configuration, or "" when the page has to tell."""
        if self._told(labels)[1] in self.known:
            return "label"
        return "configuration" if self.default in self.known else ""

    def unknown(self, labels: Mapping[str, str]) -> str:
        """What is to be said of a label that names an engine which nobody knows here, "" when there is none."""
        key, told = self._told(labels)
        if not told or told in self.known:
            return ""
        shown = told if len(told) <= _MOST_SHOWN else told[:_MOST_SHOWN] + "..."
        instead = f"it is read as {self.default}" if self.default in self.known else "its page tells the engine"
        return f"label {key} is {shown!r}, which is no engine known here ({', '.join(self.known)}); {instead}"

    def recognise(self, page: Page, start: int, end: int) -> EngineMetrics | None:
        """The engine whose names `page[start:end]` has, None when it is nobody's."""
        for engine in self.known.values():
            prefix = engine.prefix.encode()
            if prefix and (page.startswith(prefix, start, end) or page.find(b"\n" + prefix, start, end) >= 0):
                return engine
        return None

    def _told(self, labels: Mapping[str, str]) -> tuple[str, str]:
        """The label that counts, and its value; empty when there is none."""
        return next(((key, labels[key]) for key in self.label_keys if key in labels), ("", ""))

    def candidates(self) -> list[EngineMetrics]:
        """The engines an endpoint without labels may turn out to run."""
        default = self.known.get(self.default)
        return [default] if default is not None else [engine for engine in self.known.values() if engine.prefix]


def only(engine: EngineMetrics) -> Engines:
    """Every endpoint runs `engine`, whatever its labels say."""
    return Engines({engine.name: engine}, engine.name, ())


def wanted_fields(engine: EngineMetrics, reads: Reads) -> dict[str, str]:
    """By field of `Sample` that a page of `engine` must fill: the names of the series it is read from, for messages.

    Adapters are not among them: their family is not there before the first request for one. Nor are requests running
    where they are worked out from two pages.
    """
    by_field = (
        (Reads.WAITING, "waiting", engine.waiting),
        (Reads.RUNNING, "running", engine.running),
        (Reads.KV_UTILIZATION, "kv_utilization", engine.kv_utilization),
        (Reads.CACHE_CONFIG, "block_size_tokens", engine.cache_info + engine.block_size_tokens),
        (Reads.CACHE_CONFIG, "num_blocks", engine.cache_info + engine.num_blocks),
    )
    return {field: " or ".join(map(str, specs)) for need, field, specs in by_field if need in reads and specs}
