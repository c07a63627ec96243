# SPDX-License-Identifier: Apache-2.0
"""Who is turned away at the door, as the Go EPP does without flow control: requests of a priority below 0 while the
pool is saturated. Everybody else passes unlooked at.

What a detector measures is the whole pool, whatever subset the request may go to. Without a detector, or with one that
fails, nobody is turned away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from epp.contract.errors import ResourceExhausted

if TYPE_CHECKING:
    from epp.director.director import Director
    from epp.director.plan import Plan

SATURATED = 1.0


def admit(director: Director, plan: Plan) -> None:
    """Let a sheddable request in. Raises `ResourceExhausted` when the pool is saturated."""
    detector = plan.detector
    if detector is None:
        director.say_once(
            "requests with a priority below 0 are never refused: the configuration reads no load from metrics pages, "
            "so nothing knows when the pool is saturated; declare a utilization-detector"
        )
        return
    if detector.failing and detector.benched:
        return
    try:
        saturation = detector.plugin.saturation(director.pool.candidates())
    except Exception as error:
        detector.failed(error)
        return
    detector.succeeded()
    if saturation >= SATURATED:
        raise ResourceExhausted("system saturated, sheddable request dropped")
