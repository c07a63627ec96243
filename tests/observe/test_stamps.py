# SPDX-License-Identifier: Apache-2.0
"""Time stamps in zap's encodings."""

from __future__ import annotations

import pytest

from epp.observe.log.stamps import STAMPS


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rfc3339", "2025-09-19T08:52:53Z"),
        ("rfc3339nano", "2025-09-19T08:52:53.250000000Z"),
        ("iso8601", "2025-09-19T08:52:53.250Z"),
        ("epoch", 1758271973.25),
        ("millis", 1758271973250.0),
        ("nano", 1758271973250000000),
    ],
)
def test_one_moment_in_every_encoding(name: str, expected: object) -> None:
    assert STAMPS[name](lambda: 1758271973.25)() == expected


def test_the_second_moves_on() -> None:
    now = [0.0]
    stamp = STAMPS["rfc3339"](lambda: now[0])
    assert stamp() == "1970-01-01T00:00:00Z"
    now[0] = 61.5
    assert stamp() == "1970-01-01T00:01:01Z"
