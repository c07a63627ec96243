# SPDX-License-Identifier: Apache-2.0
"""One limit as the engine uses it: what a rule says, and what is made of it once, when rules are loaded.

Units and lengths are those of the Go service: a month is 30 days, a year 365.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from epp.manifests.limits import Unit
from epp.protos import rls_pb2

NEAR_LIMIT_RATIO = 0.8
"""From this share of the limit on, hits count as near the limit too."""
LARGEST_LIMIT = (1 << 32) - 1

UNITS: Mapping[int, Unit] = {rls_pb2.Unit.Value(unit.name): unit for unit in Unit}
"""The unit with each number of the protocol."""


@dataclass(frozen=True, slots=True)
class Limit:
    """`requests` per `unit`.

    * rule: its name on pages and in logs: `domain.key_value.key`
    * label: its name in metrics in the place of `rule`, where it has one
    * name, replaces: a limit that applies takes away limits with the names in `replaces`
    * unlimited: never over, never counted; shadow: counted, answered as OK
    * quota: over only where every group of quota limits of a call is over
    * detailed: `rule` of a hit has the values that the request had
    """

    rule: str
    requests: int
    unit: Unit | None
    name: str = ""
    replaces: tuple[str, ...] = ()
    unlimited: bool = False
    shadow: bool = False
    quota: bool = False
    detailed: bool = False
    label: str = ""
    near: int = field(init=False)
    current: rls_pb2.RateLimitResponse.RateLimit = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "near", near_limit(self.requests))
        unit = self.unit.name if self.unit else None
        current = rls_pb2.RateLimitResponse.RateLimit(requests_per_unit=self.requests, unit=unit, name=self.name)
        object.__setattr__(self, "current", current)


def near_limit(requests: int) -> int:
    """From how many hits on a limit is near: 0.8 times `requests`, rounded down, in single precision as in Go."""
    return math.floor(np.float32(requests) * np.float32(NEAR_LIMIT_RATIO))
