# SPDX-License-Identifier: Apache-2.0
"""A configuration to plugin objects, sorted by the place where they act.

Every instance is constructed, in order, with its own randomness derived from the seed and its name: adding a plugin
does not change what another one draws. An object acts wherever its methods say, whether or not a profile names it.
Whatever a factory raises becomes one line.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from epp.config.configuration import Configuration, Instance, union
from epp.config.findings import Finding, Findings
from epp.contract.discovery import Discovery
from epp.contract.endpoints import Clock
from epp.contract.metering import Meter, NoMeter
from epp.contract.plugins import (
    DoneHook,
    EndpointHook,
    Filter,
    Kind,
    Picker,
    PluginContext,
    Producer,
    ProfileHandler,
    Reads,
    ResponseEndHook,
    ResponseHook,
    RoutedHook,
    SaturationDetector,
    Scorer,
    UsageWish,
    UsageWisher,
)

T = TypeVar("T")

_PROTOCOLS: Mapping[Kind, tuple[type, str]] = {
    Kind.FILTER: (Filter, "filter(request, endpoints)"),
    Kind.SCORER: (Scorer, "score(request, endpoints)"),
    Kind.PICKER: (Picker, "pick(request, endpoints, total)"),
    Kind.PROFILE_HANDLER: (ProfileHandler, "pick_profiles(...) and primary(...)"),
    Kind.PRODUCER: (Producer, "produce(request, endpoints)"),
    Kind.DISCOVERY: (Discovery, "run(publish)"),
    Kind.DETECTOR: (SaturationDetector, "saturation(endpoints)"),
}


@dataclass(frozen=True, slots=True)
class Named(Generic[T]):
    """An object and the name of its instance."""

    name: str
    object: T


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    """A scorer in a profile."""

    name: str
    object: Scorer
    weight: float


@dataclass(frozen=True, slots=True)
class AssembledProfile:
    """A scheduling profile with its objects."""

    name: str
    filters: tuple[Named[Filter], ...]
    scorers: tuple[WeightedScorer, ...]
    picker: Named[Picker]


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything that a configuration constructs. Tuples are in the order in which their members act.

    `configuration` is the loaded one, with what the objects themselves say they read.
    """

    configuration: Configuration
    objects: Mapping[str, Any]
    profiles: tuple[AssembledProfile, ...]
    handler: Named[ProfileHandler]
    producers: tuple[Named[Producer], ...]
    routed_hooks: tuple[Named[RoutedHook], ...]
    done_hooks: tuple[Named[DoneHook], ...]
    endpoint_hooks: tuple[Named[EndpointHook], ...]
    discovery: Named[Discovery] | None
    detector: Named[SaturationDetector] | None
    reads: Reads


def assemble(configuration: Configuration, clock: Clock, rng_seed: int | None, meter: Meter | None = None) -> Assembly:
    """Construct every instance; without a seed, randomness is the operating system's. `meter`: where plugins count for
    the metrics page; without, nowhere.

    Raises ConfigErrors with everything that could not be constructed.
    """
    findings = Findings()
    objects: dict[str, Any] = {}
    counting = NoMeter() if meter is None else meter
    for instance in configuration.instances:
        rng = random.Random() if rng_seed is None else random.Random(f"{rng_seed}/{instance.name}")
        _construct(instance, PluginContext(instance.name, clock, rng, counting), objects, findings)
    findings.raise_mistakes(configuration.source)
    acting = [(i.name, objects[i.name]) for i in configuration.instances if not i.leans_on_producer]
    producers = [Named(name, plugin) for name, plugin in acting if isinstance(plugin, Producer)]
    order = {name: position for position, name in enumerate(configuration.producers)}
    discovery, detector = configuration.discovery, configuration.detector
    configuration = _settled(configuration, objects)
    return Assembly(
        configuration=configuration,
        objects=objects,
        profiles=_profiles(configuration, objects),
        handler=Named(configuration.handler, objects[configuration.handler]),
        producers=tuple(sorted(producers, key=lambda producer: order.get(producer.name, len(order)))),
        routed_hooks=tuple(Named(name, plugin) for name, plugin in acting if isinstance(plugin, RoutedHook)),
        done_hooks=tuple(Named(name, plugin) for name, plugin in acting if isinstance(plugin, DoneHook)),
        endpoint_hooks=tuple(Named(name, plugin) for name, plugin in acting if isinstance(plugin, EndpointHook)),
        discovery=None if discovery is None else Named(discovery, objects[discovery]),
        detector=None if detector is None else Named(detector, objects[detector]),
        reads=configuration.reads,
    )


