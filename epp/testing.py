# SPDX-License-Identifier: Apache-2.0
"""Helpers for testing plugins without a pool, a network or real time.

    from epp.testing import make_endpoints, make_request

    def test_free_kv():
        endpoints = make_endpoints(kv_utilization=[0.25, 0.75])
        assert free_kv(make_request(), endpoints).tolist() == [0.75, 0.25]

Endpoints are named `pod-0`, `pod-1`, ... in namespace `default`. As in a real pool, a candidate's position and its row
in the table differ, so a plugin that confuses the two fails here as well.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epp.api import Columns, Endpoint, Endpoints, InferenceRequest, LoraState, Meter, PluginContext
from epp.contract.plugins import spec_of

Values = float | Sequence[float] | NDArray[Any]
"""One number for every endpoint, or one for each."""


class FakeClock:
    """Monotonic seconds that move only when told to. Call it to read the time."""

    def __init__(self, start_s: float = 1000.0) -> None:
        self.now_s = start_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass; they must not be negative."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back: {seconds} s")
        self.now_s += seconds


class RecordingMeter:
    """A `Meter` that keeps what a plugin counts: `meter.counted["name"]` is label values -> sum.

    Pass it to `make_context`. Where the service would raise `PluginError` for labels, it raises ValueError.
    """

    def __init__(self) -> None:
        self.counted: dict[str, dict[tuple[str, ...], float]] = {}
        self._labels: dict[str, tuple[str, ...]] = {}

    def counter(self, name: str, help_text: str, labels: Sequence[str], *, most_series: int = 1000) -> _Recorded:
        """The counter `name`; the same one when asked again."""
        if self._labels.setdefault(name, tuple(labels)) != tuple(labels):
            raise ValueError(f"counter {name} has the labels {self._labels[name]} already, not {tuple(labels)}")
        return _Recorded(self.counted.setdefault(name, {}), name, tuple(labels))


class _Recorded:
    def __init__(self, sums: dict[tuple[str, ...], float], name: str, labels: tuple[str, ...]) -> None:
        self._sums = sums
        self._name = name
        self._labels = labels

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Add `amount`."""
        if len(labels) != len(self._labels) or not amount >= 0:
            raise ValueError(f"counter {self._name} has the labels {self._labels} and grows, got {labels} and {amount}")
        self._sums[labels] = self._sums.get(labels, 0.0) + amount


def make_endpoints(
    count: int | None = None,
    *,
    waiting: Values = 0.0,
    running: Values = 0.0,
    kv_utilization: Values = 0.0,
    block_size_tokens: Values = 0.0,
    num_blocks: Values = 0.0,
    in_flight_requests: Values = 0.0,
    in_flight_tokens: Values = 0.0,
    age_s: Values = 0.0,
    labels: Sequence[Mapping[str, str]] | None = None,
    lora: Sequence[LoraState | None] | None = None,
    now_s: float = 1000.0,
) -> Endpoints:
    """A candidate set of `count` endpoints; without `count`, as many as the longest list given.

    `age_s` is the age of the last good scrape; `math.inf` makes an endpoint that was never scraped.
    `lora` has what each said of its adapters, None where nothing.
    Raises ValueError when lists differ in length or nothing tells how many endpoints there are.
    """
    values: dict[str, Values] = {
        "waiting": waiting,
        "running": running,
        "kv_utilization": kv_utilization,
        "block_size_tokens": block_size_tokens,
        "num_blocks": num_blocks,
        "in_flight_requests": in_flight_requests,
        "in_flight_tokens": in_flight_tokens,
        "age_s": age_s,
    }
    size = _common_size(count, values, labels, lora)
    rows = np.arange(size - 1, -1, -1) * 2 + 1
    columns = Columns(2 * size + 1)
    identities: list[Endpoint | None] = [None] * columns.capacity
    for position, row in enumerate(rows.tolist()):
        identities[row] = Endpoint(
            namespace="default",
            name=f"pod-{position}",
            ip=f"127.0.{1 + position // 250}.{1 + position % 250}",
            port=8000,
            labels=dict(labels[position]) if labels is not None else {},
            row=row,
        )
    columns.replace_endpoints(tuple(identities))
    columns.scraped_at_s[rows] = now_s - np.asarray(values.pop("age_s"), dtype=np.float64)
    columns.seen_at_s[:, rows] = columns.scraped_at_s[rows]
    for name, value in values.items():
        getattr(columns, name)[rows] = value
    for row, state in zip(rows.tolist(), lora or (), strict=False):
        if state is not None:
            columns.set_lora(row, state)
    return Endpoints(columns, rows, now_s)


def make_request(
    prompt: str | Sequence[int] = "",
    *,
    model: str = "test-model",
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> InferenceRequest:
    """A request with one prompt: text, or token ids. "" makes a request without a prompt.

    Header names are lowered, as the service does. `fields` are further fields of `InferenceRequest`;
    `target_model` is `model` unless it is given.
    """
    fields.setdefault("request_id", "test-request")
    fields.setdefault("target_model", model)
    fields.setdefault("prompts", _prompts(prompt))
    lowered = {name.lower(): value for name, value in (headers or {}).items()}
    return InferenceRequest(headers=lowered, model=model, **fields)


def make_context(
    name: str = "test", *, seed: int = 0, clock: FakeClock | None = None, meter: Meter | None = None
) -> PluginContext:
    """What a plugin instance is constructed with: its name, a clock that stands still, seeded randomness, a meter."""
    return PluginContext(
        name=name, clock=clock or FakeClock(), rng=random.Random(seed), meter=meter or RecordingMeter()
    )


def make_plugin(target: Any, *, context: PluginContext | None = None, **parameters: Any) -> Any:
    """An instance of a decorated class or function, built as the service builds it.

    `parameters` are fields of its `Parameters`; they are not checked for type, which is the loader's work.
    Raises TypeError when `target` carries no decorator or takes no such parameter.
    """
    spec = spec_of(target)
    if spec is None:
        raise TypeError(f"{target!r} is no plugin: put @scorer, @filter, @picker or @plugin on it")
    if spec.parameters is None and parameters:
        raise TypeError(f"{spec.type} takes no parameters, got {', '.join(parameters)}")
    values = spec.parameters(**parameters) if spec.parameters is not None else None
    return spec.factory(values, context or make_context(spec.type))


def _common_size(
    count: int | None,
    values: Mapping[str, Values],
    labels: Sequence[Mapping[str, str]] | None,
    lora: Sequence[LoraState | None] | None,
) -> int:
    sizes = {name: len(value) for name, value in values.items() if isinstance(value, Sequence | np.ndarray)}
    sizes |= {name: len(given) for name, given in (("labels", labels), ("lora", lora)) if given is not None}
    if count is not None:
        sizes["count"] = count
    if not sizes:
        raise ValueError("how many endpoints? give a count or a list of values")
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"lists differ in length: {told}")
    return next(iter(sizes.values()))


def _prompts(prompt: str | Sequence[int]) -> tuple[bytes, ...]:
    if not prompt:
        return ()
    if isinstance(prompt, str):
        text = prompt.encode()
        return (text + bytes(-len(text) % 4),)
    return (struct.pack(f"<{len(prompt)}I", *prompt),)
