# SPDX-License-Identifier: Apache-2.0
"""The effective plan of a configuration: what runs, why, and what that makes the service do. For people and as JSON.

Work is done only for a reason, so every "yes" names the plugins that read the thing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from epp.config.configuration import Configuration, Instance, Origin, Profile
from epp.contract.plugins import SCRAPED, Kind, Reads
from epp.contract.prefix import PREFIX_MATCH

BODY = Reads.BODY | Reads.PROMPT


def auto_response_phase(reads: Reads) -> str:
    """What --response-phase auto means where plugins read `reads`: full, headers or release."""
    if reads & Reads.RESPONSE_BODY:
        return "full"
    return "headers" if reads & Reads.RESPONSE_HEADERS else "release"


def plan_dict(configuration: Configuration) -> dict[str, Any]:
    """The plan as plain values."""
    return {
        "source": configuration.source,
        "profiles": [_profile_dict(profile) for profile in configuration.profiles],
        "handler": _instance_dict(configuration.instance(configuration.handler)),
        "producers": [
            {**_instance_dict(configuration.instance(name)), "publishes": _publishes(configuration.instance(name))}
            for name in configuration.producers
        ],
        "plugins": [_instance_dict(instance) for instance in configuration.instances],
        "scrapes": {name: list(readers) for name, readers in _scraped(configuration).items()},
        "sources": [dataclasses.asdict(source) | {"origin": source.origin.value} for source in configuration.sources],
        "parses_bodies_for": list(configuration.readers(BODY)),
        "reads_responses_for": list(configuration.readers(Reads.RESPONSE_BODY)),
        "reads_response_headers_for": list(configuration.readers(Reads.RESPONSE_HEADERS)),
        "auto_response_phase": auto_response_phase(configuration.reads),
        "parsers": list(configuration.parsers),
        "endpoints": _endpoints(configuration),
        "notes": list(configuration.notes),
        "warnings": list(configuration.warnings),
    }


def plan_text(configuration: Configuration) -> str:
    """The plan as lines of text."""
    lines: list[str] = []
    for profile in configuration.profiles:
        lines += _profile_lines(configuration, profile)
    handler = configuration.instance(configuration.handler)
    lines.append(f"handler    {_name(handler)}{_origin(handler.origin)}")
    lines += _producer_lines(configuration)
    lines += _other_lines(configuration)
    lines += _work_lines(configuration)
    for title, remarks in (("warnings", configuration.warnings), ("notes", configuration.notes)):
        if remarks:
            lines += [title, *(f"  {remark}" for remark in remarks)]
    return "\n".join(lines)


def _profile_lines(configuration: Configuration, profile: Profile) -> list[str]:
    lines = [f"profile    {profile.name}{_origin(profile.origin)}"]
    lines += [f"  filter   {_name(configuration.instance(name))}" for name in profile.filters]
    for scorer in profile.scorers:
        instance = configuration.instance(scorer.name)
        lines.append(f"  scorer   {_name(instance)}  weight {scorer.weight:g}{_origin(scorer.origin)}")
        lines += _parameter_lines(instance)
    if not profile.scorers:
        lines.append("  scorer   none: every endpoint that the filters keep is equally good")
    lines.append(f"  picker   {_name(configuration.instance(profile.picker))}{_origin(profile.picker_origin)}")
    return lines


def _parameter_lines(instance: Instance) -> list[str]:
    given = {name: value for name, value in _parameters(instance).items() if value not in (None, "", [], (), {})}
    lists = {name: value for name, value in given.items() if _is_list_of_mappings(value)}
    shown = ", ".join(f"{name}={value}" for name, value in given.items() if name not in lists)
    lines = [f"           {shown}"] if shown else []
    for name, items in lists.items():
        for number, item in enumerate(items):
            fields = ", ".join(f"{key}={value}" for key, value in item.items() if value not in (None, ""))
            lines.append(f"           {name}[{number}]: {fields}")
    return lines


def _is_list_of_mappings(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, dict) for item in value)


def _producer_lines(configuration: Configuration) -> list[str]:
    if not configuration.producers:
        return ["producers  none"]
    lines = ["producers"]
    for name in configuration.producers:
        instance = configuration.instance(name)
        publishes = ", ".join(_publishes(instance))
        lines.append(f"  {_name(instance)}{_origin(instance.origin)}{'  publishes ' + publishes if publishes else ''}")
        lines += _parameter_lines(instance)
    return lines


def _other_lines(configuration: Configuration) -> list[str]:
    """What acts on requests or answers without a part in scheduling."""
    shown = {configuration.handler, *configuration.producers, configuration.discovery, configuration.detector}
    shown |= {member for profile in configuration.profiles for member in profile.members}
    shown |= {name for source in configuration.sources for name in (source.name, *source.extractors)}
    shown |= set(configuration.parsers)
    others = [one for one in configuration.instances if one.name in configuration.active and one.name not in shown]
    lines: list[str] = []
    for one in others:
        lines += [f"besides    {_name(one)}{_origin(one.origin)}", *_parameter_lines(one)]
    return lines


def _work_lines(configuration: Configuration) -> list[str]:
    scraped = _scraped(configuration)
    sources = ", ".join(_name(configuration.instance(source.name)) for source in configuration.sources)
    lines = [f"scraped    by {sources}" if scraped else "scraped    nothing: no plugin reads it"]
    lines += [f"  {name} for {', '.join(readers)}" for name, readers in scraped.items()]
    bodies = configuration.readers(BODY)
    responses = configuration.readers(Reads.RESPONSE_BODY)
    heads = configuration.readers(Reads.RESPONSE_HEADERS)
    lines.append(f"bodies     {'parsed for ' + ', '.join(bodies) if bodies else 'no plugin reads them'}")
    lines.append(f"parsers    {', '.join(configuration.parsers)}{_origin(configuration.parsers_origin)}")
    lines.append(f"responses  {'read for ' + ', '.join(responses) if responses else 'no plugin reads them'}")
    if heads:
        lines.append(f"           their headers shown to {', '.join(heads)}, which may add some")
    lines.append(f"           --response-phase auto means {auto_response_phase(configuration.reads)}")
    lines.append(f"endpoints  {_endpoints(configuration)}")
    return lines


def _scraped(configuration: Configuration) -> dict[str, tuple[str, ...]]:
    """What is read from metrics pages, and for whom."""
    return {str(need.name).lower(): configuration.readers(need) for need in configuration.reads & SCRAPED}


def _publishes(instance: Instance) -> list[str]:
    """Keys of what a producer leaves on a request: its class's `publishes`, and the default producer's."""
    if instance.publishes_prefixes:
        return [f"{PREFIX_MATCH.name}/{instance.name}"]
    return [str(key) for key in getattr(instance.entry.target, "publishes", ())]


def _endpoints(configuration: Configuration) -> str:
    if configuration.discovery is None:
        return "from --endpoints, --endpoints-file or the pool's flags"
    instance = configuration.instance(configuration.discovery)
    path = getattr(instance.parameters, "path", None)
    return f"from {_name(instance)}" + (f", file {path}" if path else "")


def _profile_dict(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "origin": profile.origin.value,
        "filters": list(profile.filters),
        "scorers": [
            {"name": scorer.name, "weight": scorer.weight, "origin": scorer.origin.value} for scorer in profile.scorers
        ],
        "picker": profile.picker,
        "picker_origin": profile.picker_origin.value,
    }


def _instance_dict(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "type": instance.spec.type,
        "kinds": sorted(kind.value for kind in instance.spec.kinds if kind is not Kind.PASSIVE),
        "place": instance.entry.place,
        "parameters": _parameters(instance),
        "origin": instance.origin.value,
        "line": instance.line,
    }


def _parameters(instance: Instance) -> dict[str, Any]:
    parameters = instance.parameters
    if not dataclasses.is_dataclass(parameters) or isinstance(parameters, type):
        return {}
    return dataclasses.asdict(parameters)


def _name(instance: Instance) -> str:
    same = instance.name == instance.spec.type
    return instance.name if same else f"{instance.name} ({instance.spec.type})"


def _origin(origin: Origin) -> str:
    return "  (default)" if origin is Origin.DEFAULT else ""
