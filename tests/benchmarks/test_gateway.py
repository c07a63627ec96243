# SPDX-License-Identifier: Apache-2.0
"""The row `gateway` without a stack: what is put next to what."""

from __future__ import annotations

from benchmarks.gateway import COUNTED, POOLED, rows
from benchmarks.stack import ECHO, OURS_PLAIN


def test_both_kinds_of_models_stand_next_to_the_echo_and_to_the_picker() -> None:
    made = rows({ECHO: [1000.0, 800.0, 900.0], OURS_PLAIN: [300.0], POOLED: [90.0], COUNTED: [180.0]})
    assert [(row.case, row.reference, row.ratio) for row in made] == [
        (POOLED.name, 900.0, 0.1), (POOLED.name, 300.0, 0.3), (COUNTED.name, 900.0, 0.2), (COUNTED.name, 300.0, 0.6),
    ]  # fmt: skip
