# SPDX-License-Identifier: Apache-2.0
"""Reads the LoRA adapters in use, as vLLM tells them: names in labels, and the time of it as the value.

    vllm:lora_requests_info{max_lora="4",running_lora_adapters="a,b",waiting_lora_adapters="b"} 1.7636e+09

Every combination that ever was stays on the page, so the series with the largest value is the present one. Under data
parallelism the engines of an endpoint share the family without a label of their own, so it shows the engine that spoke
last. With several API servers vLLM adds up the times of all, so a combination that more of them had may win. The family
appears with the first request for an adapter; when it disappears, the engine was started anew.
"""

from __future__ import annotations

from epp.contract.lora import LoraState
from epp.signals.engine.family import Family, Page
from epp.signals.engine.lines import number, split_line, value_of
from epp.signals.engine.names import EngineMetrics
from epp.signals.engine.series import SeriesSpec, parse_labels


class Adapters:
    """The adapters of one endpoint. The same object is given out as long as nothing changes."""

    __slots__ = ("_known", "_labels", "_sources", "_state")

    def __init__(self, engine: EngineMetrics) -> None:
        self._sources = [(spec, Family(spec.name)) for spec in engine.lora]
        # There may be thousands of combinations, of which one has a new value: lines that were read are not read again.
        self._known: dict[bytes, float] = {}
        self._labels: bytes | None = None
        self._state: LoraState | None = None

    def read(self, page: Page, start: int, end: int) -> LoraState | None:
        """None when the page does not have the family."""
        for spec, family in self._sources:
            lines = family.raw_lines(page, start, end)
            if lines:
                return self._newest(spec, lines)
        return None

    def absent(self) -> LoraState | None:
        """What a page of the engine without the family says: nothing is in use, if it was there before."""
        if self._labels is not None and self._state is not None:
            self._labels, self._state = None, LoraState(max_adapters=self._state.max_adapters)
        return self._state

    def _newest(self, spec: SeriesSpec, lines: list[bytes]) -> LoraState | None:
        known = self._known
        if len(known) == len(lines) and all(map(known.__contains__, lines)):
            return self._state
        times = [known[line] if line in known else _time(spec, line) for line in lines]
        self._known = dict(zip(lines, times, strict=True))
        at = max(times)
        if at >= 0:
            labels = split_line(_after_name(spec, lines[times.index(at)]))[0]
            if labels != self._labels:
                self._labels, self._state = labels, _state(labels)
        return self._state


def _time(spec: SeriesSpec, line: bytes) -> float:
    """The value of a series, -1 when it is not meant or has none."""
    labels, rest = split_line(_after_name(spec, line))
    value = value_of(rest)
    if value is None or (spec.labels and not spec.matches(parse_labels(labels) or {})):
        return -1.0
    return value


def _after_name(spec: SeriesSpec, line: bytes) -> bytes:
    return line.lstrip()[len(spec.name) :]


def _state(raw: bytes) -> LoraState:
    labels = parse_labels(raw) or {}
    return LoraState(
        running=_names(labels.get("running_lora_adapters", "")),
        waiting=_names(labels.get("waiting_lora_adapters", "")),
        max_adapters=int(number(labels.get("max_lora", "")) or 0),
    )


def _names(text: str) -> frozenset[str]:
    return frozenset(map(str.strip, text.split(","))) - {""}
