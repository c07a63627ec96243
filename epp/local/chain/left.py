# SPDX-License-Identifier: Apache-2.0
"""What is left of a limit, in words, from the headers that Envoy gives its answers.

`x-ratelimit-limit` is the limit of which the least is left, then all of them with their lengths in seconds:
`5, 1000;w=3600, 5;w=1`. `x-ratelimit-remaining` is what was left of that one when the answer began.
"""

from __future__ import annotations

from collections.abc import Iterable, Set

from epp.manifests.limits import LimitPolicy, Unit

Watched = Set[tuple[int, int]]
"""Limits that refuse nobody: how many, in how many seconds."""


def watched(policies: Iterable[LimitPolicy]) -> Watched:
    """Those that are only watched, but for what another rule enforces in the same words."""
    rules = [rule for policy in policies for rule in policy.rules]
    shadows, enforced = (
        {(rule.requests, rule.unit.value) for rule in rules if rule.shadow is shadow} for shadow in (True, False)
    )
    return shadows - enforced


def left_words(limit: str, remaining: str, only_watched: Watched = frozenset()) -> str:
    """Such as `994 of 1000 left this hour`; "" without headers."""
    if not remaining or not limit:
        return ""
    most, unit = _tightest(limit)
    length = f" this {unit.name.lower()}" if unit is not None else ""
    shadow = " (only watched)" if _is_watched(most, unit, only_watched) else ""
    return f"{remaining} of {most} left{length}{shadow}"


def over_words(limit: str, reset: str, only_watched: Watched = frozenset()) -> str:
    """Such as `over 1000 an hour, again in 1884 s`. Which limit it was is not known where the first is only watched."""
    most, unit = _tightest(limit)
    if not most or _is_watched(most, unit, only_watched):
        return "over a limit"
    length = f" {article(unit)}" if unit is not None else ""
    return f"over {most}{length}" + (f", again in {reset} s" if reset else "")


def article(unit: Unit) -> str:
    """`a second`, `an hour`."""
    return f"a{'n' if unit is Unit.HOUR else ''} {unit.name.lower()}"


def _is_watched(most: str, unit: Unit | None, only_watched: Watched) -> bool:
    return unit is not None and most.isascii() and most.isdigit() and (int(most), unit.value) in only_watched


def _tightest(limit: str) -> tuple[str, Unit | None]:
    """How many, and over which time; None where two limits of the same number differ in that."""
    most, *others = (part.strip() for part in limit.split(","))
    quotas = (other.partition(";w=") for other in others)
    lengths = {length.partition(";")[0] for number, _, length in quotas if number == most}
    return most, next((unit for unit in Unit if {str(unit.value)} == lengths), None)
