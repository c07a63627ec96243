# SPDX-License-Identifier: Apache-2.0
"""What was counted, as rows of a family; and how prometheus_client gets to see it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.histogram import Histogram, cumulative, merge

Row = tuple[Mapping[str, str], float | Histogram]
"""What was counted under one set of labels; the labels hold at least those of every name of the family. All rows of
a family are numbers, or all are histograms with the same bounds."""
Group = tuple[tuple[str, ...], float | tuple[list[int], float]]
"""Label values of one name, and a number, or a histogram's cumulative counts and sum."""


class FamilyCollector(Collector):
    """A collector that gives rows; every name of a family is made of the same ones."""

    @abstractmethod
    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Each family once. May be called from any thread, and must not raise when counting goes on meanwhile."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry need not collect in order to know the names."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The families as prometheus_client's objects, those without rows left out."""
        for family, rows in self.families():
            for name in family.names if rows else ():
                yield _metric(family, name, rows)


def observed(rows: Sequence[tuple[Mapping[str, str], Histogram]]) -> list[Row]:
    """The rows whose histogram has counted anything: a series appears with its first observation."""
    return [(labels, histogram) for labels, histogram in rows if any(histogram.counts)]


def help_text(family: Family, name: Name) -> str:
    """The HELP line of one name; the old ones point to the newest."""
    newest = family.names[0]
    return f"[ALPHA] {family.help}" if name is newest else f"[ALPHA] Deprecated: use {newest.name}. {family.help}"


def label_names(name: Name) -> list[str]:
    """The labels as the page calls them."""
    rename = name.rename or {}
    return [rename.get(key, key) for key in name.labels]


def groups(name: Name, rows: list[Row]) -> Iterator[Group]:
    """One group for each combination of the name's labels; rows that agree in them are added up."""
    merged: dict[tuple[str, ...], list[float | Histogram]] = {}
    for labels, value in rows:
        merged.setdefault(tuple([labels[key] for key in name.labels]), []).append(value)
    for values, together in merged.items():
        histograms = [value for value in together if isinstance(value, Histogram)]
        if histograms:
            counts, total = merge(histograms)
            yield values, (cumulative(counts), total)
        else:
            yield values, sum([value for value in together if not isinstance(value, Histogram)])


def bounds_of(rows: list[Row]) -> list[str]:
    """The bucket bounds of a family's histograms as OpenMetrics writes them, `+Inf` last; empty for numbers."""
    value = rows[0][1]
    if not isinstance(value, Histogram):
        return []
    return [str(floatToGoString(bound)) for bound in (*value.bounds, float("inf"))]  # type: ignore[no-untyped-call]


def _metric(family: Family, name: Name, rows: list[Row]) -> Metric:
    is_counter = family.kind == "counter"
    metric = Metric(name.name.removesuffix("_total") if is_counter else name.name, help_text(family, name), family.kind)
    keys = label_names(name)
    bounds = bounds_of(rows)
    for values, value in groups(name, rows):
        labels = dict(zip(keys, values, strict=True))
        if isinstance(value, tuple):
            counts, total = value
            for bound, count in zip(bounds, counts, strict=True):
                metric.samples.append(Sample(f"{name.name}_bucket", {**labels, "le": bound}, count))
            metric.samples.append(Sample(f"{name.name}_count", labels, counts[-1]))
            metric.samples.append(Sample(f"{name.name}_sum", labels, total))
        else:
            metric.samples.append(Sample(name.name, labels, value))
    return metric
