# SPDX-License-Identifier: Apache-2.0
"""Which limit a descriptor has, and the name of its counter.

At each level an entry takes the child with its exact value, else the first wildcard of the file that fits, else the
child without a value. The limit counts only where the descriptor ends: one that goes deeper than the rules, or ends
before them, has none. An override in the request takes the place of all rules of a known domain.

Values come from headers: one that is no UTF-8 is a value like others, with a counter of its own.

A counter's key names everything the counter depends on: unit, domain, entries. It is printable ASCII without spaces
whatever headers hold, no two descriptors have the same, and it is at most 200 characters long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from urllib.parse import quote

from epp.manifests.limits import Unit
from epp.protos import rls_pb2
from epp.ratelimit.errors import BadCall
from epp.ratelimit.limits import UNITS, Limit
from epp.ratelimit.rules import Rule, RuleBook

LONGEST_KEY = 200
_KEPT_OF_LONG = 120
_PLAIN = re.compile(r"[A-Za-z0-9._~/@-]*")


class Match:
    """A limit that applies. `key` is its counter's, without the window; `rule` the name to count hits under."""

    __slots__ = ("key", "limit", "period_s", "rule")

    def __init__(self, limit: Limit, key: str, rule: str) -> None:
        self.limit = limit
        self.key = key
        self.rule = rule
        self.period_s = limit.unit.value if limit.unit else 0


def find(book: RuleBook, domain: str, descriptor: rls_pb2.RateLimitDescriptor) -> Match | None:
    """The limit of `descriptor`, None where there is none. Raises `BadCall` for an override without a usable unit."""
    root = book.domains.get(domain)
    if root is None:
        return None
    entries = entries_of(descriptor)
    if descriptor.HasField("limit"):
        return _override(domain, entries, descriptor.limit)
    rule, path, shared = root, [], False
    for key, value in entries:
        child = _child(rule, key, value)
        if child is None:
            return None
        path.append(child)
        shared = shared or bool(child.shared)
        rule = child
    limit = rule.limit
    if limit is None or not path:
        return None
    if shared:
        entries = [(key, step.shared or value) for (key, value), step in zip(entries, path, strict=True)]
    unit = limit.unit.name if limit.unit else ""
    return Match(limit, counter_key(unit, domain, entries), _name(limit, domain, entries, path))


def entries_of(descriptor: rls_pb2.RateLimitDescriptor) -> list[tuple[str, str]]:
    """Keys and values; a byte that is no UTF-8 is half of a surrogate pair, as no header can say it otherwise."""
    return [(entry.key, entry.value.decode(errors="surrogateescape")) for entry in descriptor.entries]


def _child(rule: Rule, key: str, value: str) -> Rule | None:
    composite = f"{key}_{value}"
    child = rule.children.get(composite)
    if child is None:
        for start, wildcard in rule.wildcards:
            if composite.startswith(start):
                return wildcard
        child = rule.children.get(key)
    return child


def _name(limit: Limit, domain: str, entries: Sequence[tuple[str, str]], path: Sequence[Rule]) -> str:
    if limit.detailed:
        steps = [_composite(key, value) for key, value in entries]
    elif any(rule.value_to_metric for rule in path):
        steps = [
            _composite(*entry) if rule.value_to_metric else rule.composite
            for entry, rule in zip(entries, path, strict=True)
        ]
    else:
        return limit.label or limit.rule
    return _shown(domain, steps)


def _shown(domain: str, steps: Iterable[str]) -> str:
    """As a label, which is Unicode."""
    return ".".join((domain, *steps)).encode(errors="surrogateescape").decode(errors="replace")


def _composite(key: str, value: str) -> str:
    return f"{key}_{value}" if value else key


def _override(
    domain: str, entries: Sequence[tuple[str, str]], override: rls_pb2.RateLimitDescriptor.RateLimitOverride
) -> Match:
    unit: Unit | None = UNITS.get(override.unit)
    if unit is None:
        raise BadCall(f"limit override with unit {override.unit}; allowed: 1 (second) to 7 (week)")
    rule = _shown(domain, (_composite(key, value) for key, value in entries))
    return Match(Limit(rule, override.requests_per_unit, unit), counter_key(unit.name, domain, entries), rule)


def counter_key(unit: str, domain: str, entries: Sequence[tuple[str, str]]) -> str:
    """`hour:domain:key=value;key=value`, quoted as in a URL; of a long one the end is replaced by a hash of it all."""
    steps = ";".join(f"{_quoted(key)}={_quoted(value)}" for key, value in entries)
    text = f"{unit.lower()}:{_quoted(domain)}:{steps}"
    if len(text) <= LONGEST_KEY:
        return text
    return f"{text[:_KEPT_OF_LONG]}#{blake2b(text.encode(), digest_size=20).hexdigest()}"


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe="._~/@-", errors="surrogateescape")
