# SPDX-License-Identifier: Apache-2.0
"""The counters of plugins on the metrics page, each with a bound on its series.

What clients choose decides the labels of these counters, and must not decide how large the page gets. A counter shows
at most `most_series` label sets. The first nine tenths come as they are; then the label with the most different values
(nearly always the tenant) is counted as "other", so that the sums over the other labels stay right; when the last tenth
is used up as well, all labels are "other". A value that is no fit label (too long, no valid UTF-8) is "other" from the
start. Nothing is forgotten: a series that is there stays.

Counting happens on the event loop; the page is read in any thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from epp.contract.errors import PluginError
from epp.observe.metrics import families as known
from epp.observe.metrics.families import Family, Name
from epp.observe.metrics.rows import FamilyCollector, Row
from epp.observe.metrics.series import OTHER, is_fit_label

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KEPT_LABELS = frozenset({"le", "quantile", "pool"})
"""Prometheus's own, and ours that tells pools apart."""
_OF_OTHERS = ("python_", "process_")
_ENDINGS = ("_total", "_created", "_bucket", "_count", "_sum", "_info")


class BoundedCounter:
    """One counter of a `CountingMeter`."""

    __slots__ = ("_values", "_widest", "family", "most_series")

    def __init__(self, family: Family, most_series: int) -> None:
        self.family = family
        self.most_series = most_series
        self._values: dict[tuple[str, ...], float] = {}
        self._widest: int | None = None

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Add `amount` to the series of `labels`. Raises PluginError for a negative amount, or another number of
        labels."""
        if not amount >= 0:
            raise PluginError(f"counter {self.family.names[0].name} cannot grow by {amount}; counters only grow")
        values = self._values
        if labels in values:
            values[labels] += amount
        else:
            self._add_new(labels, amount)

    def rows(self) -> list[Row]:
        """Each series. May be called from any thread."""
        names = self.family.names[0].labels
        return [(dict(zip(names, labels, strict=True)), value) for labels, value in self._values.copy().items()]

    def _add_new(self, labels: tuple[str, ...], amount: float) -> None:
        names = self.family.names[0].labels
        if len(labels) != len(names):
            raise PluginError(f"counter {self.family.names[0].name} has the labels {names}, got {labels!r:.200}")
        labels = self._with_room(tuple([value if is_fit_label(value) else OTHER for value in labels]))
        self._values[labels] = self._values.get(labels, 0.0) + amount

    def _with_room(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        values, most = self._values, self.most_series
        if labels in values or len(values) < most - max(1, most // 10):
            return labels
        widest = self._widest
        if widest is None:
            counts = [len({key[place] for key in values}) for place in range(len(labels))]
            widest = self._widest = counts.index(max(counts)) if counts else 0
        partly = (*labels[:widest], OTHER, *labels[widest + 1 :])
        if partly in values or len(values) < most - 1:
            return partly
        return (OTHER,) * len(labels)


class CountingMeter(FamilyCollector):
    """The `Meter` that plugins of one pool share, and the collector that shows what they counted."""

    def __init__(self) -> None:
        self._counters: dict[str, BoundedCounter] = {}

    def counter(self, name: str, help_text: str, labels: Sequence[str], *, most_series: int = 1000) -> BoundedCounter:
        """The counter `name`, without `_total`. Of several bounds for one counter the largest holds.

        Raises PluginError: a name or labels that Prometheus does not take, a name of something else, other labels
        than before, a bound below 1.
        """
        shown = tuple(labels)
        found = self._counters.get(name)
        if found is not None:
            if found.family.names[0].labels != shown:
                raise PluginError(
                    f"counter '{name}' has the labels {found.family.names[0].labels} already, not {shown}; "
                    "use the same labels or another name"
                )
            found.most_series = max(found.most_series, most_series)
            return found
        _check(name, shown, most_series)
        family = Family("counter", " ".join(help_text.split()), (Name(f"{name}_total", shown),))
        made = self._counters[name] = BoundedCounter(family, most_series)
        return made

    def families(self) -> Iterator[tuple[Family, list[Row]]]:
        """Each counter."""
        for counter in list(self._counters.values()):
            yield counter.family, counter.rows()


def _check(name: str, labels: tuple[str, ...], most_series: int) -> None:
    if not _NAME.fullmatch(name) or name.endswith(_ENDINGS):
        raise PluginError(
            f"counter '{name}': not a name for a counter; allowed: letters, digits and _, without "
            f"{', '.join(_ENDINGS)} at the end"
        )
    taken = {one.name for family in vars(known).values() if isinstance(family, Family) for one in family.names}
    if f"{name}_total" in taken or name in taken or name.startswith(_OF_OTHERS):
        raise PluginError(f"counter '{name}': the metrics page shows something else by that name; use another one")
    unfit = [label for label in labels if not _NAME.fullmatch(label) or label.startswith("__")]
    if unfit or _KEPT_LABELS.intersection(labels) or len(set(labels)) < len(labels):
        raise PluginError(
            f"counter '{name}': labels {labels}; allowed: different names of letters, digits and _, not "
            f"{', '.join(sorted(_KEPT_LABELS))}"
        )
    if most_series < 1:
        raise PluginError(f"counter '{name}': most_series {most_series}; allowed: 1 and more")
