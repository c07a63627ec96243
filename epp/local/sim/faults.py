# SPDX-License-Identifier: Apache-2.0
"""Faults a simulated pod shows when told to: what each kind means, and which of them are in force.

Problem: a test of routing needs pods that fail in all the ways pods fail, at a moment it chooses, and that are well
again afterwards. At most one fault of each kind is in force. A fault ends by itself after `for_s` seconds or `count`
strikes, or when it is cleared. `rate` is the share of occasions on which it strikes, 0..1.

Nothing here does I/O: the clock (monotonic seconds) and the randomness are parameters.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

Share = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Status = Annotated[int, Meta(ge=400, le=599)]
Chunks = Annotated[int, Meta(ge=0)]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all kinds have: `for_s`, seconds until it ends by itself; absent: it stays until it is cleared."""

    for_s: Seconds | None = None


class Striking(Fault, frozen=True):
    """A fault of single occasions: strikes a share `rate` of them, at most `count` in all."""

    rate: Share = 1.0
    count: Annotated[int, Meta(ge=1)] | None = None


class Error(Striking, frozen=True):
    """A request to generate is answered with `status` at once."""

    status: Status = 500


class Hang(Striking, frozen=True):
    """A request is taken and never answered. `everything`: so are metrics, models and health."""

    everything: bool = False


class Stall(Striking, frozen=True):
    """A streamed answer says nothing more after `after_chunks` tokens, and stays open."""

    after_chunks: Chunks = 1


class Reset(Striking, frozen=True):
    """A streamed answer's connection is reset (RST) after `after_chunks` tokens; a whole answer's in its place."""

    after_chunks: Chunks = 1


class Refuse(Fault, frozen=True, kw_only=True):
    """The listener is closed for `for_s` and then opened at the same address. `drop`: open connections are reset."""

    for_s: Seconds
    drop: bool = True


class Slow(Fault, frozen=True, kw_only=True):
    """The engine's steps take `factor` times as long, from the next one on."""

    factor: Annotated[float, Meta(ge=0.001, le=100_000)]


class MetricsSlow(Striking, frozen=True, kw_only=True):
    """The metrics page comes `delay_s` later."""

    delay_s: Seconds


class MetricsError(Striking, frozen=True):
    """The metrics page is answered with `status`."""

    status: Status = 500


class MetricsGarbage(Striking, frozen=True):
    """The metrics page is random bytes, with status 200."""


class MetricsTruncated(Striking, frozen=True):
    """The connection ends after a share `keep` of the metrics page, less than the length it announced."""

    keep: Annotated[float, Meta(ge=0, lt=1)] = 0.5


class MetricsStale(Fault, frozen=True):
    """The metrics page stays as it was when it was first read under this fault."""


class MetricsLie(Fault, frozen=True, kw_only=True):
    """Samples by name have these values, whatever their labels: `{"vllm:num_requests_running": 0}`."""

    values: dict[str, float]


