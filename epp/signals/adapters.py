# SPDX-License-Identifier: Apache-2.0
"""Reads the LoRA adapters in use, as vLLM tells them: names in labels, and the time of it as the value.

    vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters="b"} 1.7636e+09

Every combination that ever was stays on the page, so the series with the largest value is the present one. Under data
parallelism the engines of an endpoint share the family without a label of their own, so it shows the engine that spoke
last. The family appears with the first request for an adapter; when it disappears, the engine was started anew.
"""

from __future__ import annotations

from epp.contract.lora import LoraState
from epp.signals.engines import EngineMetrics
from epp.signals.family import Family, Page
from epp.signals.lines import number, split_line, value_of
from epp.signals.series import parse_labels

_MAX_COMBINATIONS = 65536


class Adapters:
    """The adapters of one endpoint. The same object is given out as long as nothing changes."""

    __slots__ = ("_labels", "_sources", "_state")

    def __init__(self, engine: EngineMetrics) -> None:
        self._sources = [(spec, Family(spec.name, _MAX_COMBINATIONS)) for spec in engine.lora]
        self._labels: bytes | None = None
        self._state: LoraState | None = None

    def read(self, page: Page, start: int, end: int) -> LoraState | None:
        """None when no page has had the family so far."""
        for spec, family in self._sources:
            newest, at = None, -1.0
            for line in family.lines(page, start, end):
                labels, rest = split_line(line)
                value = value_of(rest)
                if value is not None and value > at and (not spec.labels or spec.matches(parse_labels(labels) or {})):
                    newest, at = labels, value
            if newest is not None:
                if newest != self._labels:
                    self._labels, self._state = newest, _state(newest)
                return self._state
        if self._labels is not None and self._state is not None:
            self._labels, self._state = None, LoraState(max_adapters=self._state.max_adapters)
        return self._state


def _state(raw: bytes) -> LoraState:
    labels = parse_labels(raw) or {}
    return LoraState(
        running=_names(labels.get("running_lora_adapters", "")),
        waiting=_names(labels.get("waiting_lora_adapters", "")),
        max_adapters=int(number(labels.get("max_lora", "")) or 0),
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(map(str.strip, text.split(","))) - {""}
