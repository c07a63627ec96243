# SPDX-License-Identifier: Apache-2.0
"""What a BackendTrafficPolicy limits, as plain values: once as actions for Envoy's rate limit filter, once as rules for
the rate limit service, both under the same descriptor keys.

Envoy turns the actions of a rule into one descriptor, a list of entries (key, value), in their order; the service has a
tree of the same order. Keys are those of Envoy Gateway: `rule-<rule>-match-<selector>`, both from 0.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ROUTE_KEY = "route"
"""Key of the first entry of every descriptor: which route rule the request took (`Rule.name`). The service's tree has
no value for it, so each route rule has counters of its own, as with Envoy Gateway. Only a route rule with a policy of
its own route has a value in the tree, and a shared rule: `SHARED/<policy>`."""
SHARED = "shared"
ABSENT = "-absent"
"""What ends the key of the entry that stands for a header that is not there (`Absent.SHARED`)."""


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
    """One BackendTrafficPolicy. `name` is `namespace/name`; `gateways` (with a section `namespace/name/listener`) and
    `routes` are the names (`namespace/name`) it targets: a policy of a route counts in the place of its listener's, one
    of a listener in the place of its gateway's. See `policy_for`."""

    name: str
    rules: tuple[LimitRule, ...]
    gateways: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    absent: Absent = Absent.UNLIMITED


class Source(enum.Enum):
    """Where Envoy takes an entry of a descriptor from. Where it cannot be had, there is no descriptor."""

    CONSTANT = "constant"
    """Key and value as they are (`generic_key`)."""
    HEADER = "header"
    """The value is that of the selector's header (`request_headers`); none if the header is not there."""
    MATCH = "match"
    """Key and value as they are, if the selector matches (`header_value_match`)."""
    MISSING = "missing"
    """Key and value as they are, if the selector's header is not there (`header_value_match`, present, inverted)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a descriptor. `value` is "" where the request gives it (HEADER); `selector` None for CONSTANT."""

    key: str
    value: str
    source: Source
    selector: Selector | None = None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What Envoy sends for `rule`, and where the service's tree has its limit: one more for each header that may be
    absent and is then counted together. `label`: what metrics call it, `<policy>/rule-<number>`."""

    rule: LimitRule
    label: str
    entries: tuple[Entry, ...]


def descriptors(policy: LimitPolicy, route: str) -> tuple[Descriptor, ...]:
    """The descriptors of a policy for the route rule named `route`, in the order of its rules.

    Envoy's actions and the service's tree are both made from this, entry by entry, so that they cannot disagree. The
    tree leaves the value of the first entry out where it holds for all routes of a gateway (`route` "" is enough
    then). `Absent.REJECT` adds none: such a request never gets as far.
    """
    found = []
    for number, rule in enumerate(policy.rules):
        place = f"{SHARED}/{policy.name}" if rule.shared else route
        label = f"{policy.name}/rule-{number}"
        first = Entry(ROUTE_KEY, place, Source.CONSTANT)
        if not rule.selectors:
            key = f"rule-{number}-match--1"
            found.append(Descriptor(rule, label, (first, Entry(key, key, Source.CONSTANT))))
            continue
        choices = [_entries(selector, policy.absent) for selector in rule.selectors]
        found += [Descriptor(rule, label, (first, *entries)) for entries in itertools.product(*choices)]
    return tuple(found)


def _entries(selector: Selector, absent: Absent) -> tuple[Entry, ...]:
    if selector.match is not Match.DISTINCT:
        return (Entry(selector.key, selector.key, Source.MATCH, selector),)
    given = Entry(selector.key, "", Source.HEADER, selector)
    if absent is not Absent.SHARED:
        return (given,)
    key = selector.key + ABSENT
    return (given, Entry(key, key, Source.MISSING, selector))


def policy_for(policies: Iterable[LimitPolicy], route: str, gateway: str, listener: str) -> LimitPolicy | None:
    """The policy that holds for a route (`namespace/name`) on a listener of a gateway (`namespace/name`): the route's,
    else the listener's, else the gateway's; the first of several. None: no limits."""
    known = tuple(policies)
    section = f"{gateway}/{listener}"
    for holds in (
        lambda policy: route in policy.routes,
        lambda policy: section in policy.gateways,
        lambda policy: gateway in policy.gateways,
    ):
        found = next(filter(holds, known), None)
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """Rules for the rate limit service, in the form of the Go service's configuration file with `label` besides: one
    mapping `{"domain": ..., "descriptors": [...]}` a domain."""

    domains: tuple[Mapping[str, Any], ...]
