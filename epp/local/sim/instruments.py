# SPDX-License-Identifier: Apache-2.0
"""Counters, gauges and histograms that render themselves in the Prometheus text format, and remember the text.

Problem: a pod's page has some 700 lines and is read up to 20 times a second, while most of it has not changed since.
Every family keeps its last rendering until one of its values changes. The layout is that of the Python client library
which vLLM uses: labels sorted, `_created` as a gauge family of its own, floats such as `1.0` and `1.5e+07`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Mapping, Sequence


def number(value: float) -> str:
    """A float in the text format."""
    text = repr(float(value))
    if "e" in text or text[0] in "-in" or value < 1e6:
        return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)
    whole, fraction = text.split(".")
    digits = (whole + fraction).rstrip("0")
    return f"{digits[0]}.{digits[1:] or '0'}e+{len(whole) - 1:02d}"


def series(name: str, labels: Mapping[str, str]) -> str:
    """`name{a="1",b="2"}`, labels sorted and escaped."""
    if not labels:
        return name
    escaped = ((k, v.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')) for k, v in sorted(labels.items()))
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"


def _heading(name: str, help_text: str, kind: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


class Family(ABC):
    """What a page is made of. A subclass calls `changed` when its text is no longer true."""

    def __init__(self) -> None:
        self._text: str | None = None

    def changed(self) -> None:
        """Forget the rendering."""
        self._text = None

    def text(self) -> str:
        """The family's lines, heading included."""
        if self._text is None:
            self._text = self.render()
        return self._text

    @abstractmethod
    def render(self) -> str:
        """Make the lines anew."""


class Gauge(Family):
    """Values by label set that are set, not counted. `kind` is the type the page names."""

    def __init__(self, name: str, help_text: str, labels: Mapping[str, str], kind: str = "gauge") -> None:
        super().__init__()
        self.name = name
        self._heading = _heading(name, help_text, kind)
        self._values: dict[str, float] = {series(name, labels): 0.0}

    def set(self, value: float) -> None:
        """The one series' value."""
        key = next(iter(self._values))
        if self._values[key] != value:
            self._values[key] = value
            self.changed()

    def replace(self, values: Sequence[tuple[Mapping[str, str], float]]) -> None:
        """All series at once."""
        self._values = {series(self.name, labels): value for labels, value in values}
        self.changed()

    def render(self) -> str:
        return self._heading + "".join(f"{key} {number(value)}\n" for key, value in self._values.items())


class Counter(Family):
    """Sums by label set that only grow. `name` is without `_total`."""

    def __init__(self, name: str, help_text: str, label_sets: Sequence[Mapping[str, str]], created_s: float) -> None:
        super().__init__()
        self.name = name
        self._keys = [series(f"{name}_total", labels) for labels in label_sets]
        self._values = [0.0] * len(self._keys)
        self._heading = _heading(f"{name}_total", help_text, "counter")
        created = number(created_s)
        self._created = _heading(f"{name}_created", help_text, "gauge") + "".join(
            f"{series(f'{name}_created', labels)} {created}\n" for labels in label_sets
        )

    def add(self, amount: float = 1.0, index: int = 0) -> None:
        """Count; `index` is the place of the label set."""
        if amount:
            self._values[index] += amount
            self.changed()

    def render(self) -> str:
        lines = "".join(f"{key} {number(value)}\n" for key, value in zip(self._keys, self._values, strict=True))
        return self._heading + lines + self._created


class Histogram(Family):
    """Counts by upper bound, per label set."""

    def __init__(
        self,
        name: str,
        help_text: str,
        bounds: Sequence[float],
        label_sets: Sequence[Mapping[str, str]],
        created_s: float,
    ) -> None:
        super().__init__()
        self.name = name
        self._bounds = tuple(bounds)
        self._counts = [[0] * (len(self._bounds) + 1) for _ in label_sets]
        self._sums = [0.0] * len(label_sets)
        self._heading = _heading(name, help_text, "histogram")
        ends = [number(bound) for bound in (*self._bounds, float("inf"))]
        self._keys = [[series(f"{name}_bucket", {**labels, "le": end}) for end in ends] for labels in label_sets]
        self._tails = [(series(f"{name}_count", labels), series(f"{name}_sum", labels)) for labels in label_sets]
        created = number(created_s)
        self._created = _heading(f"{name}_created", help_text, "gauge") + "".join(
            f"{series(f'{name}_created', labels)} {created}\n" for labels in label_sets
        )

    def observe(self, value: float, count: int = 1, index: int = 0) -> None:
        """`count` observations of the same value; `index` is the place of the label set."""
        self._counts[index][bisect_left(self._bounds, value)] += count
        self._sums[index] += value * count
        self.changed()

    def render(self) -> str:
        lines = [self._heading]
        for keys, counts, tails, observed in zip(self._keys, self._counts, self._tails, self._sums, strict=True):
            total = 0
            for key, count in zip(keys, counts, strict=True):
                total += count
                lines.append(f"{key} {number(total)}\n")
            lines.append(f"{tails[0]} {number(total)}\n{tails[1]} {number(observed)}\n")
        lines.append(self._created)
        return "".join(lines)


class Page:
    """Families in order, rendered into one body."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = tuple(families)
        self._texts: list[str] = []
        self._body = b""

    def body(self) -> bytes:
        """The page; the last one again when nothing changed."""
        texts = [family.text() for family in self._families]
        if texts != self._texts:
            self._texts = texts
            self._body = "".join(texts).encode()
        return self._body
