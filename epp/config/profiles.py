# SPDX-License-Identifier: Apache-2.0
"""Scheduling profiles and the profile handler: what is given, what is added, what is wrong.

Where the Go EPP chooses in the random order of a map (the members of an implied profile, the picker of a profile
without one), the order of declaration decides.
"""

from __future__ import annotations

from epp.config.configuration import Instance, Origin, Profile, ScorerRef
from epp.config.draft import Draft
from epp.config.schema import Document, ProfileEntry
from epp.contract.plugins import Kind

DEFAULT_PROFILE = "default"
DEFAULT_WEIGHTS = {"queue-scorer": 2.0, "kv-cache-utilization-scorer": 2.0, "prefix-cache-scorer": 3.0}
"""The scorers that run when a configuration says nothing about choosing."""

_MEMBERS = (Kind.FILTER, Kind.SCORER, Kind.PICKER)
_HANDLER = "single-profile-handler"
_PICKER = "max-score-picker"


class _Members:
    """The members of one profile while they are collected."""

    def __init__(self, label: str, line: int) -> None:
        self.label = label
        self.line = line
        self.filters: list[str] = []
        self.scorers: list[ScorerRef] = []
        self.picker: str | None = None

    def take(self, draft: Draft, instance: Instance, weight: float | None, default: float, line: int) -> None:
        """Put an instance wherever its kinds say; a weight matters to scorers alone."""
        if instance.is_a(Kind.FILTER):
            self.filters.append(instance.name)
        if instance.is_a(Kind.SCORER):
            if any(scorer.name == instance.name for scorer in self.scorers):
                draft.findings.warn(line, f"{self.label} has scorer '{instance.name}' twice; both weights count")
            origin = Origin.DEFAULT if weight is None else Origin.GIVEN
            self.scorers.append(ScorerRef(instance.name, default if weight is None else weight, origin))
        elif weight is not None:
            draft.findings.note(line, f"{self.label}: the weight of '{instance.name}' has no effect; it is no scorer")
        if instance.is_a(Kind.PICKER):
            if self.picker is not None:
                text = f"{self.label}: failed to set '{instance.name}' as picker, already have '{self.picker}'"
                draft.findings.mistake(line, f"{text}; keep one picker in a profile")
            self.picker = self.picker or instance.name
        if not instance.is_a(*_MEMBERS):
            text = f"{self.label}: '{instance.name}' is neither filter, scorer nor picker; it has no effect here"
            draft.findings.note(line, text)

    def finish(self, draft: Draft, name: str, origin: Origin) -> Profile | None:
        """The profile, with a picker added when it has none."""
        picker_origin = Origin.GIVEN
        if self.picker is None:
            picker_origin = Origin.DEFAULT
            pickers = draft.of_kind(Kind.PICKER)
            added = pickers[0] if pickers else draft.add(_PICKER, f"profile '{name}' has no picker")
            self.picker = added.name if added else None
        if self.picker is None:
            return None
        return Profile(name, tuple(self.filters), tuple(self.scorers), self.picker, picker_origin, origin, self.line)


def build_profiles(document: Document, draft: Draft) -> tuple[Profile, ...]:
    """The document's profiles, or the implied one."""
    if document.scheduling_profiles:
        return _given_profiles(document.scheduling_profiles, draft)
    weights: dict[str, float] = {}
    if not draft.of_kind(*_MEMBERS) and not draft.broken:
        for type_name, weight in DEFAULT_WEIGHTS.items():
            added = draft.add(type_name, f"nothing says how to choose; its default weight is {weight:g}")
            if added is not None:
                weights[added.name] = weight
    members = _Members(f"schedulingProfiles[{DEFAULT_PROFILE}]", 0)
    for instance in draft.of_kind(*_MEMBERS):
        members.take(draft, instance, None, weights.get(instance.name, 1.0), instance.line)
    profile = members.finish(draft, DEFAULT_PROFILE, Origin.DEFAULT)
    return (profile,) if profile else ()


def _given_profiles(entries: tuple[ProfileEntry, ...], draft: Draft) -> tuple[Profile, ...]:
    profiles: dict[str, Profile] = {}
    lines: dict[str, int] = {}
    for index, entry in enumerate(entries):
        if not entry.name:
            draft.findings.mistake(entry.at.own, f"schedulingProfiles[{index}] is missing a name")
        elif entry.name in lines:
            text = f"schedulingProfiles[{index}] has duplicate name '{entry.name}', first on line {lines[entry.name]}"
            draft.findings.mistake(entry.at["name"], text)
        lines.setdefault(entry.name, entry.at.own)
        profile = _given_profile(entry, index, draft)
        if profile is not None:
            profiles.setdefault(entry.name, profile)
    return tuple(profiles.values())


def _given_profile(entry: ProfileEntry, index: int, draft: Draft) -> Profile | None:
    label = f"schedulingProfiles[{entry.name or index}]"
    members = _Members(label, entry.at.own)
    for position, member in enumerate(entry.plugins):
        line = member.at["pluginRef"]
        where = label if member.plugin_ref else f"{label}.plugins[{position}]"
        instance = draft.resolve(member.plugin_ref, line, where, lambda i: i.is_a(*_MEMBERS))
        if instance is not None:
            weight_line = member.at["weight"] if member.weight is not None else line
            members.take(draft, instance, member.weight, 1.0, weight_line)
    return members.finish(draft, entry.name, Origin.GIVEN)


def choose_handler(profiles: tuple[Profile, ...], draft: Draft) -> str:
    """The instance name of the profile handler; "" after a mistake."""
    handlers = draft.of_kind(Kind.PROFILE_HANDLER)
    names = ", ".join(profile.name for profile in profiles)
    if len(handlers) > 1:
        found = ", ".join(handler.name for handler in handlers)
        text = f"multiple profile handlers found: {found}; keep one"
        draft.findings.mistake(handlers[1].line, text)
    elif handlers:
        if handlers[0].spec.type == _HANDLER and len(profiles) > 1:
            text = f"plugin '{handlers[0].name}' ({_HANDLER}) runs exactly one profile, but there are {len(profiles)}"
            draft.findings.mistake(handlers[0].line, f"{text}: {names}; keep one or use another profile handler")
        return handlers[0].name
    elif len(profiles) == 1:
        added = draft.add(_HANDLER, "there is one profile and no profile handler")
        return added.name if added else ""
    elif not draft.broken and profiles:
        text = f"no profile handler configured; {len(profiles)} profiles ({names}) need one that chooses between them"
        draft.findings.mistake(0, text)
    return ""
