# SPDX-License-Identifier: Apache-2.0
"""What a BackendTrafficPolicy limits, as plain values: once as actions for Envoy's rate limit filter, once as rules for
the rate limit service, both under the same descriptor keys.

Envoy turns the actions of a rule into one descriptor, a list of entries (key, value), in their order; the service has a
tree of the same order. Keys are those of Envoy Gateway: `rule-<rule>-match-<selector>`, both from 0.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ROUTE_KEY = "route"
"""Key of the first entry of every descriptor: which route rule the request took. The service's tree has no value for
it, so each route rule has counters of its own, as with Envoy Gateway; a shared rule has the value `SHARED`."""
SHARED = "shared"


class Unit(enum.Enum):
    """What `requests` are counted over; the value is its length in seconds (month 30 days, year 365, as in Go)."""

    SECOND = 1
    MINUTE = 60
    HOUR = 3600
    DAY = 86400
    WEEK = 604800
    MONTH = 2592000
    YEAR = 31536000


class Match(enum.Enum):
    """How a selector looks at its header; the last two exist for paths and methods as pseudo headers too."""

    DISTINCT = "Distinct"
    EXACT = "Exact"
    REGEX = "RegularExpression"
    PREFIX = "PathPrefix"


class Absent(enum.Enum):
    """What becomes of a request without a header that a rule tells users apart by (`Match.DISTINCT`)."""

    UNLIMITED = "unlimited"
    """The rule does not apply, as with Envoy Gateway."""
    SHARED = "shared"
    """All such requests together have one counter."""
    REJECT = "reject"
    """400."""


@dataclass(frozen=True, slots=True)
class Selector:
    """One entry of a rule's descriptor. `header` is in lower case; `value` is empty for DISTINCT; `invert`: matches
    where the header does not have that value."""

    key: str
    header: str
    match: Match
    value: str = ""
    invert: bool = False


@dataclass(frozen=True, slots=True)
class Charge:
    """What a request costs: `number`, or what dynamic metadata `namespace` / `key` says."""

    number: int | None = None
    namespace: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class LimitRule:
    """`requests` per `unit`, for every value of the DISTINCT selectors. `at_request` None: the request costs 1;
    `at_response` None: nothing is booked when the response is over. `shared`: one counter for all routes."""

    selectors: tuple[Selector, ...]
    requests: int
    unit: Unit
    at_request: Charge | None = None
    at_response: Charge | None = None
    shared: bool = False
    shadow: bool = False


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """One BackendTrafficPolicy. `name` is `namespace/name`; `gateways` and `routes` are the names (`namespace/name`) it
    targets: a policy of a route counts in the place of its gateway's."""

    name: str
    rules: tuple[LimitRule, ...]
    gateways: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    absent: Absent = Absent.UNLIMITED


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """Rules for the rate limit service, in the form of the Go service's configuration file: one mapping
    `{"domain": ..., "descriptors": [...]}` a domain."""

    domains: tuple[Mapping[str, Any], ...]
