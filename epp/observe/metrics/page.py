# SPDX-License-Identifier: Apache-2.0
"""The metrics page as bytes.

A model has about 600 lines on it, and prometheus_client takes 10 us for each of them: with a hundred models a scrape
would hold the interpreter for a second, and requests would wait. Our own families are therefore written here; what
prometheus_client collects about the process it writes itself. Both formats are the standard ones.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.rows import FamilyCollector, Row, bounds_of, groups, help_text, label_names

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", '"': '\\"'})


class MetricsRegistry(CollectorRegistry):
    """Everything for one page: our collectors, and prometheus_client's of process, platform and garbage collector."""

    def __init__(self, *collectors: FamilyCollector) -> None:
        super().__init__()
        self.ours = collectors
        for collector in collectors:
            self.register(collector)
        self.process = CollectorRegistry()
        ProcessCollector(registry=self.process)
        PlatformCollector(registry=self.process)
        GCCollector(registry=self.process)
        self.register(self.process)

    def add(self, collector: FamilyCollector) -> None:
        """Show one more collector."""
        self.ours = (*self.ours, collector)
        self.register(collector)


def page(registry: MetricsRegistry, accept: str = "") -> tuple[bytes, str]:
    """The page and its content type, in the format that the Accept header asks for, else the text format.

    In the text format whole bucket bounds read `le="1"`, as Go's client writes them and recording rules match them;
    OpenMetrics demands `le="1.0"`.
    """
    encode, content_type = choose_encoder(accept)
    openmetrics = "openmetrics" in content_type
    parts = [
        part
        for collector in registry.ours
        for family, rows in collector.families()
        if rows
        for part in _family_text(family, rows, openmetrics)
    ]
    return "".join(parts).encode() + encode(registry.process), content_type


def _family_text(family: Family, rows: list[Row], openmetrics: bool) -> Iterator[str]:
    bounds = bounds_of(rows)
    if not openmetrics:
        bounds = [bound.removesuffix(".0") for bound in bounds]
    for name in family.names:
        title = name.name.removesuffix("_total") if openmetrics and family.kind == "counter" else name.name
        yield f"# HELP {title} {help_text(family, name)}\n# TYPE {title} {family.kind}\n"
        yield from _lines(name, rows, bounds)


def _lines(name: Name, rows: list[Row], bounds: list[str]) -> Iterator[str]:
    keys = label_names(name)
    for values, value in groups(name, rows):
        labels = ",".join([f'{key}="{text.translate(_ESCAPES)}"' for key, text in zip(keys, values, strict=True)])
        braced = f"{{{labels}}}" if labels else ""
        if isinstance(value, tuple):
            counts, total = value
            head = f'{name.name}_bucket{{{labels}{"," if labels else ""}le="'
            yield "".join([f'{head}{bound}"}} {count}\n' for bound, count in zip(bounds, counts, strict=True)])
            yield f"{name.name}_count{braced} {counts[-1]}\n{name.name}_sum{braced} {_number(total)}\n"
        else:
            yield f"{name.name}{braced} {_number(value)}\n"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else str(floatToGoString(value))  # type: ignore[no-untyped-call]
