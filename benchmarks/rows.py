# SPDX-License-Identifier: Apache-2.0
"""One line of the table: what was measured, next to its reference, against its budget.

A budget bounds either the ratio to the reference or the value itself. A row without a budget informs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["ok", "over", "-"]


class BenchmarkError(Exception):
    """A row could not be measured; one line that says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """`value` and `reference` are in `unit`; `budget` is a ratio when `relative`, else in `unit`. Less is better.

    `details` goes into the JSON alone.
    """

    name: str
    case: str
    value: float
    unit: str
    reference: float | None = None
    reference_name: str = ""
    budget: float | None = None
    relative: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """value / reference; None without a reference."""
        return self.value / self.reference if self.reference else None

    @property
    def verdict(self) -> Verdict:
        """Whether the budget holds; "-" where there is none."""
        if self.budget is None:
            return "-"
        measured = self.ratio if self.relative else self.value
        # Written so that NaN, or a missing reference, never passes.
        return "ok" if measured is not None and measured <= self.budget else "over"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "row": self.name,
            "case": self.case,
            "value": round(self.value, 3),
            "unit": self.unit,
            "reference": None if self.reference is None else round(self.reference, 3),
            "reference_name": self.reference_name,
            "ratio": None if self.ratio is None else round(self.ratio, 4),
            "budget": self.budget,
            "budget_is_ratio": self.relative,
            "verdict": self.verdict,
            "details": dict(self.details),
        }