class Exit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The process ends with `code`, `after_s` seconds from now."""

    code: Annotated[int, Meta(ge=0, le=255)] = 1
    after_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


KINDS: Mapping[str, type[Fault | Exit]] = {
    "error": Error,
    "hang": Hang,
    "stall": Stall,
    "reset": Reset,
    "refuse": Refuse,
    "slow": Slow,
    "metrics_slow": MetricsSlow,
    "metrics_error": MetricsError,
    "metrics_garbage": MetricsGarbage,
    "metrics_truncated": MetricsTruncated,
    "metrics_stale": MetricsStale,
    "metrics_lie": MetricsLie,
    "exit": Exit,
}
_NAMES = {kind: name for name, kind in KINDS.items()}

F = TypeVar("F", bound=Fault)
S = TypeVar("S", bound=Striking)


class _Active(msgspec.Struct):
    fault: Fault
    until_s: float | None
    left: int | None


def read_fault(kind: str, body: bytes) -> Fault | Exit:
    """The fault `kind` from its JSON object; an empty body means all defaults. Raises `ValueError`, one line."""
    if kind not in KINDS:
        raise ValueError(f"there is no fault '{kind}'; known: {', '.join(KINDS)}")
    try:
        return msgspec.json.decode(body or b"{}", type=KINDS[kind])
    except msgspec.DecodeError as error:
        raise ValueError(f"{kind}: {error}") from None


def read_faults(body: bytes) -> list[Fault | Exit]:
    """Faults from a JSON object of kind to fault. Raises `ValueError`, one line."""
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError as error:
        raise ValueError(f"an object of fault kinds is wanted: {error}") from None
    return [read_fault(kind, bytes(value)) for kind, value in raw.items()]


class Faults:
    """The faults in force on one pod. `on_change` is called after each call that sets or clears any."""

    def __init__(self, clock: Callable[[], float], rng: random.Random, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._rng = rng
        self._on_change = on_change
        self._active: dict[type[Fault], _Active] = {}
        self.struck: dict[str, int] = {}
        """How often each kind has struck since the start."""

    def put(self, fault: Fault) -> None:
        """Bring `fault` into force, in place of another of its kind."""
        until_s = None if fault.for_s is None else self._clock() + fault.for_s
        count = fault.count if isinstance(fault, Striking) else None
        self._active[type(fault)] = _Active(fault, until_s, count)
        self._on_change()

    def clear(self, kind: str | None = None) -> None:
        """End the fault `kind`, or all."""
        self._active = {} if kind is None else {k: v for k, v in self._active.items() if _NAMES[k] != kind}
        self._on_change()

    def get(self, kind: type[F]) -> F | None:
        """The fault of this kind that is in force."""
        active = self._active.get(kind)
        if active is None:
            return None
        if active.until_s is not None and self._clock() >= active.until_s:
            del self._active[kind]
            return None
        return active.fault  # type: ignore[return-value]

    def strike(self, kind: type[S], unless: Callable[[S], bool] | None = None) -> S | None:
        """The fault of this kind if it strikes this time: draws by `rate`, counts, and ends it after its last."""
        fault = self.get(kind)
        if fault is None or (unless is not None and unless(fault)):
            return None
        if fault.rate < 1.0 and self._rng.random() >= fault.rate:
            return None
        self.note(kind)
        active = self._active[kind]
        if active.left is not None:
            active.left -= 1
            if active.left <= 0:
                del self._active[kind]
        return fault

    def note(self, kind: type[Fault]) -> None:
        """Count an occasion on which a fault without a rate showed."""
        name = _NAMES[kind]
        self.struck[name] = self.struck.get(name, 0) + 1

    def left_s(self, kind: type[Fault]) -> float | None:
        """Seconds until the fault of this kind ends by itself; None when it does not, or is not there."""
        active = self._active.get(kind)
        return None if active is None or active.until_s is None else max(0.0, active.until_s - self._clock())

    def describe(self) -> dict[str, Any]:
        """What is in force, kind to parameters, with `left_s` and the `left` strikes where there is an end."""
        told: dict[str, Any] = {}
        for kind in list(self._active):
            fault = self.get(kind)
            if fault is not None:
                entry: dict[str, Any] = msgspec.to_builtins(fault)
                left_s, left = self.left_s(kind), self._active[kind].left
                entry |= {} if left_s is None else {"left_s": round(left_s, 3)}
                entry |= {} if left is None else {"left": left}
                told[_NAMES[kind]] = entry
        return told

    def garbage(self, size: int) -> bytes:
        """`size` random bytes."""
        return self._rng.randbytes(size)


def lie(page: bytes, values: Mapping[str, float]) -> bytes:
    """`page` in the text format, with other values for all samples of these names."""
    lines = page.split(b"\n")
    names = {name.encode(): repr(float(value)).encode() for name, value in values.items()}
    for at, line in enumerate(lines):
        value = names.get(line.partition(b" ")[0].partition(b"{")[0])
        if value is not None:
            lines[at] = line.rpartition(b" ")[0] + b" " + value
    return b"\n".join(lines)


def sample_names(page: bytes) -> set[str]:
    """The names of the samples on `page`."""
    lines = (line for line in page.split(b"\n") if line and not line.startswith(b"#"))
    return {line.partition(b" ")[0].partition(b"{")[0].decode() for line in lines}
