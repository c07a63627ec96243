# SPDX-License-Identifier: Apache-2.0
"""How a plugin counts for the metrics page, with a bound on how many label sets it can make there.

What clients choose (a user, a model's name) must never decide how large the page gets: a counter holds at most
`most_series` label sets; what would be one more is counted under the label values "other".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Counter(Protocol):
    """Counts that only grow."""

    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Add `amount`, 0 or more, to the series with these label values, in the order of the labels' names."""
        ...


class Meter(Protocol):
    """Makes counters. The same name, asked for again (another instance, a reload), is the same counter."""

    def counter(self, name: str, help_text: str, labels: Sequence[str], *, most_series: int = 1000) -> Counter:
        """The counter `name`, without `_total`, which the page adds. Raises `PluginError` for a name of something else,
        or other labels."""
        ...


class _NoCounter:
    def add(self, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Forget it."""


class NoMeter:
    """Where nobody reads: counters that forget."""

    def counter(self, name: str, help_text: str, labels: Sequence[str], *, most_series: int = 1000) -> Counter:
        """A counter that forgets."""
        return _NoCounter()