def _settled(configuration: Configuration, objects: Mapping[str, Any]) -> Configuration:
    """The configuration with what the objects say of themselves: an attribute `reads`, and which hooks they have."""
    instances = []
    active = set(configuration.active)
    for instance in configuration.instances:
        made = objects[instance.name]
        own = getattr(made, "reads", None)
        reads = own if isinstance(own, Reads) else instance.reads
        if isinstance(made, ResponseHook):
            reads |= Reads.RESPONSE_HEADERS
        if isinstance(made, ResponseEndHook) or _wishes(made):
            reads |= Reads.RESPONSE_BODY
        instances.append(replace(instance, reads=reads))
        hooks = Producer | RoutedHook | ResponseHook | ResponseEndHook | DoneHook | EndpointHook
        if (isinstance(made, hooks) or _wishes(made)) and not instance.leans_on_producer:
            active.add(instance.name)
    reads = union(instance.reads for instance in instances if instance.name in active)
    told = [str(Finding(one.line, f"{one.name}: {text}")) for one in instances for text in _odd(objects[one.name])]
    warnings = (*configuration.warnings, *told)
    return replace(configuration, instances=tuple(instances), active=frozenset(active), reads=reads, warnings=warnings)


def _odd(made: object) -> tuple[str, ...]:
    """What a plugin says of its own parameters that is probably not meant: its attribute `warnings`, if it has one."""
    found = getattr(made, "warnings", ())
    return tuple([one for one in found if isinstance(one, str)]) if isinstance(found, tuple) else ()


def _wishes(made: object) -> bool:
    return isinstance(made, UsageWisher) and made.usage_wish is not UsageWish.NEVER


def _construct(instance: Instance, context: PluginContext, objects: dict[str, Any], findings: Findings) -> None:
    """Add the instance's object, or say why there is none."""
    failed = f"failed to create plugin '{instance.name}' (type: {instance.type}):"
    try:
        made = instance.spec.factory(instance.parameters, context)
    except Exception as error:
        findings.mistake(instance.line, f"{failed} {str(error) or type(error).__name__}")
        return
    for kind in sorted(instance.spec.kinds & _PROTOCOLS.keys(), key=lambda kind: kind.value):
        protocol, methods = _PROTOCOLS[kind]
        if not isinstance(made, protocol):
            text = f"{failed} a {kind.value} has {methods}, this one does not ({instance.entry.place})"
            findings.mistake(instance.line, text)
    wish = getattr(made, "usage_wish", UsageWish.NEVER)
    if not isinstance(wish, UsageWish):
        findings.mistake(instance.line, f"{failed} usage_wish is {wish!r}; set it to one of epp.api.UsageWish")
    objects[instance.name] = made


def _profiles(configuration: Configuration, objects: Mapping[str, Any]) -> tuple[AssembledProfile, ...]:
    return tuple(
        AssembledProfile(
            name=profile.name,
            filters=tuple(Named(name, objects[name]) for name in profile.filters),
            scorers=tuple(WeightedScorer(s.name, objects[s.name], s.weight) for s in profile.scorers),
            picker=Named(profile.picker, objects[profile.picker]),
        )
        for profile in configuration.profiles
    )
