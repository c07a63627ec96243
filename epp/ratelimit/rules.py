# SPDX-License-Identifier: Apache-2.0
"""The rules: the YAML of envoyproxy/ratelimit, to a tree that `matching` walks.

    domain: mongo_cps
    descriptors:
      - key: database
        value: users          # absent: any value, each with a counter of its own; `users*`: any that begins so
        rate_limit: {unit: second, requests_per_unit: 500}
        descriptors: [...]    # the next entry of a descriptor

A tree's children are found by composite key, `key` or `key_value`, as in the Go service: also where that makes two
different pairs one. Known keys are those of the Go service, and `label` of a rate limit, what metrics call it: the
Go service's `name` would be in the headers of clients. A key that stands where it has no meaning is refused too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from epp.config.findings import remedy
from epp.manifests.limits import Unit
from epp.ratelimit.limits import LARGEST_LIMIT, Limit
from epp.ratelimit.reading import Item, read_mapping, read_text

_ROOT = ("domain", "descriptors")
_DESCRIPTOR = (
    "key",
    "value",
    "rate_limit",
    "descriptors",
    "shadow_mode",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
    "quota_mode",
)
_RATE_LIMIT = ("unit", "requests_per_unit", "unlimited", "name", "replaces", "label")
_REPLACES = ("name",)
_ALL = (*_ROOT, *_DESCRIPTOR, *_RATE_LIMIT)
_UNITS = tuple(unit.name.lower() for unit in Unit)


@dataclass(slots=True)
class Rule:
    """One descriptor of the tree. `children` by composite key; `wildcards`: (what a composite key begins with, child),
    in the order of the file. `shared`: all values that a wildcard takes have one counter, under this text."""

    limit: Limit | None = None
    children: dict[str, Rule] = field(default_factory=dict)
    wildcards: list[tuple[str, Rule]] = field(default_factory=list)
    composite: str = ""
    shared: str = ""
    value_to_metric: bool = False


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Everything that is limited: the tree of each domain."""

    domains: Mapping[str, Rule]

    def limits(self) -> Iterable[Limit]:
        """Every limit, domain by domain, in the order of the files."""
        pending = list(self.domains.values())[::-1]
        while pending:
            rule = pending.pop()
            if rule.limit:
                yield rule.limit
            pending.extend(list(rule.children.values())[::-1])


def rules_from_yaml(text: str, source: str) -> RuleBook:
    """The rules of one YAML document. Raises `RulesError`."""
    return load_rules([(source, text)])


def load_rules(documents: Sequence[tuple[str, Mapping[str, object] | str]]) -> RuleBook:
    """The rules of several documents together; each is (name for messages, mapping or YAML text).

    A domain may be in one document only. Raises `RulesError` with the first mistake.
    """
    domains: dict[str, Rule] = {}
    for source, document in documents:
        root = read_text(document, source) if isinstance(document, str) else read_mapping(document, source)
        fields = _fields(root, "the document", _ROOT)
        domain = _text(fields, "domain")
        if not domain:
            raise root.wrong("the domain is empty or missing; write `domain: NAME`")
        if domain in domains:
            raise fields["domain"].wrong(f"duplicate domain '{domain}'; put its descriptors into one document")
        domains[domain] = Rule()
        _load(domains[domain], f"{domain}.", fields.get("descriptors"))
    return RuleBook(domains)


def _load(parent: Rule, path: str, descriptors: Item | None) -> None:
    for item in _list(descriptors, "descriptors"):
        fields = _fields(item, "a descriptor", _DESCRIPTOR)
        key, value = _text(fields, "key"), _text(fields, "value")
        if not key:
            raise item.wrong("a descriptor's key is empty or missing; write `key: NAME`")
        composite = f"{key}_{value}" if value else key
        name = path + composite
        if composite in parent.children:
            raise item.wrong(f"duplicate descriptor composite key '{name}'; remove one")
        rule = Rule(_limit(fields, name), composite=composite, value_to_metric=_flag(fields, "value_to_metric"))
        if _flag(fields, "share_threshold"):
            if not composite.endswith("*"):
                raise fields["share_threshold"].wrong(
                    f"share_threshold is for wildcard values, but '{name}' does not end with '*'; remove it"
                )
            rule.shared = value
        if composite.endswith("*"):
            parent.wildcards.append((composite[:-1], rule))
        parent.children[composite] = rule
        _load(rule, f"{name}.", fields.get("descriptors"))


def _limit(descriptor: Mapping[str, Item], rule: str) -> Limit | None:
    shadow, quota, detailed = (_flag(descriptor, key) for key in ("shadow_mode", "quota_mode", "detailed_metric"))
    item = descriptor.get("rate_limit")
    if item is None or item.value is None:
        return None
    fields = _fields(item, "rate_limit", _RATE_LIMIT)
    name, unlimited = _text(fields, "name"), _flag(fields, "unlimited")
    written = _text(fields, "unit")
    unit = Unit.__members__.get(written.upper())
    if unlimited and unit:
        raise fields["unit"].wrong(f"'{rule}' has a unit and is unlimited; remove one")
    if unit is None and not unlimited:
        at = fields.get("unit", item)
        if not written:
            raise at.wrong(f"the unit of '{rule}' is missing; give one of {', '.join(_UNITS)}")
        raise at.wrong(f"invalid rate limit unit '{written}' of '{rule}'{remedy(written, _UNITS)}")
    return Limit(
        rule,
        _count(fields),
        unit,
        name=name,
        label=_text(fields, "label"),
        replaces=tuple(_replaces(fields.get("replaces"), name)),
        unlimited=unlimited,
        shadow=shadow,
        quota=quota,
        detailed=detailed,
    )


def _replaces(item: Item | None, own: str) -> Iterable[str]:
    for entry in _list(item, "replaces"):
        name = _text(_fields(entry, "an entry of replaces", _REPLACES), "name")
        if not name:
            raise entry.wrong("an entry of replaces has no name; write `- name: NAME`, the name of another rate_limit")
        if name == own:
            raise entry.wrong(f"'{name}' replaces itself; name another rate_limit")
        yield name


def _fields(item: Item, what: str, allowed: Sequence[str]) -> Mapping[str, Item]:
    if not isinstance(item.value, Mapping):
        raise item.wrong(f"{what} is {item.kind}; write a mapping with {', '.join(allowed)}")
    for key, child in item.value.items():
        if key not in allowed:
            known = "known key" if key in _ALL else "unknown key"
            raise child.wrong(f"{known} '{key}' in {what}{remedy(key, allowed)}")
    return item.value


def _list(item: Item | None, what: str) -> Sequence[Item]:
    if item is None or item.value is None:
        return ()
    if not isinstance(item.value, list):
        raise item.wrong(f"{what} is {item.kind}; write a list, each entry after a `-`")
    return item.value


def _text(fields: Mapping[str, Item], key: str) -> str:
    item = fields.get(key)
    if item is None:
        return ""
    if isinstance(item.value, list | Mapping):
        raise item.wrong(f"{key} is {item.kind}; write a string")
    return item.text


def _flag(fields: Mapping[str, Item], key: str) -> bool:
    item = fields.get(key)
    if item is None or item.value is None:
        return False
    if not isinstance(item.value, bool):
        raise item.wrong(f"{key} is {item.text or item.kind}; write true or false")
    return item.value


def _count(fields: Mapping[str, Item]) -> int:
    item = fields.get("requests_per_unit")
    if item is None or item.value is None:
        return 0
    value = item.value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_LIMIT:
        raise item.wrong(f"requests_per_unit is {item.text or item.kind}; allowed: 0 to {LARGEST_LIMIT}")
    return value
